import os
import signal
import time

import pytest

from elo_tf import parallel


def work(job):
    """Squares numbers; words make trouble."""
    if job == "raise":
        raise KeyError("raised")
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "hang":
        time.sleep(600)
    if job == "odd":
        raise OddError(1, 2)
    if job == "slow":
        time.sleep(0.5)
        return "slow"
    return job * job


class OddError(Exception):
    """Pickles, but cannot be made again from its arguments."""

    def __init__(self, a, b):
        super().__init__("one")


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_in_the_order_of_the_jobs(workers):
    assert list(parallel.map_jobs(work, range(20), workers)) == [(i, i * i) for i in range(20)]


def test_results_in_the_order_of_completion():
    results = list(parallel.map_jobs(work, ["slow", 2, 3], 2, ordered=False))
    assert sorted(results, key=lambda pair: pair[0]) == [(0, "slow"), (1, 4), (2, 9)]
    assert results[-1] == (0, "slow")


def test_trouble_costs_one_job():
    jobs = [1, "raise", 2, "die", 3, "odd", 4, "hang", 5]
    results = dict(parallel.map_jobs(work, jobs, 2, timeout=4))
    assert [results[i] for i in (0, 2, 4, 6, 8)] == [1, 4, 9, 16, 25]
    assert isinstance(results[1], KeyError)
    assert isinstance(results[3], parallel.WorkerDiedError)
    assert "-9" in str(results[3])
    assert "OddError" in str(results[5])
    assert isinstance(results[7], parallel.WorkerDiedError)
    assert "4 s" in str(results[7])


def test_jobs_are_drawn_as_they_are_needed():
    drawn = []

    def jobs():
        for i in range(1000):
            drawn.append(i)
            yield "slow" if i == 0 else i

    results = parallel.map_jobs(work, jobs(), 2, window=6)
    next(results)
    assert len(drawn) <= 8
    results.close()
    assert list(parallel.map_jobs(work, [], 2)) == []
