"""The full training step, its speed beside the machine's own, and where its time goes.

    python -m benchmarks.elo_step --batch=2                      # defaults.gin, 40 losses
    python -m benchmarks.elo_step --batch=2 --data=records       # and the wait for data
    python -m benchmarks.elo_step --gin_file=demo.gin --batch=16 --profile
    python -m benchmarks.elo_step --gin_file=papers/elo_cvpr2020/final.gin --batch=1 \\
        --rounds=1 --warm_up=0                                   # one step; compiling is timed too

In every round, one after the other: products of square matrices, whose rate is the limit; the step
of all losses on a batch of noise in which no modality is missing; and the forward and backward pass
of the RGB encoder alone on the intact clips. FLOPs are counted from the graphs
(`elo_tf.training.costs`); with `recompute`, the second forward pass is work too.

--cold starts a new program before that, and times its import, the building of the model, and the
first step, which traces and compiles.
"""

import json
import resource
import statistics
import subprocess
import sys
import time

import elo_tf  # noqa: F401  (first, so that TensorFlow starts quietly)

# isort: split

import gin
import numpy as np
import tensorflow as tf
from absl import flags

from benchmarks import machine
from elo_tf import cli
from elo_tf.bin import configuration
from elo_tf.data.pipeline import training_clips
from elo_tf.training.costs import all_present, batch_signature, count_costs, trace_step
from elo_tf.training.data_wait import DataWait
from elo_tf.training.devices import distribute, make_strategy
from elo_tf.training.optimization import create_slots
from elo_tf.views.clip_views import ClipViews

BATCH = flags.DEFINE_integer("batch", 2, "Clips in a batch.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 3, "How often everything is timed.", lower_bound=1)
WARM_UP = flags.DEFINE_integer("warm_up", 2, "Calls before the first round.", lower_bound=0)
WEIGHT = flags.DEFINE_float("weight", 0.5, "Of every loss.")
DATA = flags.DEFINE_string("data", None, "Folder of records: measures the wait for data too.")
DATA_STEPS = flags.DEFINE_integer("data_steps", 10, "Steps on records.", lower_bound=1)
PROFILE = flags.DEFINE_bool("profile", False, "Prints where the time of a step goes.")
COLD = flags.DEFINE_bool("cold", False, "Times a first step in a new program too.")
COLD_CHILD = flags.DEFINE_float("cold_child", None, "This is that program, started then.")
flags.FLAGS.set_default("run_dir", "")  # nothing is written


def noise(signature: dict[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """A batch of noise in which nothing is missing."""
    generator = np.random.default_rng(0)

    def draw(name: str, spec: tf.TensorSpec) -> np.ndarray:
        if spec.dtype == tf.bool:
            return np.ones(spec.shape, bool)
        if spec.dtype == tf.uint8:
            return generator.integers(0, 256, spec.shape, np.uint8)
        if spec.dtype == tf.float32:
            return generator.normal(0, 0.1, spec.shape).astype(np.float32)
        return np.arange(spec.shape[0])

    return {name: tf.constant(draw(name, spec), spec.dtype) for name, spec in signature.items()}


def build():
    """The model of the configuration, compiled, in its strategy's scope."""
    of = gin.get_configurable
    clip, space, strategy = of("ClipSpec")(), of("LossSpace")(), make_strategy()
    weights = dict.fromkeys(space.names, WEIGHT.value)
    with strategy.scope():
        model = of("PretrainingModel")(clip, space, names=space.active(weights), seed=1)
        model.set_weights_by_name(weights)
        model.compile(optimizer=of("make_optimizer")(100, BATCH.value))
        create_slots(model.optimizer, model.trainable_variables)
    return clip, model


def rgb_only(model, clip):
    """Forward and backward pass of the RGB encoder on the intact clips."""
    encoder = model.encoders["rgb"]

    @tf.function
    def step(rgb):
        with tf.GradientTape() as tape:
            inputs = ClipViews({"rgb": rgb, "key": rgb[:, 0, 0, 0, 0]}, clip).view("rgb", "intact")
            total = tf.reduce_sum(encoder(inputs, training=True)["embedding"])
        gradients = tape.gradient(total, encoder.trainable_variables)
        return tf.add_n([tf.reduce_sum(x) for x in gradients])

    return step


def timed(call) -> float:
    """Seconds of a call whose result is waited for."""
    started = time.perf_counter()
    tf.nest.map_structure(lambda x: x.numpy(), call())
    return time.perf_counter() - started


def measure_cold() -> None:
    """Prints what a new program needs until its first step is done."""
    command = [sys.executable, "-m", "benchmarks.elo_step", *sys.argv[1:],
               f"--cold_child={time.time()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    times = json.loads(done.stdout.splitlines()[-1])
    print("a new program, seconds: " + ", ".join(f"{k} {v:.1f}" for k, v in times.items()) + "\n")


def cold_child(imported: float) -> None:
    """Builds, and makes the first steps."""
    started = time.perf_counter()
    clip, model = build()
    batch = noise(batch_signature(clip, BATCH.value, model.modalities, model.needs_other))
    built = time.perf_counter()
    step, iterator = model.make_train_function(), iter(
        tf.data.Dataset.from_tensors(batch).repeat())
    first, second, third = (timed(lambda: step(iterator)) for _ in range(3))
    print(json.dumps({"import": imported, "build": built - started, "first step": first,
                      "of which the step itself": min(second, third)}))


def measure_wait(clip, model) -> None:
    """Prints how long the step waits for its batches."""
    records = gin.get_configurable("Records")(DATA.value)
    clips = training_clips(records, "unlabelled", clip, batch_size=BATCH.value, seed=1,
                           modalities=model.modalities, other=model.needs_other)
    wait = DataWait(model)
    iterator = iter(distribute(model.distribute_strategy, clips))
    for _ in range(DATA_STEPS.value + 1):
        report = model.train_function(iterator)
    float(report["total"])
    waited = wait.take()
    print(f"\n{waited.steps} steps on records: {waited.steps * BATCH.value / waited.wall:.2f} "
          f"clips/s, waiting for data {waited.share:.1%}")


def main(argv):
    """Measures."""
    del argv
    if COLD_CHILD.value:
        imported = time.time() - COLD_CHILD.value
    configuration.parse(configuration.GIN_FILE.value, configuration.GIN_BINDINGS.value)
    if COLD_CHILD.value:
        cold_child(imported)
        return
    if COLD.value:
        measure_cold()
    clip, model = build()
    signature = batch_signature(clip, BATCH.value, model.modalities, model.needs_other)
    batch = noise(signature)
    iterator = iter(distribute(model.distribute_strategy,
                               tf.data.Dataset.from_tensors(batch).repeat()))
    step, rgb = model.make_train_function(), rgb_only(model, clip)
    half = gin.query_parameter("PretrainingModel.precision") == "mixed_bfloat16"
    with all_present():
        costs = count_costs(trace_step(model, signature))
    rgb_costs = count_costs(rgb.get_concrete_function(signature["rgb"]))
    calls = {"all losses": (costs.flops, lambda: step(iterator)),
             "RGB alone": (rgb_costs.flops, lambda: rgb(batch["rgb"]))}
    for _, call in calls.values():
        for _ in range(WARM_UP.value):
            timed(call)
    rates, times = [], {name: [] for name in calls}
    for _ in cli.progress(range(ROUNDS.value), desc="rounds", unit="round"):
        rates.append(machine.matmul_rate(tf.bfloat16 if half else tf.float32))
        for name, (_, call) in calls.items():
            times[name].append(timed(call))
    rate = statistics.median(rates)
    print(f"{len(model.names)} losses, clips of {clip.frames} + {clip.next_frames} frames of "
          f"{clip.size} x {clip.size}, batch {BATCH.value}, "
          f"{'bfloat16' if half else 'float32'}; {machine.describe()}")
    print(f"matrix products: {rate / 1e9:.0f} GFLOP/s\n")
    print(f"{'':12} {'GFLOPs':>9} {'s':>8} {'(min-max)':>15} {'clips/s':>8} {'GFLOP/s':>8} "
          "of limit")
    for name, (flops, _) in calls.items():
        seconds = statistics.median(times[name])
        spread = f"({min(times[name]):.2f}-{max(times[name]):.2f})"
        print(f"{name:12} {flops / 1e9:9.1f} {seconds:8.3f} {spread:>15} "
              f"{BATCH.value / seconds:8.2f} {flops / seconds / 1e9:8.1f} "
              f"{flops / seconds / rate:8.1%}")
    both = [statistics.median(x) for x in times.values()]
    print(f"\nall losses / RGB alone: {both[0] / both[1]:.2f} times the time, "
          f"{costs.flops / rgb_costs.flops:.2f} times the FLOPs")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB")
    if PROFILE.value:
        print("\n" + machine.profile(lambda: timed(lambda: step(iterator))))
    if DATA.value:
        measure_wait(clip, model)


if __name__ == "__main__":
    cli.run(main)
