"""Where candidates are evaluated: in this process, in others of this machine, or on a cluster.

A search hands an engine the jobs that may run at the same time, and takes their outcomes as they
come. It alone writes them down, in their own order, so that neither the number nor the kind of the
workers changes what it finds.
"""

import dataclasses
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self


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


class _Closing:
    """Closes an engine at the end of a `with` statement."""

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
        for job in jobs:
            yield Started(job, _worker_name(os.getpid()), attempt=1)
            try:
                outcome = self._evaluator.evaluate(job.weights, job.repeat)
            except Exception as error:  # Whatever a job raises is its outcome; the caller decides.
                outcome = error
            yield Finished(job, outcome)

    def close(self) -> None:
        """Lets the evaluator go."""
        self._evaluator = None


def _worker_name(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}"
