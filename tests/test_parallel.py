import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import gin
import pytest

from elo_tf import parallel, parallel_worker
from elo_tf.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent


def work(job):
    """Squares numbers; words make trouble."""
    if job == "raise":
        raise KeyError("raised")
    if job == "network":
        raise ConnectionResetError("by peer")
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "hang":
        time.sleep(600)
    if job == "odd":
        raise OddError(1, 2)
    if job == "unpicklable":
        return lambda: None
    if job == "slow":
        time.sleep(0.5)
        return "slow"
    return job * job


class OddError(Exception):
    """Pickles, but cannot be made again from its arguments."""

    def __init__(self, a, b):
        super().__init__("one")


def count(job):
    """Yields (name, 0), (name, 1) ...; the steps say what happens before each."""
    name, *steps = job
    for index, step in enumerate(steps):
        if isinstance(step, float):
            time.sleep(step)
        elif step == "raise":
            raise KeyError(name)
        elif step == "memory":
            bytearray(1 << 40)
        elif isinstance(step, pathlib.Path) and not step.exists():
            step.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield name, index


def write_down(job):
    """Yields a hundred items of a quarter of a megabyte, and writes how many it made."""
    for index in range(100):
        if job:
            pathlib.Path(job).write_text(str(index + 1))
        else:
            time.sleep(0.04)
        yield bytes(1 << 18)


def forever(path):
    """Writes its process number and hangs."""
    pathlib.Path(path).write_text(str(os.getpid()))
    time.sleep(600)
    yield


def is_running(process):
    """Whether the process, a folder of /proc, is there and not a zombie."""
    try:
        return "zombie" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def streamed(lanes, workers, **options):
    """The items by lane, checked to come in order; exceptions by their type."""
    found = [[] for _ in lanes]
    ends = [0] * len(lanes)
    for lane, index, item, last in parallel.stream_jobs(count, lanes, workers, **options):
        assert index == ends[lane]
        ends[lane] += last
        if not last:
            found[lane].append(item)
        elif item is not None:
            found[lane].append(type(item))
    assert ends == [len(lane) for lane in lanes]
    return found


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_in_the_order_of_the_jobs(workers):
    assert list(parallel.map_jobs(work, range(20), workers)) == [(i, i * i) for i in range(20)]


def test_results_in_the_order_of_completion():
    results = list(parallel.map_jobs(work, ["slow", 2, 3], 2, ordered=False))
    assert sorted(results, key=lambda pair: pair[0]) == [(0, "slow"), (1, 4), (2, 9)]
    assert results[-1] == (0, "slow")


def test_trouble_costs_one_job():
    jobs = [1, "raise", 2, "die", 3, "odd", 4, "hang", 5, "network", "unpicklable"]
    results = dict(parallel.map_jobs(work, jobs, 2, timeout=4))
    assert [results[i] for i in (0, 2, 4, 6, 8)] == [1, 4, 9, 16, 25]
    assert isinstance(results[1], KeyError)
    assert type(results[3]) is parallel.WorkerDiedError
    assert "-9" in str(results[3])
    assert "OddError" in str(results[5])
    assert isinstance(results[7], parallel.WorkerHungError)
    assert "4 s" in str(results[7])
    assert isinstance(results[9], ConnectionResetError)
    assert "lambda" in str(results[10])


def test_jobs_are_drawn_as_they_are_needed():
    drawn = []

    def jobs():
        for i in range(1000):
            drawn.append(i)
            yield "slow" if i == 0 else i

    results = parallel.map_jobs(work, jobs(), 2)
    next(results)
    assert len(drawn) <= 9
    results.close()
    assert list(parallel.map_jobs(work, [], 2)) == []


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_items_keep_their_order_within_each_lane(workers):
    lanes = [[("a", 0.1, 0.0, 0.1), ("b",), ("c", 0.0, "raise"), ("d", 0.0)],
             [], [("e", 0.0, 0.2), ("f", 0.0)]]
    assert streamed(lanes, workers) == [
        [("a", 0), ("a", 1), ("a", 2), ("c", 0), KeyError, ("d", 0)], [],
        [("e", 0), ("e", 1), ("f", 0)]]


def test_a_killed_process_changes_nothing_the_first_time(tmp_path):
    lanes = [[("a", 0.0, 0.0, tmp_path / "once", 0.0), ("b", 0.0)], [("c", 0.0)]]
    assert streamed(lanes, 2) == [[("a", i) for i in range(4)] + [("b", 0)], [("c", 0)]]
    assert (tmp_path / "once").exists()
    lanes = [[("a", 0.0, tmp_path / "again", 0.0), ("b", 0.0)]]
    assert streamed(lanes, 1, retries=0) == [[("a", 0), parallel.WorkerDiedError, ("b", 0)]]


def test_the_time_limit_is_one_without_progress():
    lanes = [[("a", *[0.5] * 7), ("b", 0.0, 9.0, 0.0), ("c", 0.0)]]
    assert streamed(lanes, 1, timeout=3) == [
        [*(("a", i) for i in range(7)), ("b", 0), parallel.WorkerHungError, ("c", 0)]]


def test_memory_is_limited():
    lanes = [[("a", 0.0, "memory"), ("b", 0.0)]]
    assert streamed(lanes, 1, memory=1 << 30) == [[("a", 0), MemoryError, ("b", 0)]]


def test_a_job_ahead_stands_still_where_its_results_would_fill_the_memory(tmp_path):
    path = tmp_path / "made"
    lanes = [["", str(path)]]
    most = items = 0
    for lane, index, item, last in parallel.stream_jobs(
            write_down, lanes, 2, timeout=3, ahead_bytes=4 << 20):
        assert lane == 0 and (item is None) == last
        items += not last
        if index == 0 and path.exists():
            most = int(path.read_text() or 0)
    # Sixteen make four megabytes; a few more fit into the pipe. It stood still for longer than the
    # time limit, and goes on.
    assert 16 <= most <= 24
    assert items == 200


def test_processes_end_with_their_parent_even_if_they_hang(tmp_path):
    program = (f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
               "from elo_tf import parallel\nimport test_parallel\n"
               f"list(parallel.stream_jobs(test_parallel.forever, [[{str(tmp_path / 'pid')!r}]],"
               " 1))")
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    child = pathlib.Path("/proc") / (tmp_path / "pid").read_text()
    assert child.exists()
    parent.kill()
    parent.wait()
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Unloadable:
    """Pickles, and imports what is not there where it is made again."""

    def __reduce__(self):
        return __import__, ("elo_tf.absent",)


def test_a_function_that_a_process_cannot_import_is_told():
    assert [type(x) for _, x in parallel.map_jobs(Unloadable(), [1, 2], 1)] == [
        ModuleNotFoundError] * 2


class Counter:
    """Yields (process number, how often it was called, a variable), after its first call a rest."""

    def __init__(self, rest=0.0):
        self.calls = 0
        self.rest = rest

    def __call__(self, job):
        self.calls += 1
        if self.calls == 1:
            time.sleep(self.rest)
        yield os.getpid(), self.calls, os.environ.get("ELO_TF_TEST")
        if job == "hang":
            time.sleep(600)


def test_processes_outlive_a_stream_and_are_replaced_when_they_die_idle():
    environments = [{"ELO_TF_TEST": "first"}, {"ELO_TF_TEST": "second"}]
    with parallel.Processes(Counter(), 2, environments=environments, retries=0) as processes:
        def run(jobs):
            events = list(processes.stream([job] for job in jobs))
            begun = {x.lane: x for x in events if isinstance(x, parallel.Begun)}
            items = {x.lane: x.item for x in events
                     if isinstance(x, parallel.Message) and not x.last}
            ends = [x.item for x in events if isinstance(x, parallel.Message) and x.last]
            assert ends == [None] * len(jobs)
            assert {x: y.worker for x, y in begun.items()} == {x: y[0] for x, y in items.items()}
            assert {x.attempt for x in begun.values()} == {1}
            return items

        first, second = run([1, 2]).values()
        assert first[0] != second[0]
        assert sorted([first[1:], second[1:]]) == [(1, "first"), (1, "second")]
        again = run([3])
        assert again == {0: (again[0][0], 2, again[0][2])}
        assert again[0][0] in (first[0], second[0])
        # Even without retries: no job was lost with it.
        for pid in (first[0], second[0]):
            os.kill(pid, signal.SIGKILL)
            while is_running(pathlib.Path("/proc") / str(pid)):
                time.sleep(0.01)
        third, fourth = run([4, 5]).values()
        assert not {first[0], second[0]} & {third[0], fourth[0]}
        assert sorted([third[1:], fourth[1:]]) == [(1, "first"), (1, "second")]

        # A stream that is left early does not haunt the next one.
        stream = processes.stream([["hang"], [6]])
        hanging = next(stream).worker
        with pytest.raises(ValueError, match="busy"):
            next(processes.stream([[7]]))
        stream.close()
        assert not (pathlib.Path("/proc") / str(hanging)).exists()
        assert [x[1] for x in run([8, 9]).values()] != []
    for pid in (third[0], fourth[0]):
        assert not (pathlib.Path("/proc") / str(pid)).exists()


def test_a_process_may_take_longer_to_its_first_result():
    with parallel.Processes(Counter(rest=2.5), 1, timeout=1, retries=0,
                            first_timeout=float("inf")) as processes:
        ends = [x.item for x in processes.stream([[1, "hang", 2]])
                if isinstance(x, parallel.Message) and x.last]
    assert [type(x) for x in ends] == [type(None), parallel.WorkerHungError, type(None)]
    assert "1 s" in str(ends[1])


def test_errors_that_passed_through_gin_keep_their_class():
    @gin.configurable
    def configured(error):
        raise error

    def sent(error):
        try:
            configured(error)
        except Exception as changed:
            with pytest.raises(pickle.PicklingError):
                pickle.dumps(changed)
            return pickle.loads(pickle.dumps(parallel_worker.picklable(changed)))

    error = sent(UserError("one line"))
    assert type(error) is UserError and error.message == "one line"
    error = sent(KeyError("absent"))
    assert type(error) is KeyError and "absent" in str(error)
    assert type(sent(OddError(1, 2))) is RuntimeError
