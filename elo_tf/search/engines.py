"""Where candidates are evaluated: in this process, in others of this machine, or on a cluster.

A search hands an engine the jobs that may run at the same time, and takes their outcomes as they
come. It alone writes them down, in their own order, so that neither the number nor the kind of the
workers changes what it finds.
"""

import contextlib
import dataclasses
import functools
import os
import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

from elo_tf import parallel


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker is to evaluate.

    Attributes:
      generation: of the strategy.
      index: in the generation.
      repeat: 0, or the number of a repetition with other seeds.
      weights: by loss name; None for the network as it is before any training.
    """

    generation: int
    index: int
    repeat: int = 0
    weights: Mapping[str, float] | None = dataclasses.field(default=None, hash=False)


@dataclasses.dataclass(frozen=True)
class Started:
    """A worker has begun a job.

    Attributes:
      job: the job.
      worker: "host:process number".
      attempt: 1, 2, ...; more than 1 where the job's worker died and another one took it over.
    """

    job: Job
    worker: str
    attempt: int


@dataclasses.dataclass(frozen=True)
class Finished:
    """A job has ended.

    Attributes:
      job: the job.
      outcome: what the evaluator returned, or the exception it raised; `WorkerDiedError` if its
        workers died again and again, `WorkerHungError` if it took longer than a job may.
    """

    job: Job
    outcome: dict[str, Any] | Exception


class Evaluator(Protocol):
    """Trains a proxy and measures it."""

    def evaluate(self, weights: Mapping[str, float] | None, repeat: int) -> dict[str, Any]:
        """A candidate's results by name, which must pickle; raises if it cannot be evaluated."""


class Engine(Protocol):
    """Workers, each with one evaluator, that live until the engine is closed.

    Attributes:
      workers: so many jobs run at the same time.
    """

    workers: int

    def start(self) -> None:
        """Builds the evaluators, so that what is wrong with the data shows before a search begins.

        Not required: `run` builds what is not built yet.

        Raises:
          Exception: what building an evaluator raised.
        """

    def run(self, jobs: Sequence[Job]) -> Iterator[Started | Finished]:
        """Runs jobs, each on the first worker that is free, in the order given.

        Yields:
          That a job has begun, as soon as it has, and again for each new attempt; and its outcome
          as soon as it is there. Leaving off early ends what still runs.

        Raises:
          Exception: what building an evaluator raised.
        """

    def close(self) -> None:
        """Ends the workers."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: Any) -> None: ...


class _Closing:
    """Closes an engine at the end of a `with` statement."""

    def close(self) -> None:
        """Ends the workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class InProcess(_Closing):
    """Evaluates one job after the other here."""

    workers = 1

    def __init__(self, make: Callable[[], Evaluator]):
        """Nothing is built yet.

        Args:
          make: builds the evaluator, which serves all jobs; called once.
        """
        self._make = make
        self._evaluator: Evaluator | None = None

    def start(self) -> None:
        """Builds the evaluator, see `Engine`."""
        if self._evaluator is None:
            self._evaluator = self._make()

    def run(self, jobs: Sequence[Job]) -> Iterator[Started | Finished]:
        """Runs the jobs, see `Engine`."""
        self.start()
        assert self._evaluator is not None
        for job in jobs:
            yield Started(job, _worker_name(os.getpid()), attempt=1)
            outcome: dict[str, Any] | Exception
            try:
                outcome = self._evaluator.evaluate(job.weights, job.repeat)
            except Exception as error:  # Whatever a job raises is its outcome; the caller decides.
                outcome = error
            yield Finished(job, outcome)

    def close(self) -> None:
        """Lets the evaluator go."""
        self._evaluator = None


class LocalProcesses(_Closing):
    """Evaluates in processes of this machine, each with an evaluator of its own."""

    def __init__(self, make: Callable[[], Evaluator], workers: int, *,
                 time_limit: float | None = None, memory: int | None = None,
                 gpus: Sequence[str] = (), retries: int = 3):
        """Starts nothing yet.

        Args:
          make: a module-level function, or a `functools.partial` of one, that builds an evaluator;
            called once in each process. Processes are spawned: they have nothing of this one's
            state, such as what gin knows.
          workers: number of processes.
          time_limit: seconds for a candidate, beside building the evaluator; None or 0 for no
            limit.
          memory: bytes that each process may take for its evaluator and candidates, beside the
            libraries that it imports first; None or 0 for no limit.
          gpus: names of this machine's, as in CUDA_VISIBLE_DEVICES. Each process is given one, in
            turn; () leaves them what this process sees.
          retries: how often a job is begun anew whose process died or ran out of memory. One that
            took too long is not.
        """
        self.workers = workers
        self._processes = parallel.Processes(
            _Evaluation(make), workers, timeout=time_limit, first_timeout=float("inf"),
            memory=memory, retries=retries,
            environments=[{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus] or [{}])

    def start(self) -> None:
        """Builds all evaluators, see `Engine`."""
        for _ in self._messages([None] * self.workers):
            pass

    def run(self, jobs: Sequence[Job]) -> Iterator[Started | Finished]:
        """Runs the jobs, see `Engine`."""
        return _events(jobs, self._messages(jobs))

    def close(self) -> None:
        """Ends the processes."""
        self._processes.close()

    def _messages(self, jobs: Sequence[Job | None]) -> Generator[parallel.Message | parallel.Begun]:
        built: set[int] = set()
        with contextlib.closing(self._processes.stream([job] for job in jobs)) as messages:
            for message in messages:
                if isinstance(message, parallel.Begun):
                    yield message._replace(worker=_worker_name(message.worker))
                elif message.item == _BUILT:
                    built.add(message.lane)
                elif message.last and message.lane not in built:
                    raise message.item  # No other job would fare better.
                else:
                    yield message


class RayActors(_Closing):
    """Evaluates in actors of a Ray cluster, each with an evaluator of its own.

    An actor keeps its GPUs, or its share of a machine's cores, until the engine is closed.
    """

    def __init__(self, make: Callable[[], Evaluator], address: str | None = None, *,
                 gpus: int = 0, cpus: int = 1, workers: int | None = None,
                 time_limit: float | None = None, retries: int = 3):
        """Connects to the cluster; starts no actor yet.

        Args:
          make: see `LocalProcesses`; it and the files that it names have to be at the same paths
            on all machines.
          address: of a running cluster; None starts Ray on this machine alone, see
            `parallel_ray.cluster`.
          gpus: for each candidate.
          cpus: cores for each candidate.
          workers: most candidates at the same time; None for as many as there is room for.
          time_limit: see `LocalProcesses`.
          retries: see `LocalProcesses`.

        Raises:
          UserError: Ray is not installed, there is no cluster at the address, or it has no room.
        """
        from elo_tf import parallel_ray

        with contextlib.ExitStack() as stack:
            stack.enter_context(parallel_ray.cluster(address, workers and workers * cpus))
            self._actors = stack.enter_context(parallel_ray.Actors(
                functools.partial(_make_function, make), cpus=cpus, gpus=gpus, most=workers,
                timeout=time_limit, retries=retries))
            self._stack = stack.pop_all()
        self.workers = self._actors.size

    def start(self) -> None:
        """Builds one evaluator, see `Engine`; the others are built meanwhile."""
        self._actors.start()

    def run(self, jobs: Sequence[Job]) -> Iterator[Started | Finished]:
        """Runs the jobs, see `Engine`."""
        return _events(jobs, self._actors.stream(jobs))

    def close(self) -> None:
        """Ends the actors, and Ray if it was started here."""
        self._stack.close()


_BUILT = "the evaluator is built"


class _Evaluation:
    """What a process does for a job; it is sent there once, and stays."""

    def __init__(self, make: Callable[[], Evaluator]):
        self._make = make
        self._evaluator: Evaluator | None = None

    def __call__(self, job: Job | None) -> Iterator[str | dict[str, Any]]:
        """Yields `_BUILT`, and then the outcome if there is a job."""
        if self._evaluator is None:
            self._evaluator = self._make()
        yield _BUILT
        if job is not None:
            yield self._evaluator.evaluate(job.weights, job.repeat)


def _make_function(make: Callable[[], Evaluator]) -> Callable[[Job], dict[str, Any]]:
    evaluator = make()
    return lambda job: evaluator.evaluate(job.weights, job.repeat)


def _events(jobs: Sequence[Job], messages: Generator[parallel.Message | parallel.Begun]
            ) -> Iterator[Started | Finished]:
    """What workers say of jobs, each a lane of its own, as a search takes it."""
    outcomes: dict[int, dict[str, Any]] = {}
    with contextlib.closing(messages):
        for message in messages:
            job = jobs[message.lane]
            if isinstance(message, parallel.Begun):
                yield Started(job, str(message.worker), message.attempt)
            elif not message.last:
                outcomes[message.lane] = message.item
            elif message.item is None:
                yield Finished(job, outcomes.pop(message.lane))
            else:
                yield Finished(job, message.item)


def _worker_name(pid: int | str) -> str:
    return f"{socket.gethostname()}:{pid}"
