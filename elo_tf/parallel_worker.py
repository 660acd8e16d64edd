"""A process that runs jobs one by one, sends what each yields, and can be ended at any moment.

Processes are spawned, so that TensorFlow is safe in them and in their parent.
"""

import contextlib
import ctypes
import fcntl
import functools
import io
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import pickle
import resource
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from elo_tf.errors import UserError

ITEM, REPEATED, END, ERROR, OUT_OF_MEMORY = range(5)
"""What a message is: something the job yielded; something it yielded again after a retry, left out;
the job's end; its exception; its exception for want of memory."""

_PIPE_BYTES = 1 << 20
"""So much fits into the pipe, so that a worker goes on while its parent is busy with a result."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Worker:
    """The parent's side of a process.

    Attributes:
      results: the connection to wait on for messages.
      task: what the process is busy with, for the caller's use; None if it is idle.
      used: whether it was ever given a job.
      timeout: seconds within which the job was to send something; see `restart_clock`.
      deadline: when they are over.
    """

    def __init__(self, function: Callable[[Any], Iterable[Any]], memory: int | None,
                 environment: Mapping[str, str]):
        context = multiprocessing.get_context("spawn")
        remote_jobs, self._jobs = context.Pipe(duplex=False)
        self.results, remote_results = context.Pipe(duplex=False)
        with contextlib.suppress(OSError):  # The system's limit for all pipes is reached.
            fcntl.fcntl(remote_results, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._process = context.Process(
            target=_serve, args=(pickle.dumps(function), remote_jobs, remote_results, memory,
                                 dict(environment), os.getpid()),
            daemon=True)
        with _without_interrupts():
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        remote_jobs.close()
        remote_results.close()
        self.task: Any = None
        self.used = False
        self.timeout: float | None = None
        self.deadline = float("inf")

    @property
    def alive(self) -> bool:
        """Whether the process goes on."""
        return self._process.is_alive()

    def start(self, task: Any, job: Any, skip: int) -> None:
        """Begins a job, whose first `skip` items are known already."""
        self.task = task
        self.used = True
        with contextlib.suppress(ConnectionError):  # A dead process shows when read from.
            self._jobs.send((job, skip))

    def restart_clock(self, timeout: float | None) -> None:
        """Gives the job `timeout` seconds from now to send something."""
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout if timeout else float("inf")

    def receive(self) -> memoryview | None:
        """The next message: a byte for what it is, and a pickle; None if the process has ended."""
        try:
            return memoryview(self.results.recv_bytes())
        except (EOFError, OSError):
            return None

    def how_it_ended(self) -> str:
        """A sentence on a process that is gone."""
        self._process.join()
        code = self._process.exitcode
        killed = code == -signal.SIGKILL
        return (f"the process ended with exit code {code}"
                + " (killed; the system does so where memory runs out)" * killed)

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        self._jobs.close()
        self.results.close()
        self._process.kill()
        self._process.join()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C does not reach processes that are started here: their parent decides what it means."""
    multiprocessing.resource_tracker.ensure_running()  # Starting it would let signals through.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pickled_function: bytes, jobs: multiprocessing.connection.Connection,
           results: multiprocessing.connection.Connection, memory: int | None,
           environment: dict[str, str], parent: int) -> None:
    """The loop of a worker process; ends when the parent closes its side, or ends."""
    # A job that hangs would never notice that nobody waits for it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    os.environ.update(environment)  # Libraries that the function imports may read it.
    try:
        function = pickle.loads(pickled_function)
    except Exception as error:  # Such as a module that cannot be imported here.
        function = functools.partial(_raise, error)
    if memory:
        _limit_memory(memory)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            for message in _messages(function, *jobs.recv()):
                results.send_bytes(message)


def _raise(error: Exception, job: Any) -> NoReturn:
    raise error


def _limit_memory(memory: int) -> None:
    """Makes it an error to take more than this, beside what the imported libraries hold.

    Their threads have stacks and buffers for each core of the machine, most of which is never used.
    """
    with open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (held + memory, held + memory))


def _messages(function: Callable[[Any], Iterable[Any]], job: Any,
              skip: int) -> Iterator[memoryview]:
    """What is sent for a job, one message for each item and one for the end."""
    try:
        for index, item in enumerate(function(job)):
            yield _message(REPEATED) if index < skip else _message(ITEM, item)
    except Exception as error:  # Whatever a job raises is its result; the caller decides.
        yield _error_message(error)
    else:
        yield _message(END)


def _message(kind: int, content: Any = None) -> memoryview:
    buffer = io.BytesIO()
    buffer.write(bytes([kind]))
    pickle.dump(content, buffer, pickle.HIGHEST_PROTOCOL)
    return buffer.getbuffer()


def _error_message(error: Exception) -> memoryview:
    kind = OUT_OF_MEMORY if isinstance(error, MemoryError) else ERROR
    return _message(kind, picklable(error))


def picklable(error: Exception) -> Exception:
    """The exception, or what comes closest to it that can be sent to another process.

    gin, through whose calls errors pass, puts each into a class of its own, which pickles only as
    the class that it stands for.
    """
    try:
        pickle.loads(pickle.dumps(error))  # Some exceptions pickle but do not come back.
        return error
    except Exception as trouble:  # Anything can go wrong in a stranger's __reduce__.
        reason = trouble
    if isinstance(error, UserError):
        return UserError(error.message)
    for kind in type(error).__mro__[1:]:
        if kind.__name__ != type(error).__name__:
            break
        with contextlib.suppress(Exception):
            return pickle.loads(pickle.dumps(kind(str(error))))
    return RuntimeError(f"{type(error).__name__}: {error} ({reason})")
