"""From one process to two, each on a core of its own: the efficiency of training on several hosts.

    python -m benchmarks.scaling --batch=8 --gin_file=demo.gin

Each process is pinned to one core and trains on `--batch` clips a step: alone, and as one of two
hosts on loopback under MultiWorkerMirroredStrategy, with synchronised batch normalisation and the
negatives of both. The efficiency is the clips a second of two over twice those of one. Both are run
in turn.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time

import elo_tf  # noqa: F401  (first, so that TensorFlow starts quietly)

# isort: split

import tensorflow as tf
from absl import flags

from benchmarks import elo_step, machine
from elo_tf import cli
from elo_tf.bin import configuration
from elo_tf.training.costs import batch_signature
from elo_tf.training.devices import distribute

STEPS = flags.DEFINE_integer("steps", 10, "Steps of each timing.", lower_bound=1)
CORE = flags.DEFINE_integer("core", -1, "This is a process, pinned to this core.")


def work() -> None:
    """Trains, and prints clips a second of this process."""
    os.sched_setaffinity(0, {CORE.value})
    configuration.parse(configuration.GIN_FILE.value, configuration.GIN_BINDINGS.value)
    clip, model = elo_step.build()
    signature = batch_signature(clip, elo_step.BATCH.value, model.modalities, model.needs_other)
    endless = tf.data.Dataset.from_tensors(elo_step.noise(signature)).repeat()
    step, iterator = model.make_train_function(), iter(
        distribute(model.distribute_strategy, endless))
    for _ in range(2):
        float(step(iterator)["total"])
    started = time.perf_counter()
    for _ in range(STEPS.value):
        total = step(iterator)["total"]
    float(total)
    seconds = time.perf_counter() - started
    print(json.dumps(STEPS.value * elo_step.BATCH.value / seconds))


def run(processes: int) -> float:
    """Clips a second of so many processes together."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(processes)]
    hosts = [f"127.0.0.1:{x.getsockname()[1]}" for x in sockets]
    for x in sockets:
        x.close()
    started = []
    for index in range(processes):
        cluster = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        environment = dict(os.environ)
        if processes > 1:
            environment["TF_CONFIG"] = json.dumps(cluster)
        started.append(subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scaling", *sys.argv[1:], f"--core={index}"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
    outputs = [x.communicate()[0] for x in started]
    return sum(json.loads(x.splitlines()[-1]) for x in outputs)


def main(argv):
    """Measures."""
    del argv
    if CORE.value >= 0:
        work()
        return
    rates = {1: [], 2: []}
    for _ in cli.progress(range(elo_step.ROUNDS.value), desc="rounds", unit="round"):
        for processes, found in rates.items():
            found.append(run(processes))
    one, two = (statistics.median(rates[n]) for n in (1, 2))
    print(f"{elo_step.BATCH.value} clips a process, {STEPS.value} steps, {machine.describe()}, one "
          "for each process")
    for processes, found in rates.items():
        print(f"{processes} process(es): {statistics.median(found):7.2f} clips/s "
              f"({min(found):.2f}-{max(found):.2f})")
    print(f"efficiency: {two / (2 * one):.1%}")


if __name__ == "__main__":
    cli.run(main)
