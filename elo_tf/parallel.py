"""Runs jobs here or in local processes: one interface for conversion and search.

A job may give many results, which arrive while it goes on. Jobs stand in lanes: the results of a
lane arrive in the order of its jobs, those of different lanes as they come. A job that raises, or
whose process dies or hangs, costs that job alone: the process is replaced and the rest goes on.
"""

import collections
import dataclasses
import functools
import multiprocessing.connection
import pickle
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from elo_tf import parallel_worker
from elo_tf.parallel_worker import END, ERROR, ITEM, OUT_OF_MEMORY, REPEATED

_AHEAD = 4
"""So many jobs of a lane, for each worker, may be begun before the results of the first are out."""


class WorkerDiedError(Exception):
    """The process that ran a job ended, or was ended for taking too long, before the job did."""


class WorkerHungError(WorkerDiedError):
    """The process that ran a job was ended, since nothing came from it for too long."""


class Message(NamedTuple):
    """One result of a job, or its end.

    Attributes:
      lane: number of the job's lane.
      index: of the job in its lane.
      item: what the job yielded; in its last message its exception, or None if it ended well.
      last: whether this is the job's end.
    """

    lane: int
    index: int  # type: ignore[assignment]  # tuple has a method of this name
    item: Any
    last: bool


class Begun(NamedTuple):
    """A worker was given a job.

    Attributes:
      lane: number of the job's lane.
      index: of the job in its lane.
      attempt: 1, 2, ...; more than 1 where a worker of the job died.
      worker: the number of the process; of one that may be on another machine, "host:number".
    """

    lane: int
    index: int  # type: ignore[assignment]
    attempt: int
    worker: int | str


def stream_jobs(function: Callable[[Any], Iterable[Any]], lanes: Iterable[Iterable[Any]],
                workers: int, *, timeout: float | None = None, memory: int | None = None,
                ahead_bytes: int = 128 << 20, retries: int = 1) -> Generator[Message]:
    """Runs jobs that give many results each, and yields these as they come.

    Within a lane, jobs are begun in order and their messages come in order; one job's results are
    out before the next one's. A worker is given the next job of a lane where none is at work, then
    of a new lane, and only then a job behind one that is at work, whose results have to wait here.
    Where these exceed `ahead_bytes`, such workers are not read from until it is their turn, and
    stand still: the memory is bounded, whatever a job yields.

    Args:
      function: a module-level function of one job, that gives an iterable. It gives the same items
        when it is run again.
      lanes: the lanes' jobs. All is drawn as it is needed; jobs and items must pickle.
      workers: number of processes; 0 runs everything in this one, lane after lane.
      timeout: seconds without a result after which a job's process is ended; None for no limit.
        Time that the process stands still does not count. Only for workers.
      memory: bytes that each process may take for its jobs; beyond them these end with
        `MemoryError`, or, where a library does not expect it, with the process. Only for workers.
      ahead_bytes: results that may wait here, in bytes.
      retries: how often a job whose process died or ran out of memory is begun anew in a fresh
        process, since that may have had nothing to do with the job. Items that came already are
        not repeated.

    Yields:
      The messages; the last one of a job has its exception, which is `WorkerDiedError` if its
      process crashed, `WorkerHungError` if it hung.
    """
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, got {workers}")
    if workers == 0:
        for lane, jobs in enumerate(lanes):
            for index, job in enumerate(jobs):
                yield from _run_here(function, lane, index, job)
        return
    with Processes(function, workers, timeout=timeout, memory=memory, ahead_bytes=ahead_bytes,
                   retries=retries) as processes:
        for message in processes.stream(lanes):
            if isinstance(message, Message):
                yield message


def map_jobs(function: Callable[[Any], Any], jobs: Iterable[Any], workers: int, *,
             ordered: bool = True, timeout: float | None = None) -> Generator[tuple[int, Any]]:
    """Yields (index of the job, its result or the exception it raised).

    Args:
      function: a module-level function of one job.
      jobs: the jobs, drawn as they are needed; they and the results must pickle.
      workers: number of processes; 0 runs everything in this one.
      ordered: whether results come in the order of the jobs or in the order of completion.
      timeout: seconds after which a job's process is ended; None for no limit. Only for workers.

    Yields:
      (index, result) or (index, exception), see `stream_jobs`.
    """
    lanes = [jobs] if ordered else ([job] for job in jobs)
    messages = stream_jobs(functools.partial(_only_result, function), lanes, workers,
                           timeout=timeout)
    for lane, index, item, last in messages:
        if not last or item is not None:
            yield (index if ordered else lane), item


def _only_result(function: Callable[[Any], Any], job: Any) -> Iterator[Any]:
    yield function(job)


def _run_here(function: Callable[[Any], Iterable[Any]], lane: int, index: int,
              job: Any) -> Iterator[Message]:
    try:
        for item in function(job):
            yield Message(lane, index, item, last=False)
    except Exception as error:  # Whatever a job raises is its result; the caller decides.
        yield Message(lane, index, error, last=True)
    else:
        yield Message(lane, index, None, last=True)


@dataclasses.dataclass
class _Task:
    """A job that was begun, and what came of it that is not out yet."""

    lane: "_Lane"
    index: int
    job: Any
    received: int = 0
    attempts: int = 1
    waiting: collections.deque[Message] = dataclasses.field(default_factory=collections.deque)
    bytes: int = 0

    def add(self, item: Any, *, last: bool) -> None:
        self.waiting.append(Message(self.lane.number, self.index, item, last))


class _Lane:
    """A lane's jobs, and the tasks that are begun and not out, in order."""

    def __init__(self, number: int, jobs: Iterable[Any]):
        self.number = number
        self.tasks: collections.deque[_Task] = collections.deque()
        self.exhausted = False
        self._jobs = enumerate(jobs)

    def begin(self) -> _Task | None:
        """The next job; None, and `exhausted`, if there is none."""
        for index, job in self._jobs:
            self.tasks.append(_Task(self, index, job))
            return self.tasks[-1]
        self.exhausted = True
        return None

    def deliver(self) -> Iterator[Message]:
        """Takes out what is next in order."""
        while self.tasks and self.tasks[0].waiting:
            task = self.tasks[0]
            while task.waiting:
                message = task.waiting.popleft()
                if message.last:
                    self.tasks.popleft()
                yield message
            task.bytes = 0


class Processes:
    """Processes that run jobs, and outlive them: `stream` may be called again and again.

    They are started as jobs come, are replaced as they die, and end with the `with` statement.
    """

    def __init__(self, function: Callable[[Any], Iterable[Any]], workers: int, *,
                 timeout: float | None = None, first_timeout: float | None = None,
                 memory: int | None = None, ahead_bytes: int = 128 << 20, retries: int = 1,
                 environments: Sequence[Mapping[str, str]] = ({},)):
        """Starts nothing yet.

        Args:
          function: see `stream_jobs`; any object that pickles. Each process keeps its own from job
            to job.
          workers: number of processes.
          timeout: see `stream_jobs`.
          first_timeout: in place of `timeout` until the first result of a process comes; None for
            the same, infinity for no limit.
          memory: see `stream_jobs`.
          ahead_bytes: see `stream_jobs`.
          retries: see `stream_jobs`.
          environments: variables of the first process, the second ..., and from the start again.
        """
        if workers < 1:
            raise ValueError(f"workers must be 1 or more, got {workers}")
        self.timeout = timeout
        self.first_timeout = timeout if first_timeout is None else first_timeout
        self.ahead_bytes = ahead_bytes
        self.retries = retries
        self.size = workers
        self._new_worker = functools.partial(parallel_worker.Worker, function, memory)
        self._environments = environments
        self._workers: list[parallel_worker.Worker | None] = [None] * workers

    def stream(self, lanes: Iterable[Iterable[Any]]) -> Generator[Message | Begun]:
        """Runs jobs, see `stream_jobs`, and says which process begins each.

        One call is to end, or its iterator to be closed, before the next one.
        """
        if self.busy():
            raise ValueError("the processes are busy with an earlier stream")
        try:
            yield from _Stream(self, lanes).run()
        finally:
            for worker in self.busy():
                self.discard(worker)

    def close(self) -> None:
        """Ends all processes, whatever they do."""
        for worker in filter(None, self._workers):
            self.discard(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def busy(self) -> list[parallel_worker.Worker]:
        """The processes that are at work."""
        return [worker for worker in self._workers if worker and worker.task]

    def idle(self, *, fresh: bool) -> parallel_worker.Worker:
        """A process that lives and has nothing to do. Not all are to be busy.

        Args:
          fresh: whether a new one is preferred, or one that was used, which is faster.
        """
        for place in sorted(range(self.size), key=lambda x: (self._workers[x] is None) != fresh):
            worker = self._workers[place]
            if worker and worker.task:
                continue
            if worker and not worker.alive:
                self.discard(worker)
                worker = None
            if worker is None:
                environment = self._environments[place % len(self._environments)]
                worker = self._workers[place] = self._new_worker(environment)
            return worker
        raise ValueError("all processes are at work")

    def discard(self, worker: parallel_worker.Worker) -> None:
        """Ends a process."""
        worker.stop()
        self._workers[self._workers.index(worker)] = None


class _Stream:
    """One call of `Processes.stream`: what is begun, and what came of it that is not out yet."""

    def __init__(self, processes: Processes, lanes: Iterable[Iterable[Any]]):
        self._processes = processes
        self._lanes = (_Lane(number, jobs) for number, jobs in enumerate(lanes))
        self._open: list[_Lane] = []
        self._no_more_lanes = False
        self._failed: collections.deque[_Task] = collections.deque()
        self._unread: set[parallel_worker.Worker] = set()

    def run(self) -> Generator[Message | Begun]:
        """Yields all messages."""
        while True:
            yield from self._begin_tasks()
            busy = self._processes.busy()
            if not busy:
                return
            for worker in self._wait(busy):
                self._read(worker)
                for lane in self._open:
                    yield from lane.deliver()

    def _begin_tasks(self) -> Iterator[Begun]:
        """Gives every idle worker a job, as far as there are any that may be begun."""
        while len(self._processes.busy()) < self._processes.size and (task := self._next_task()):
            worker = self._processes.idle(fresh=task.attempts > 1)
            worker.restart_clock(
                self._processes.timeout if worker.used else self._processes.first_timeout)
            worker.start(task, task.job, task.received)
            yield Begun(task.lane.number, task.index, task.attempts, worker.pid)

    def _next_task(self) -> _Task | None:
        if self._failed:
            return self._failed.popleft()
        self._open = [lane for lane in self._open if lane.tasks or not lane.exhausted]
        for lane in self._open:
            if not lane.tasks and not lane.exhausted and (task := lane.begin()):
                return task
        while not self._no_more_lanes:
            new_lane = next(self._lanes, None)
            if new_lane is None:
                self._no_more_lanes = True
            elif task := new_lane.begin():
                self._open.append(new_lane)
                return task
        if self._bytes_ahead() >= self._processes.ahead_bytes:
            return None
        shortest = sorted(self._open, key=lambda lane: len(lane.tasks))
        for lane in shortest:
            if (len(lane.tasks) < _AHEAD * self._processes.size and not lane.exhausted
                    and (task := lane.begin())):
                return task
        return None

    def _bytes_ahead(self) -> int:
        return sum(task.bytes for lane in self._open for task in lane.tasks)

    def _wait(self, busy: list[parallel_worker.Worker]) -> list[parallel_worker.Worker]:
        """Waits for messages; gives the workers that have one, and those whose time is over."""
        full = self._bytes_ahead() >= self._processes.ahead_bytes
        readable = {}
        for worker in busy:
            if full and worker.task is not worker.task.lane.tasks[0]:
                self._unread.add(worker)
                continue
            if worker in self._unread:
                self._unread.remove(worker)
                worker.restart_clock(self._processes.timeout)
            readable[worker.results] = worker
        wait = min(worker.deadline for worker in readable.values()) - time.monotonic()
        ready = multiprocessing.connection.wait(
            readable, timeout=None if wait == float("inf") else max(wait, 0))
        now = time.monotonic()
        return [worker for connection, worker in readable.items()
                if connection in ready or now >= worker.deadline]

    def _read(self, worker: parallel_worker.Worker) -> None:
        """Takes a message from a worker that has one, and ends one that hangs."""
        task = worker.task
        if not worker.results.poll():
            self._discard(worker)
            task.add(WorkerHungError(f"over the time limit of {worker.timeout:g} s"), last=True)
            return
        message = worker.receive()
        if message is None:
            self._discard(worker)
            self._fail(task, WorkerDiedError(worker.how_it_ended()))
            return
        worker.restart_clock(self._processes.timeout)
        kind = message[0]
        if kind == REPEATED:
            return
        content = pickle.loads(message[1:])
        if kind == ITEM:
            task.received += 1
            task.bytes += len(message)
            task.add(content, last=False)
        elif kind == OUT_OF_MEMORY:
            # What the process holds may be of earlier jobs.
            self._discard(worker)
            self._fail(task, content)
        else:
            worker.task = None
            assert kind in (END, ERROR)
            task.add(content, last=True)

    def _fail(self, task: _Task, error: Exception) -> None:
        if task.attempts > self._processes.retries:
            task.add(error, last=True)
        else:
            task.attempts += 1
            self._failed.append(task)

    def _discard(self, worker: parallel_worker.Worker) -> None:
        self._unread.discard(worker)
        self._processes.discard(worker)
