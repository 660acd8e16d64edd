"""Runs tasks, and actors that outlive them, on a Ray cluster: for more machines than this one.

The code and the files that tasks name have to be at the same paths on all machines of the cluster.
Ray's protocol lets whoever reaches it run code: a cluster that is started here listens on this
machine's loopback only and asks for a token that only this process and its children know.
"""

import collections
import contextlib
import dataclasses
import logging
import os
import secrets
import socket
import textwrap
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Self

from elo_tf.errors import UserError
from elo_tf.parallel import Begun, Message, WorkerDiedError, WorkerHungError
from elo_tf.parallel_worker import picklable


@contextlib.contextmanager
def cluster(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Connects to Ray while the `with` statement lasts, or uses the connection that there is.

    Args:
      address: of a running cluster, such as "10.0.0.1:6379"; None to start Ray on this machine,
        and to stop it in the end.
      cpus: tasks at a time on this machine; None for its number of cores. Only without `address`.

    Raises:
      UserError: if Ray is not installed, or there is no cluster at the address.
    """
    if address is None:
        # Read when Ray is imported. The user's own settings come first.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Where there is only one machine, all of Ray listens on its loopback, and else, whatever
        # address the node is given, on all of its addresses.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise UserError(f"Ray cannot be imported ({error}); install it (pip install ray), or use "
                        "the local engine") from error
    if ray.is_initialized():
        yield
        return
    if address is not None:
        _check_address(address)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            # "local": not one that runs on this machine already, or did.
            ray.init(address="local", num_cpus=cpus, include_dashboard=False,
                     _node_ip_address="127.0.0.1", **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"no Ray cluster at {address or 'this machine'}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Says in seconds that nobody listens, which Ray itself would try for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return  # Such as "auto", for which Ray looks on this machine.
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"no Ray cluster at {address}: {error}; start one (ray start --head), or "
                        "give the address that it printed") from error


def run_tasks(function: Callable[[Any], Any], jobs: Iterable[Any], *,
              retries: int = 3) -> Iterator[tuple[int, Any]]:
    """Runs a task of one core for each job, in a `cluster`, and yields results as they come.

    Args:
      function: a module-level function of one job, or a `functools.partial` of one; it must be
        able to run again.
      jobs: the jobs; they and the results must pickle.
      retries: how often a task is begun anew whose process or machine died.

    Yields:
      (index of the job, its result or the exception it raised), in the order of completion;
      `WorkerDiedError` if its processes died again and again.
    """
    import ray

    task = ray.remote(num_cpus=1, max_retries=retries)(_attempt)
    running = {task.remote(function, job): index for index, job in enumerate(jobs)}
    while running:
        [done], _ = ray.wait(list(running), num_returns=1)
        index = running.pop(done)
        try:
            yield index, ray.get(done)
        except ray.exceptions.RayError as error:
            yield index, WorkerDiedError(str(error).splitlines()[0])


def _attempt(function: Callable[[Any], Any], job: Any) -> Any:
    try:
        return function(job)
    except Exception as error:  # Whatever a job raises is its result; the caller decides.
        return picklable(error)


class _Remote:
    """What runs in an actor's process."""

    def build(self, make: Callable[[], Callable[[Any], Any]]) -> tuple[str, Exception | None]:
        """Makes the function of its jobs; gives the process's name and what went wrong."""
        error = None
        try:
            self._function = make()
        except Exception as raised:
            error = picklable(raised)
        return f"{socket.gethostname()}:{os.getpid()}", error

    def run(self, job: Any) -> Any:
        """The result, or the exception that the function raised."""
        return _attempt(self._function, job)


@dataclasses.dataclass
class _Task:
    """A job that has no result yet."""

    index: int
    job: Any
    attempts: int = 0


@dataclasses.dataclass(eq=False)
class _Actor:
    """An actor, and what it is doing: it is built, is idle, or runs a job.

    Attributes:
      handle: Ray's.
      pending: reference to what it will give; None if it is idle.
      name: "host:process number" once it is built.
      task: its job.
      deadline: when it will have taken too long.
    """

    handle: Any
    pending: Any
    name: str = ""
    task: _Task | None = None
    deadline: float = float("inf")


class Actors:
    """Actors of a `cluster` that keep what they built from job to job, and from call to call.

    They are started as jobs come, are replaced as they die, and end with the `with` statement.
    """

    def __init__(self, make: Callable[[], Callable[[Any], Any]], *, cpus: int = 1, gpus: int = 0,
                 most: int | None = None, timeout: float | None = None, retries: int = 3):
        """Starts nothing yet.

        Args:
          make: a module-level function, or a `functools.partial` of one, called once in each actor;
            gives the function of one job.
          cpus: cores of each actor, 1 or more.
          gpus: GPUs of each actor, the only ones that it sees.
          most: most actors; None for as many as the cluster's machines have room for.
          timeout: seconds for one job, beside building; None for no limit.
          retries: how often a job whose actor died or ran out of memory is begun anew. One that
            took too long is not.

        Raises:
          UserError: if the cluster has room for none.
        """
        import ray

        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        shares = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
        room = sum(min(int(machine.get(kind, 0) // share) for kind, share in shares.items())
                   for machine in machines)
        if not room:
            raise UserError(f"none of the {len(machines)} machine(s) of the Ray cluster has "
                            f"{cpus} core(s) and {gpus} GPU(s), which each worker is to have")
        self.size = min(room, most or room)
        self._ray = ray
        self._remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(_Remote)
        self._make = ray.put(make)
        self._timeout = timeout
        self._retries = retries
        self._actors: list[_Actor] = []
        self._deaths = 0  # While they were built, one after the other.

    def start(self) -> None:
        """Starts all actors, and waits until the first is built.

        Raises:
          Exception: what `make` raised.
        """
        while len(self._actors) < self.size:
            self._add()
        while not any(actor.name for actor in self._actors):
            list(self._take(*self._wait(), collections.deque()))
            if not self._actors:
                self._add()

    def stream(self, jobs: Iterable[Any]) -> Generator[Begun | Message]:
        """Runs jobs, each on the first actor that is idle.

        One call is to end, or its iterator to be closed, before the next one.

        Yields:
          For each job, a lane of its own as in `parallel.Processes.stream`: that it has begun, its
          result, and its end.

        Raises:
          Exception: what `make` raised; `WorkerDiedError` if actors died again and again before
            they were built.
        """
        waiting = collections.deque(_Task(index, job) for index, job in enumerate(jobs))
        try:
            while waiting or self._busy():
                yield from self._begin(waiting)
                yield from self._take(*self._wait(), waiting)
        finally:
            for actor in self._busy():
                self._discard(actor)

    def close(self) -> None:
        """Ends all actors, whatever they do."""
        for actor in list(self._actors):
            self._discard(actor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _busy(self) -> list[_Actor]:
        return [actor for actor in self._actors if actor.task]

    def _add(self) -> None:
        handle = self._remote.remote()
        self._actors.append(_Actor(handle, handle.build.remote(self._make)))

    def _begin(self, waiting: collections.deque[_Task]) -> Iterator[Begun]:
        """Gives jobs to idle actors, and starts actors for the jobs that are left."""
        for actor in self._actors:
            if waiting and actor.pending is None:
                actor.task = task = waiting.popleft()
                actor.pending = actor.handle.run.remote(task.job)
                actor.deadline = (
                    time.monotonic() + self._timeout if self._timeout else float("inf"))
                task.attempts += 1
                yield Begun(task.index, 0, task.attempts, actor.name)
        building = sum(not actor.name for actor in self._actors)
        for _ in range(min(self.size - len(self._actors), len(waiting) - building)):
            self._add()

    def _wait(self) -> tuple[_Actor, bool]:
        """An actor that has something to give, and True; or whose time is over, and False."""
        pending = {actor.pending: actor for actor in self._actors if actor.pending is not None}
        first = min(pending.values(), key=lambda actor: actor.deadline)
        wait = max(first.deadline - time.monotonic(), 0)
        ready, _ = self._ray.wait(
            list(pending), num_returns=1, timeout=None if wait == float("inf") else wait)
        return (pending[ready[0]], True) if ready else (first, False)

    def _take(self, actor: _Actor, ready: bool,
              waiting: collections.deque[_Task]) -> Iterator[Message]:
        """Takes what an actor gives, and ends one that died or took too long."""
        try:
            result = (self._ray.get(actor.pending) if ready
                      else WorkerHungError(f"over the time limit of {self._timeout:g} s"))
        except self._ray.exceptions.RayTaskError as error:  # Something does not pickle.
            result = RuntimeError(str(error.cause))
        except self._ray.exceptions.RayError as error:
            result = WorkerDiedError(_one_line(error))
        if not actor.name:
            self._built(actor, result)
            return
        task, actor.task, actor.pending = actor.task, None, None
        assert task is not None
        if isinstance(result, WorkerDiedError | MemoryError):
            self._discard(actor)
            if not isinstance(result, WorkerHungError) and task.attempts <= self._retries:
                waiting.appendleft(task)
                return
        if not isinstance(result, Exception):
            yield Message(task.index, 0, result, last=False)
            result = None
        yield Message(task.index, 0, result, last=True)

    def _built(self, actor: _Actor, result: tuple[str, Exception | None] | Exception) -> None:
        if isinstance(result, WorkerDiedError) and self._deaths < self._retries:
            self._deaths += 1
            self._discard(actor)
            return
        if isinstance(result, Exception):
            raise result
        actor.name, error = result
        if error is not None:
            raise error
        actor.pending = None
        self._deaths = 0

    def _discard(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        with contextlib.suppress(self._ray.exceptions.RayError):  # It is dead already.
            self._ray.kill(actor.handle)


def _one_line(error: Exception) -> str:
    """Why an actor died, without its attributes."""
    lines = [line for line in str(error).splitlines() if not line.startswith("\t")]
    return textwrap.shorten(" ".join(lines), 400)
