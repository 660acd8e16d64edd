"""A whole search with a NumPy function in place of training: run by the tests of resumption.

    python numpy_search.py run_dir [workers [strategy [fault]]]

With a fault, every third evaluation goes wrong, as often as it says: "kill:3", its worker is
killed; "memory:3", and it takes more than it may; "hang:3", and it never ends.
"""

import os
import pathlib
import signal
import sys
import time

import numpy as np

from elo_tf.search import engines
from elo_tf.search.best_loss import write_best_loss
from elo_tf.search.errors import CandidateError
from elo_tf.search.loop import run_search
from elo_tf.search.strategies import CMAES, Grid, RandomSearch, Tournament

NAMES = [f"task{i}" for i in range(8)]
STRATEGIES = {"cma_es": lambda: CMAES(NAMES, 6, seed=3),
              "restarts": lambda: CMAES(NAMES, 5, seed=3, sigma0=0.05, tolfun=0.2, restarts=2),
              "noise": lambda: CMAES(NAMES, 6, seed=3, reevaluations=2),
              "tournament": lambda: Tournament(NAMES, 6, seed=3),
              "random": lambda: RandomSearch(NAMES, 6, seed=3),
              "grid": lambda: Grid(NAMES, groups=(("task[01]",), ("task[2345]",)), population=6,
                                   seed=3)}
MEMORY = 400 << 20


class Space:
    """Eight weights, which are the vector."""

    names = searched = NAMES

    def weights(self, vector):
        return dict(zip(NAMES, map(float, vector), strict=True))


class Evaluator:
    """A shifted sphere with regions where candidates fail, and a little time spent."""

    def __init__(self, run_dir, fault=""):
        self._run_dir = pathlib.Path(run_dir)
        self._fault, _, self._times = fault.partition(":")

    def evaluate(self, weights, repeat):
        facts = {"facts": {"steps": 1, "batch_size": 1, "gpus": 0}, "seconds": {"step": 0.01}}
        if weights is None:
            return {"status": "ok", "zipf": 9.0 + repeat, **facts}
        self._misbehave()
        time.sleep(0.01)
        vector = np.array(list(weights.values()))
        if vector[0] > 0.9:
            raise CandidateError("diverged")
        noise = np.random.Generator(np.random.PCG64(repeat)).normal(0, 0.05) if repeat else 0
        distance = float(np.sum((vector - np.linspace(0, 1, len(vector))) ** 2)) + noise
        return {
            "fitness": float("nan") if vector[1] > 0.95 else distance, "status": "ok",
            "zipf": distance, "losses": weights, "histogram": [0.75, 0.25], "spread": 1.0,
            "effective_rank": 2.0, "seconds": {"train": 0.01}, "worker": f"here:{os.getpid()}"}

    def _misbehave(self):
        """Whoever makes the file of a fault first has it."""
        if not self._fault:
            return
        with open(self._run_dir / "evaluations", "ab") as file:
            file.write(b".")
            number, rest = divmod(file.tell(), 3)
        if rest or not 0 < number <= int(self._times):
            return
        try:
            os.close(os.open(self._run_dir / f"fault-{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        if self._fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._fault == "memory":
            held = [np.ones(MEMORY // 8) for _ in range(4)]
            raise AssertionError(f"{len(held)} times the limit was given")
        elif self._fault == "hang":
            time.sleep(600)


class Make:
    """Makes the evaluator, in whatever process."""

    def __init__(self, *arguments):
        self._arguments = arguments

    def __call__(self):
        return Evaluator(*self._arguments)


def main(run_dir, workers="0", strategy="cma_es", fault=""):
    np.random.seed(time.time_ns() % 2**32)
    os.makedirs(run_dir, exist_ok=True)
    make = Make(run_dir, fault)
    engine = (engines.InProcess(make) if workers == "0" else
              engines.LocalProcesses(
                  make, int(workers), memory=MEMORY if fault else 0,
                  # On a busy machine, what is only slow must not be over it.
                  time_limit=2 if fault.startswith("hang") else 0))
    with engine:
        journal = run_search(
            Space(), STRATEGIES[strategy](), engine, run_dir=run_dir, generations=12, leaders=3,
            repeats=2, header={"config": "0123", "commit": "abc"})
    write_best_loss(f"{run_dir}/best_loss.gin", journal, dead_zone=0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
