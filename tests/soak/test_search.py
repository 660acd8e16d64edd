"""A search whose driver and workers are killed again and again, run out of memory, and hang."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from elo_tf.search.journal import read_journal
from elo_tf.search.loop import JOURNAL

pytestmark = pytest.mark.soak

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "tests" / "search" / "numpy_search.py"


def start(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, str(SCRIPT), *map(str, arguments)], cwd=ROOT,
                            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The product of an undisturbed search."""
    run_dir = tmp_path_factory.mktemp("calm")
    assert start(run_dir).wait(120) == 0
    return (run_dir / "best_loss.gin").read_bytes()


def in_a_candidate(path: pathlib.Path) -> list[str]:
    """Workers of candidates that were begun and have not ended."""
    journal = read_journal(path)
    return [x["worker"] for x in journal.started if x["generation"] >= 0
            and journal.find(x["generation"], x["index"], x["repeat"]) is None]


def test_the_driver_killed_twenty_times_inside_a_candidate(tmp_path, calm):
    generator = np.random.Generator(np.random.PCG64(7))
    journal = tmp_path / JOURNAL
    kills = inside = 0
    while kills < 20:
        workers = ("0", "2", "3")[kills % 3]
        process = start(tmp_path, workers)
        before = len(read_journal(journal).candidates)
        deadline = time.monotonic() + 60
        while len(read_journal(journal).candidates) < before + 1:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        inside += bool(in_a_candidate(journal))
        assert not (tmp_path / "best_loss.gin").exists()
    print(f"{kills} kills of the driver, {inside} inside a candidate")
    assert inside >= 10
    assert start(tmp_path, "2").wait(120) == 0
    assert (tmp_path / "best_loss.gin").read_bytes() == calm


@pytest.mark.parametrize("fault", ["kill", "memory"])
def test_twenty_workers_are_lost_and_no_candidate(tmp_path, calm, fault):
    assert start(tmp_path, "2", "cma_es", f"{fault}:20").wait(300) == 0
    faults = len(list(tmp_path.glob("fault-*")))
    retried = sum(x["attempt"] > 1 for x in read_journal(tmp_path / JOURNAL).started)
    print(f"{fault}: {faults} faults, {retried} candidates begun again")
    assert faults == retried == 20
    assert (tmp_path / "best_loss.gin").read_bytes() == calm


def test_twenty_candidates_that_hang_are_given_up(tmp_path):
    assert start(tmp_path, "2", "cma_es", "hang:20").wait(300) == 0
    journal = read_journal(tmp_path / JOURNAL)
    hung = [x for x in (*journal.candidates, *journal.repeats) if "2 s" in x.status]
    print(f"{len(hung)} candidates that hung")
    assert len(hung) == 20 and journal.end is not None
