"""A whole search with a NumPy function in place of training: run by the test of resumption."""

import sys
import time

import numpy as np

from elo_tf.search.best_loss import write_best_loss
from elo_tf.search.journal import read_journal
from elo_tf.search.loop import JOURNAL, CandidateError, run_search
from elo_tf.search.strategies import CMAES

NAMES = [f"task{i}" for i in range(8)]


def evaluate(weights):
    """A shifted sphere with a region where candidates fail, and a little time spent."""
    time.sleep(0.01)
    vector = np.array(list(weights.values()))
    if vector[0] > 0.9:
        raise CandidateError("diverged")
    distance = np.sum((vector - np.linspace(0, 1, len(vector))) ** 2)
    return {
        "fitness": float("nan") if vector[1] > 0.95 else float(distance), "status": "ok",
        "losses": weights, "histogram": [0.75, 0.25], "spread": 1.0, "effective_rank": 2.0,
        "seconds": {"train": 0.01}}


def main(run_dir):
    np.random.seed(time.time_ns() % 2**32)
    best = run_search(
        NAMES, CMAES(len(NAMES), 6, seed=3), evaluate, run_dir=run_dir, generations=12,
        header={"config": "0123", "commit": "abc"})
    write_best_loss(
        f"{run_dir}/best_loss.gin", best, read_journal(f"{run_dir}/{JOURNAL}").header,
        dead_zone=0.02)


if __name__ == "__main__":
    main(sys.argv[1])
