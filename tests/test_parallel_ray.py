import functools
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from elo_tf import parallel, parallel_ray
from elo_tf.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two cores on this machine, whose processes are gone afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # Another one, that is not asked for.
        with parallel_ray.cluster(cpus=2):
            yield
    deadline = time.monotonic() + 30
    while ray_processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not ray_processes()


def work(job):
    """Squares numbers; other jobs make trouble."""
    if isinstance(job, pathlib.Path):
        if not job.exists():
            job.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "second time"
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "raise":
        raise UserError("in one line")
    if job == "odd":
        raise OddError(1, 2)
    return job * job, os.getpid()


class OddError(Exception):
    """Pickles, but cannot be made again from its arguments."""

    def __init__(self, a, b):
        super().__init__("one")


def ray_processes():
    """Processes that descend from this one and belong to Ray."""
    parents, names = {}, {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            names[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        if words[0] != "Z":
            parents[int(folder.name)] = int(words[1])
    found = []
    for pid in parents:
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        if above == os.getpid() and b"ray" in names[pid] and pid != os.getpid():
            found.append(pid)
    return found


def listening():
    """Addresses at which Ray's processes listen, as the kernel writes them."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                sockets[f"socket:[{fields[9]}]"] = fields[1].partition(":")[0]
    found = set()
    for pid in ray_processes():
        for descriptor in pathlib.Path(f"/proc/{pid}/fd").glob("*"):
            try:
                found.add(sockets.get(os.readlink(descriptor)))
            except OSError:
                continue
    return found - {None}


def test_results_and_errors_by_index_and_other_processes(cluster):
    results = dict(parallel_ray.run_tasks(work, [3, "raise", 4, "odd"]))
    assert sorted(results) == [0, 1, 2, 3]
    assert (results[0][0], results[2][0]) == (9, 16)
    assert results[0][1] != os.getpid()
    assert isinstance(results[1], UserError) and results[1].message == "in one line"
    assert "OddError" in str(results[3])


def test_a_task_whose_process_is_killed_runs_again(cluster, tmp_path):
    results = dict(parallel_ray.run_tasks(work, [tmp_path / "once", "die", 5], retries=1))
    assert results[0] == "second time"
    assert isinstance(results[1], parallel.WorkerDiedError)
    assert results[2][0] == 25


def make_worker(path):
    """Makes `work`, and where there was no such file yet, ends the process instead."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work


def test_actors_stay_and_are_replaced_when_they_die(cluster, tmp_path):
    make = functools.partial(make_worker, tmp_path / "built")
    with parallel_ray.Actors(make, most=1, retries=1) as actors:
        assert actors.size == 1
        jobs = [2, "raise", tmp_path / "once", "odd", "die", 3]
        events = list(actors.stream(jobs))
        attempts = [(x.lane, x.attempt) for x in events if isinstance(x, parallel.Begun)]
        assert attempts == [(0, 1), (1, 1), (2, 1), (2, 2), (3, 1), (4, 1), (4, 2), (5, 1)]
        items = {x.lane: x.item for x in events if isinstance(x, parallel.Message) and not x.last}
        ends = [x for x in events if isinstance(x, parallel.Message) and x.last]
        assert [x.lane for x in ends] == list(range(6))
        assert (items[0][0], items[2], items[5][0]) == (4, "second time", 9)
        assert [type(x.item) for x in ends] == [
            type(None), UserError, type(None), RuntimeError, parallel.WorkerDiedError, type(None)]
        [begun] = (x for x in actors.stream([4]) if isinstance(x, parallel.Begun))
        assert begun.worker.endswith(f":{items[5][1]}")


def test_nobody_else_can_reach_the_cluster(cluster):
    # 127.0.0.1, ::1, and 127.0.0.1 in IPv6's notation.
    own = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    with parallel_ray.Actors(functools.partial(make_worker, pathlib.Path("/")), most=1) as actors:
        _, result, _ = actors.stream([1])
        assert result.item[1] in ray_processes()
        found = listening()
    assert found and found <= own
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def test_a_cluster_that_is_not_there_is_told_in_one_line():
    program = ("from elo_tf import parallel_ray\nfrom elo_tf.errors import UserError\n"
               "try:\n    parallel_ray.cluster('127.0.0.1:1').__enter__()\n"
               "except UserError as error:\n    print(error)\n")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=True)
    assert done.stdout.startswith("no Ray cluster at 127.0.0.1:1: ")
    assert len(done.stdout.splitlines()) == 1
