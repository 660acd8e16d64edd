"""Runs tasks on a Ray cluster: for more machines than this one.

The code and the files that tasks name have to be at the same paths on all machines of the cluster.
Ray's protocol lets whoever reaches it run code: a cluster that is started here listens on this
machine's loopback only and asks for a token that only this process and its children know.
"""

import contextlib
import logging
import os
import pickle
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from elo_tf.errors import UserError
from elo_tf.parallel import WorkerDiedError


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
            ray.init(num_cpus=cpus, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
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
        try:
            pickle.loads(pickle.dumps(error))
        except Exception as trouble:  # Anything can go wrong in a stranger's __reduce__.
            return RuntimeError(f"{type(error).__name__}: {error} ({trouble})")
        return error
