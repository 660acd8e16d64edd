"""Runs jobs here or in local processes: one interface for conversion and search.

Processes are spawned, so that TensorFlow is safe in them and in their parent. A job that raises,
or whose process dies or hangs, costs that job alone: the process is replaced and the rest goes on.
"""

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import pickle
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any


class WorkerDiedError(Exception):
    """The process that ran a job ended, or was ended for taking too long, before the job did."""


def map_jobs(function: Callable[[Any], Any], jobs: Iterable[Any], workers: int, *,
             ordered: bool = True, timeout: float | None = None,
             window: int | None = None) -> Iterator[tuple[int, Any]]:
    """Yields (index of the job, its result or the exception it raised).

    Args:
      function: a module-level function of one job.
      jobs: the jobs, drawn as they are needed; they and the results must pickle.
      workers: number of processes; 0 runs everything in this one.
      ordered: whether results come in the order of the jobs or in the order of completion.
      timeout: seconds after which a job's process is ended; None for no limit. Only for workers.
      window: how many jobs may be started and not yet yielded, which bounds the memory; by default
        four a worker.

    Yields:
      (index, result) or (index, exception); `WorkerDiedError` for a process that crashed or hung.
    """
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, got {workers}")
    if workers == 0:
        for index, job in enumerate(jobs):
            yield index, _attempt(function, job)
        return
    finished = _run_in_processes(function, jobs, workers, timeout, window or 4 * workers, ordered)
    if not ordered:
        yield from finished
        return
    waiting: dict[int, Any] = {}
    following = 0
    for index, result in finished:
        waiting[index] = result
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1


def _attempt(function: Callable[[Any], Any], job: Any) -> Any:
    try:
        return function(job)
    except Exception as error:  # Whatever a job raises is its result; the caller decides.
        return error


class _Worker:
    """A process that answers jobs one by one."""

    def __init__(self, context: multiprocessing.context.BaseContext, function: Callable):
        self.connection, remote = context.Pipe()
        self._process = context.Process(target=_serve, args=(function, remote), daemon=True)
        self._process.start()
        remote.close()
        self.index: int | None = None
        self.deadline = float("inf")

    def start(self, index: int, job: Any, timeout: float | None) -> None:
        self.index = index
        self.deadline = time.monotonic() + timeout if timeout else float("inf")
        with contextlib.suppress(ConnectionError):  # A dead process shows when read from.
            self.connection.send(job)

    def result(self) -> Any:
        try:
            return pickle.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionError):
            self._process.join()
            return WorkerDiedError(f"the process ended with exit code {self._process.exitcode}")

    def stop(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.join()


def _serve(function: Callable, connection: multiprocessing.connection.Connection) -> None:
    """The loop of a worker process; ends when the parent closes its side."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides what Ctrl-C means.
    while True:
        try:
            job = connection.recv()
        except (EOFError, ConnectionError):
            return
        result = _attempt(function, job)
        try:
            message = pickle.dumps(result)
            if isinstance(result, Exception):
                pickle.loads(message)  # Some exceptions pickle but do not come back.
        except Exception as error:  # Anything can go wrong in a stranger's __reduce__.
            message = pickle.dumps(RuntimeError(f"{type(result).__name__}: {result} ({error})"))
        connection.send_bytes(message)


def _run_in_processes(function: Callable, jobs: Iterable[Any], workers: int,
                      timeout: float | None, window: int,
                      ordered: bool) -> Iterator[tuple[int, Any]]:
    context = multiprocessing.get_context("spawn")
    remaining = enumerate(jobs)
    pool: list[_Worker] = []
    # When ordered, the oldest unfinished job bounds how far ahead the others may run.
    unfinished: collections.OrderedDict[int, None] = collections.OrderedDict()
    exhausted = False
    latest = -1
    try:
        while True:
            idle = [worker for worker in pool if worker.index is None]
            while not exhausted and (idle or len(pool) < workers):
                if ordered and unfinished and latest - next(iter(unfinished)) >= window:
                    break
                try:
                    latest, job = next(remaining)
                except StopIteration:
                    exhausted = True
                    break
                if not idle:
                    idle.append(_Worker(context, function))
                    pool.append(idle[-1])
                unfinished[latest] = None
                idle.pop().start(latest, job, timeout)
            busy = {worker.connection: worker for worker in pool if worker.index is not None}
            if not busy:
                return
            wait = min(worker.deadline for worker in busy.values()) - time.monotonic()
            ready = multiprocessing.connection.wait(
                busy, timeout=None if wait == float("inf") else max(wait, 0))
            now = time.monotonic()
            for connection, worker in busy.items():
                if connection in ready:
                    result = worker.result()
                elif now >= worker.deadline:
                    result = WorkerDiedError(f"took more than {timeout:g} s")
                else:
                    continue
                index, worker.index = worker.index, None
                if isinstance(result, WorkerDiedError):
                    worker.stop()
                    pool.remove(worker)
                del unfinished[index]
                yield index, result
    finally:
        for worker in pool:
            worker.stop()
