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
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

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
    index: int
    item: Any
    last: bool


def stream_jobs(function: Callable[[Any], Iterable[Any]], lanes: Iterable[Iterable[Any]],
                workers: int, *, timeout: float | None = None, memory: int | None = None,
                ahead_bytes: int = 128 << 20, retries: int = 1) -> Iterator[Message]:
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
    pool = _Pool(function, lanes, workers, timeout, memory, ahead_bytes, retries)
    try:
        yield from pool.run()
    finally:
        pool.stop()


def map_jobs(function: Callable[[Any], Any], jobs: Iterable[Any], workers: int, *,
             ordered: bool = True, timeout: float | None = None) -> Iterator[tuple[int, Any]]:
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


class _Pool:
    """The processes of one call of `stream_jobs`, and which of them does what."""

    def __init__(self, function: Callable[[Any], Iterable[Any]], lanes: Iterable[Iterable[Any]],
                 workers: int, timeout: float | None, memory: int | None, ahead_bytes: int,
                 retries: int):
        self._new_worker = functools.partial(parallel_worker.Worker, function, memory)
        self._lanes = (_Lane(number, jobs) for number, jobs in enumerate(lanes))
        self._open: list[_Lane] = []
        self._no_more_lanes = False
        self._size = workers
        self._timeout = timeout
        self._ahead_bytes = ahead_bytes
        self._retries = retries
        self._workers: list[parallel_worker.Worker] = []
        self._unread: set[parallel_worker.Worker] = set()

    def run(self) -> Iterator[Message]:
        """Yields all messages."""
        while True:
            self._begin_tasks()
            busy = [worker for worker in self._workers if worker.task]
            if not busy:
                return
            for worker in self._wait(busy):
                self._read(worker)
                for lane in self._open:
                    yield from lane.deliver()

    def stop(self) -> None:
        """Ends all processes."""
        for worker in self._workers:
            worker.stop()

    def _begin_tasks(self) -> None:
        """Gives every idle worker a job, as far as there are any that may be begun."""
        while True:
            worker = next((worker for worker in self._workers if not worker.task), None)
            if worker is None and len(self._workers) >= self._size:
                return
            task = self._next_task()
            if task is None:
                return
            self._start(task, worker)

    def _start(self, task: _Task, worker: parallel_worker.Worker | None = None) -> None:
        if worker is None:
            worker = self._new_worker()
            self._workers.append(worker)
        worker.start(task, task.job, task.received)
        worker.restart_clock(self._timeout)

    def _next_task(self) -> _Task | None:
        self._open = [lane for lane in self._open if lane.tasks or not lane.exhausted]
        for lane in self._open:
            if not lane.tasks and not lane.exhausted and (task := lane.begin()):
                return task
        while not self._no_more_lanes:
            lane = next(self._lanes, None)
            if lane is None:
                self._no_more_lanes = True
            elif task := lane.begin():
                self._open.append(lane)
                return task
        if self._bytes_ahead() >= self._ahead_bytes:
            return None
        shortest = sorted(self._open, key=lambda lane: len(lane.tasks))
        for lane in shortest:
            if (len(lane.tasks) < _AHEAD * self._size and not lane.exhausted
                    and (task := lane.begin())):
                return task
        return None

    def _bytes_ahead(self) -> int:
        return sum(task.bytes for lane in self._open for task in lane.tasks)

    def _wait(self, busy: list[parallel_worker.Worker]) -> list[parallel_worker.Worker]:
        """Waits for messages; gives the workers that have one, and those whose time is over."""
        full = self._bytes_ahead() >= self._ahead_bytes
        readable = {}
        for worker in busy:
            if full and worker.task is not worker.task.lane.tasks[0]:
                self._unread.add(worker)
                continue
            if worker in self._unread:
                self._unread.remove(worker)
                worker.restart_clock(self._timeout)
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
            task.add(WorkerHungError(f"nothing came for {self._timeout:g} s"), last=True)
            return
        message = worker.receive()
        if message is None:
            self._discard(worker)
            self._fail(task, WorkerDiedError(worker.how_it_ended()))
            return
        worker.restart_clock(self._timeout)
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
        if task.attempts > self._retries:
            task.add(error, last=True)
        else:
            task.attempts += 1
            self._start(task)

    def _discard(self, worker: parallel_worker.Worker) -> None:
        worker.stop()
        self._workers.remove(worker)
        self._unread.discard(worker)
