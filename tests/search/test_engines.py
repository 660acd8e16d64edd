import contextlib
import functools
import os
import pathlib
import signal
import socket
import time

import pytest

from elo_tf import parallel, parallel_ray
from elo_tf.errors import UserError
from elo_tf.search import engines
from elo_tf.search.engines import Finished, Job, Started
from tests.search import evaluators

ENGINES = ["in_process", "one", "two", "three", "ray"]
LOCAL_AND_RAY = ["two", "ray"]


@pytest.fixture(scope="module")
def cluster():
    with parallel_ray.cluster(cpus=2):
        yield


@pytest.fixture
def open_engine(request):
    """Gives an engine of a kind, which is closed after the test."""
    with contextlib.ExitStack() as stack:
        def open_(kind, make, **options):
            if kind == "in_process":
                engine = engines.InProcess(make)
            elif kind == "ray":
                request.getfixturevalue("cluster")
                engine = engines.RayActors(make, **options)
            else:
                workers = {"one": 1, "two": 2, "three": 3}[kind]
                engine = engines.LocalProcesses(make, workers, **options)
            return stack.enter_context(engine)
        yield open_


def job(index, *trouble, generation=0, repeat=0):
    return Job(generation, index, repeat, {"a": 0.1 * index, **dict.fromkeys(trouble, 1.0)})


def run(engine, jobs):
    """The outcomes in the order of the jobs, and all events; each job starts before it ends."""
    events, running, outcomes = [], {}, {}
    for event in engine.run(jobs):
        events.append(event)
        place = jobs.index(event.job)
        if isinstance(event, Started):
            assert place not in outcomes
            assert event.attempt == running.get(place, 0) + 1
            running[place] = event.attempt
        else:
            assert place in running
            outcomes[place] = event.outcome
    return [outcomes[place] for place in range(len(jobs))], events


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def made(folder):
    """What was written by evaluators as they were made."""
    return (folder / "made").read_text().split()


@pytest.mark.parametrize("kind", ENGINES)
def test_the_same_outcomes_whatever_the_workers_and_these_stay(open_engine, tmp_path, kind):
    engine = open_engine(kind, evaluators.make(tmp_path))
    assert engine.workers == {"in_process": 1, "one": 1, "two": 2, "three": 3, "ray": 2}[kind]
    engine.start()
    pids = set()
    for generation in range(2):
        jobs = [job(index, generation=generation) for index in range(5)]
        jobs += [job(2, generation=generation, repeat=1), Job(generation, 0, 0, None)]
        outcomes, events = run(engine, jobs)
        assert [x["fitness"] for x in outcomes] == [
            evaluators.fitness(x.weights or {}, x.repeat) for x in jobs]
        workers = {x.job: x.worker for x in events if isinstance(x, Started)}
        assert [workers[x] for x in jobs] == [
            f"{socket.gethostname()}:{x['pid']}" for x in outcomes]
        pids |= {x["pid"] for x in outcomes}
    assert (pids == {os.getpid()}) == (kind == "in_process")
    assert pids <= set(map(int, made(tmp_path)))
    # Once each. Of actors, some may be on the way still.
    assert len(set(made(tmp_path))) == len(made(tmp_path))
    assert len(made(tmp_path)) == engine.workers or kind == "ray"
    assert run(engine, []) == ([], [])


@pytest.mark.parametrize("kind", LOCAL_AND_RAY)
def test_the_next_job_goes_to_the_worker_that_is_free(open_engine, tmp_path, kind):
    engine = open_engine(kind, evaluators.make(tmp_path), time_limit=60)
    jobs = [job(0, "wait"), *map(job, range(1, 5))]
    finished = []
    workers = {}
    for event in engine.run(jobs):
        if isinstance(event, Started):
            workers[event.job.index] = event.worker
            continue
        finished.append(event.job.index)
        assert isinstance(event.outcome, dict)
        if len(finished) == 4:
            (tmp_path / "go").touch()
    assert sorted(finished) == list(range(5)) and finished[-1] == 0
    assert len({workers[index] for index in range(1, 5)} | {workers[0]}) == 2
    assert workers[0] not in {workers[index] for index in range(1, 5)}


@pytest.mark.parametrize("kind", LOCAL_AND_RAY)
def test_a_worker_that_is_killed_costs_nothing_but_time(open_engine, tmp_path, kind):
    engine = open_engine(kind, evaluators.make(tmp_path), retries=1)
    jobs = [job(0, "wait"), job(1), job(2, "die"), job(3, "raise"), job(4)]
    outcomes, attempts, workers = {}, {}, []
    for event in engine.run(jobs):
        index = event.job.index
        if isinstance(event, Finished):
            outcomes[index] = event.outcome
            continue
        attempts[index] = event.attempt
        if index == 0:
            workers.append(event.worker)
            host, pid = event.worker.split(":")
            assert host == socket.gethostname()
            wait_for(tmp_path / f"begun-{pid}")
            if event.attempt == 1:
                os.kill(int(pid), signal.SIGKILL)
            else:
                (tmp_path / "go").touch()
    assert attempts == {0: 2, 1: 1, 2: 2, 3: 1, 4: 1}
    assert len(set(workers)) == 2
    for index in (0, 1, 4):
        assert outcomes[index]["fitness"] == evaluators.fitness(jobs[index].weights, 0)
    assert type(outcomes[2]) is parallel.WorkerDiedError
    assert "memory" in str(outcomes[2]) and len(str(outcomes[2])) <= 400
    assert kind == "ray" or "exit code -9" in str(outcomes[2])
    assert type(outcomes[3]) is FloatingPointError and str(outcomes[3]) == "the loss is nan"


@pytest.mark.parametrize("kind", LOCAL_AND_RAY)
def test_the_time_limit_is_of_a_candidate_and_not_of_building(open_engine, tmp_path, kind):
    engine = open_engine(kind, evaluators.make(tmp_path, seconds=2.5), time_limit=1.5)
    (first, second, third), events = run(engine, [job(0), job(1, "hang"), job(2)])
    assert first["fitness"] == evaluators.fitness({"a": 0.0}, 0)
    assert type(second) is parallel.WorkerHungError and "time limit of 1.5 s" in str(second)
    assert third["fitness"] == evaluators.fitness({"a": 0.2}, 0)
    started = {x.job.index: x for x in events if isinstance(x, Started)}
    assert started[1].attempt == 1
    hung = pathlib.Path("/proc") / started[1].worker.split(":")[1]
    deadline = time.monotonic() + 30
    while hung.exists() and "zombie" not in (hung / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_memory_is_limited_and_a_fresh_process_tries_again(open_engine, tmp_path):
    engine = open_engine("one", evaluators.make(tmp_path), memory=1 << 30, retries=2)
    (first, second, third), events = run(engine, [job(0), job(1, "memory"), job(2)])
    assert isinstance(second, MemoryError)
    assert len({x.worker for x in events if isinstance(x, Started) and x.job.index == 1}) == 3
    assert [first["fitness"], third["fitness"]] == [
        evaluators.fitness({"a": 0.1 * x}, 0) for x in (0, 2)]


@pytest.mark.parametrize("kind", ["in_process", *LOCAL_AND_RAY])
def test_what_is_wrong_with_the_data_ends_everything(open_engine, tmp_path, kind):
    make = functools.partial(evaluators.no_records, tmp_path)
    engine = open_engine(kind, make)
    with pytest.raises(UserError, match="^no records there$"):
        list(engine.run([job(index) for index in range(5)]))
    engine.close()
    with pytest.raises(UserError, match="^no records there$"):
        open_engine(kind, make).start()
    assert set(made(tmp_path)) == {"failed"} and len(made(tmp_path)) <= 2 * engine.workers


@pytest.mark.parametrize("kind", ["one", "ray"])
def test_workers_that_die_as_they_are_built_end_everything(open_engine, tmp_path, kind):
    engine = open_engine(kind, functools.partial(evaluators.die, tmp_path), retries=1)
    with pytest.raises(parallel.WorkerDiedError, match="memory"):
        list(engine.run([job(0), job(1)]))
    assert set(made(tmp_path)) == {"died"}
    assert 2 <= len(made(tmp_path)) <= (2 if kind == "one" else 4)


def test_each_process_sees_a_gpu_in_turn(open_engine, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    engine = open_engine("three", evaluators.make(tmp_path), gpus=("5", "7"))
    started, gpus = 0, []
    for event in engine.run([job(index, "wait") for index in range(3)]):
        if isinstance(event, Finished):
            gpus.append(event.outcome["gpu"])
        elif (started := started + 1) == 3:
            (tmp_path / "go").touch()
    assert sorted(gpus) == ["5", "5", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    [outcome], _ = run(open_engine("one", evaluators.make(tmp_path)), [job(0)])
    assert outcome["gpu"] == "3"


def test_an_actor_has_the_token_and_a_cluster_without_gpus_is_refused(open_engine, tmp_path):
    engine = open_engine("ray", evaluators.make(tmp_path), workers=1)
    assert engine.workers == 1
    [outcome], _ = run(engine, [job(0)])
    assert outcome["token"] == os.environ["RAY_AUTH_TOKEN"]
    with pytest.raises(UserError, match=r"none of the 1 machine.* 1 core.* 1 GPU"):
        open_engine("ray", evaluators.make(tmp_path), gpus=1)
