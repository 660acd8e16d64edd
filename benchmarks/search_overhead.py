"""What a candidate costs, and how much of it is not training.

    python -m benchmarks.search_overhead --data=demo/records

Runs the same random candidates through (a) the search in one process, (b) the search with two local
workers and (c) one fresh process for each candidate, in turn. Prints wall seconds a candidate and
the share of them that goes into training steps and feature extraction, the first candidate of a
worker left out, since the step is compiled before it; and what starting and compiling cost once.
"""

import functools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import gin
from absl import flags

from elo_tf import cli
from elo_tf.bin import configuration, registered
from elo_tf.search import engines
from elo_tf.search import search as search_lib
from elo_tf.search.loop import run_search
from elo_tf.search.strategies import RandomSearch

DATA = flags.DEFINE_string("data", None, "Folder of records.", required=True)
GIN = flags.DEFINE_string("gin", "gin/demo.gin", "Gin file of the proxies.")
CANDIDATES = flags.DEFINE_integer("candidates", 6, "Candidates of (a) and of (b) in a round.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "How often the three are run in turn.")
ONE = flags.DEFINE_string("one", "", "Evaluates these weights and ends: what (c) starts.")
flags.FLAGS.set_default("run_dir", "")  # nothing is written


def evaluate_one(weights: dict[str, float]) -> None:
    """What a process of its own does for one candidate."""
    proxy = search_lib.build_proxy(quiet=True)
    seconds = proxy.evaluate(weights)["seconds"]
    print(json.dumps(seconds))


def search(engine: engines.Engine, folder: pathlib.Path, seed: int) -> tuple[float, float]:
    """Wall seconds of a search's candidates, and the part in steps and features."""
    space = gin.get_configurable("SearchSpace")()
    strategy = RandomSearch(space.searched, population=CANDIDATES.value, seed=seed)
    marks = []

    class Clock(search_lib.Watcher):
        def on_start(self, journal):
            marks.append(time.perf_counter())

        def on_end(self, journal):
            marks.append(time.perf_counter())

    journal = run_search(space, strategy, engine, run_dir=folder / str(seed), generations=1,
                         leaders=0, watchers=[Clock()])
    useful = sum(x.seconds["train"] + x.seconds["features"] for x in journal.candidates)
    return marks[1] - marks[0], useful


def fresh_process(weights: dict[str, float]) -> tuple[float, float]:
    """Wall seconds of a process for one candidate, and the part in steps and features."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.search_overhead", f"--data={DATA.value}",
         f"--gin={GIN.value}", f"--one={json.dumps(weights)}"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    seconds = json.loads(done.stdout.splitlines()[-1])
    return time.perf_counter() - started, seconds["train"] + seconds["features"]


def main(argv: list[str]) -> None:
    """Measures."""
    del argv
    configuration.parse([GIN.value], [f"Records.directory = '{DATA.value}'"])
    if ONE.value:
        evaluate_one(json.loads(ONE.value))
        return
    space = gin.get_configurable("SearchSpace")()
    weights = RandomSearch(space.searched, population=ROUNDS.value, seed=99).ask()
    elsewhere = functools.partial(
        search_lib.build_elsewhere, gin.config_str(), (registered.__name__,), 0.0)
    count = CANDIDATES.value
    found: dict[str, list[tuple[float, float]]] = {"a": [], "b": [], "c": []}
    with (tempfile.TemporaryDirectory() as folder,
          engines.LocalProcesses(elsewhere, 1) as one,
          engines.LocalProcesses(elsewhere, 2) as two):
        started = time.perf_counter()
        one.start()
        once = time.perf_counter() - started
        two.start()
        for number in range(ROUNDS.value):
            # A worker of its own, as the search's process is: nothing else is in it.
            wall, useful = search(one, pathlib.Path(folder) / "a", number)
            found["a"].append((wall / count, useful / wall))
            wall, useful = search(two, pathlib.Path(folder) / "b", number)
            found["b"].append((wall / count, useful / wall / 2))
            wall, useful = fresh_process(space.weights(weights[number]))
            found["c"].append((wall, useful / wall))
    print(f"{'':34}  seconds a candidate  steps + features  candidates an hour")
    seconds = {}
    for key, title in (("a", "(a) one process, graph kept"), ("b", "(b) two local workers"),
                       ("c", "(c) one fresh process a candidate")):
        seconds[key] = statistics.median(x for x, _ in found[key])
        share = statistics.median(x for _, x in found[key])
        print(f"{title:34} {seconds[key]:20.2f} {share:17.1%} {3600 / seconds[key]:19.0f}")
    print(f"\n(c) / (a) {seconds['c'] / seconds['a']:.2f}     (a) / (b) "
          f"{seconds['a'] / seconds['b']:.2f}     a worker is ready after {once:.1f} s, once")


if __name__ == "__main__":
    cli.run(main)
