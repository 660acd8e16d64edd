"""Training on several hosts: who takes part, what they decide together, and what ends them all.

Each host runs the same program, a worker. Worker 0 is the chief, which alone writes what is kept.
TensorFlow notices a lost worker in the next collective, and names a connection or none at all; the
watch below sees it at once, says which worker it was, and ends the others also where they wait for
something else. A supervisor can then start all of them again (`bin/supervisor.py`).
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable

import tensorflow as tf
from absl import flags, logging

from elo_tf import cli, model_garden
from elo_tf.errors import Stopped, UserError

LOST_EXIT_CODE = 75
"""What a worker ends with where another was lost: the sysexits' "temporary failure, try again"."""

BEAT = 1.0
"""Seconds between signs of life."""

SILENCE = 30.0
"""Seconds without a sign of life after which a worker counts as lost, as where its host has lost
power or network. One that is killed shows at once, by the end of its connection."""

# Errors of collectives that another worker's end causes.
_CAUSED_BY_OTHERS = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
                     tf.errors.DeadlineExceededError)
_INTERRUPTED_EXIT_CODE = 130
_HANDSHAKE = 5.0  # seconds


def define_flags() -> None:
    """Adds --worker_hosts, --task_index and --watch_port to a binary."""
    flags.DEFINE_list(
        "worker_hosts", [], "host:port of every worker, the same list on each; the first is the "
        "chief, which writes to --run_dir. TF_CONFIG says the same.")
    flags.DEFINE_integer(
        "task_index", None, "Which of --worker_hosts this is, from 0.", lower_bound=0)
    flags.DEFINE_integer(
        "watch_port", 0, "Port of the chief through which workers notice that one is lost; 0 takes "
        "any free one. Set it where a firewall stands between the hosts.", 0, 65535)


def configure_from_flags() -> None:
    """Makes the flags known to TensorFlow, as TF_CONFIG.

    Raises:
      UserError: if they name no cluster, or another one than TF_CONFIG.
    """
    hosts, index = flags.FLAGS.worker_hosts, flags.FLAGS.task_index
    if not os.environ.get("TF_CONFIG"):
        os.environ.pop("TF_CONFIG", None)  # TensorFlow cannot read an empty one.
    if not hosts:
        if index is not None:
            raise UserError(f"--task_index={index} is of no use without --worker_hosts")
        cluster()  # A wrong TF_CONFIG is to be named before anything else is done.
        return
    for host in hosts:
        name, _, port = host.rpartition(":")
        if not (name and port.isdigit() and 0 < int(port) < 65536):
            raise UserError(f"--worker_hosts has {host!r}; each is host:port")
    if len(set(hosts)) < len(hosts):
        raise UserError(f"--worker_hosts={','.join(hosts)} names a worker twice")
    if index is None and len(hosts) > 1:
        raise UserError(f"--task_index is not set; say which of the {len(hosts)} --worker_hosts "
                        "this is, from 0")
    index = index or 0
    if index >= len(hosts):
        raise UserError(f"--task_index is {index}; with {len(hosts)} --worker_hosts it must be "
                        f"less than {len(hosts)}")
    if "TF_CONFIG" in os.environ and cluster() != (tuple(hosts), index):
        raise UserError("TF_CONFIG and --worker_hosts or --task_index say different things; leave "
                        "out one of them")
    model_garden.distribution().configure_cluster(",".join(hosts), index)


def cluster() -> tuple[tuple[str, ...], int]:
    """What TF_CONFIG says.

    Returns:
      host:port of every worker, the chief first, and which of them this is; ((), 0) where it says
      nothing.

    Raises:
      UserError: if it cannot be used.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return (), 0
    try:
        config = json.loads(text)
        jobs = config.get("cluster", {})
        if not jobs:
            return (), 0
        chief, others = list(jobs.get("chief", [])), list(jobs.get("worker", []))
        job, index = config["task"]["type"], int(config["task"]["index"])
        hosts = (*chief, *others)
        place = index + (len(chief) if job == "worker" else 0)
        known = job in ("chief", "worker") and 0 <= index < len(jobs.get(job, []))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"TF_CONFIG cannot be read ({type(error).__name__}: {error}); it is "
                        '{"cluster": {"worker": ["host:port", ...]}, '
                        '"task": {"type": "worker", "index": 0}}') from error
    if not known:
        raise UserError(f"TF_CONFIG makes this {job} {index}, which is no chief or worker of its "
                        f"cluster of {len(hosts)}")
    return hosts, place


def share(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """This worker's index and the number of workers: which rows of a global batch are its own."""
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict() if resolver else {}
    if not jobs:
        return 0, 1
    chiefs = len(jobs.get("chief", []))
    place = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)
    return place, chiefs + len(jobs.get("worker", []))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this worker writes what is kept; True on one host."""
    return share(strategy)[0] == 0


def any_worker(strategy: tf.distribute.Strategy, flag: bool) -> bool:
    """Whether the flag is set on any worker.

    All workers must call it at the same step, outside `strategy.run`: each waits for the others.
    """
    if share(strategy)[1] == 1:
        return flag
    return bool(_sum(strategy, [int(flag)])[0])


def barrier(strategy: tf.distribute.Strategy) -> None:
    """Waits until all workers have come here."""
    any_worker(strategy, False)


def _sum(strategy: tf.distribute.Strategy, numbers: list[int]) -> list[int]:
    """Sums of every worker's numbers."""
    # Not a constant, which TensorFlow keeps from a place that is no worker's.
    mine = tf.identity(tf.constant(numbers, tf.int64))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, mine, axis=None).numpy().tolist()


def watch(strategy: tf.distribute.Strategy) -> "Watch":
    """Connects this worker with the chief, so that all end where one is lost.

    All workers must call it at the same step. On one host it does nothing.

    Use it in a `with` statement around all that follows. An exception that leaves the statement
    ends the other workers too, with the exception named and, if it is one after which nobody should
    start again, with its exit code. Leaving by Stopped, which all workers do at the same step, or
    by SystemExit or `stop`, is a normal end.

    Raises:
      UserError: if the chief cannot be reached.
    """
    own, count = share(strategy)
    if count == 1:
        return Watch({}, 0)
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    names = [*jobs.get("chief", []), *jobs.get("worker", [])]
    host = names[0].rpartition(":")[0].strip("[]")
    wanted = flags.FLAGS["watch_port"].value if "watch_port" in flags.FLAGS else 0
    server = _listen(host, wanted) if own == 0 else None
    # A secret keeps strangers out, who might connect and leave.
    port, secret = _sum(strategy, [server.getsockname()[1], secrets.randbits(60)]
                        if server else [0, 0])
    if server:
        with server:
            links = _accept(server, secret, count)
    else:
        links = {0: _connect(host, port, secret, own)}
    barrier(strategy)
    return Watch(links, own, names)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        if port:
            raise UserError(f"--watch_port={port} cannot be used: {error.strerror}") from error
        # The name by which others reach this host need not be an address of its own.
        return socket.create_server(("", port))


def _accept(server: socket.socket, secret: int, count: int) -> dict[int, socket.socket]:
    """Waits for the connections of all other workers."""
    links: dict[int, socket.socket] = {}
    server.settimeout(SILENCE)
    while len(links) < count - 1:
        try:
            link, _ = server.accept()
        except TimeoutError as error:
            missing = sorted(set(range(1, count)) - set(links))
            raise UserError(f"workers {missing} did not connect to port "
                            f"{server.getsockname()[1]} of the chief; open it, or another "
                            "one with --watch_port") from error
        link.settimeout(_HANDSHAKE)
        words = _first_line(link).split()
        if len(words) == 2 and words[0] == b"%d" % secret:
            link.settimeout(SILENCE)
            links[int(words[1])] = link
        else:
            link.close()
    return links


def _connect(host: str, port: int, secret: int, own: int) -> socket.socket:
    try:
        link = socket.create_connection((host, port), timeout=SILENCE)
        link.sendall(b"%d %d\n" % (secret, own))
    except OSError as error:
        raise UserError(f"worker {own} cannot connect to port {port} of the chief, {host}: "
                        f"{error}; open it, or another one with --watch_port") from error
    return link


def _first_line(link: socket.socket) -> bytes:
    line = b""
    try:
        while not line.endswith(b"\n") and len(line) < 64:
            byte = link.recv(1)
            if not byte:
                break
            line += byte
    except OSError:
        return b""
    return line


class Watch:
    """Connections between workers that are alive; see `watch`.

    Lines travel on them: an empty one is a sign of life, "done" a normal end, and "end", an exit
    code and a sentence what all are to end with.
    """

    def __init__(self, links: dict[int, socket.socket], own: int, names: list[str] | None = None):
        """Starts watching.

        Args:
          links: connections by index of the worker at the other end: of the chief to all, of
            another worker to the chief.
          own: index of this worker.
          names: host:port of every worker.
        """
        self._links = links
        self._own = own
        self._names = names or []
        self._stopped = threading.Event()
        self._ending = threading.Lock()
        self._sending = threading.Lock()
        for index, link in links.items():
            self._start(self._hear, index, link)
        if links:
            self._start(self._beat)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is None or isinstance(error, (Stopped, SystemExit)) or not self._links:
            self.stop()
            return
        if isinstance(error, _CAUSED_BY_OTHERS):
            # Most likely the end of another worker, which the watch is about to name.
            time.sleep(SILENCE + 2 * BEAT)
        code, reason = LOST_EXIT_CODE, f"{kind.__name__}: {error}"
        if isinstance(error, UserError):
            code, reason = cli.USER_ERROR_EXIT_CODE, error.message
        elif isinstance(error, FloatingPointError):  # Starting again would come to the same.
            code = cli.USER_ERROR_EXIT_CODE
        elif isinstance(error, KeyboardInterrupt):
            code, reason = _INTERRUPTED_EXIT_CODE, "it was interrupted"
        self._tell(_end_line(code, f"{self._name(self._own)} has failed: {reason}"))
        self._stopped.set()

    def stop(self) -> None:
        """Says that this worker has done its work; its end is then none for the others."""
        self._stopped.set()
        self._tell(b"done\n")

    def _start(self, target: Callable, *arguments) -> None:
        # Daemons: what they wait for may never come.
        threading.Thread(target=target, args=arguments, name="watch", daemon=True).start()

    def _beat(self) -> None:
        while not self._stopped.wait(BEAT):
            self._tell(b"\n")

    def _tell(self, line: bytes, but: int | None = None) -> None:
        with self._sending:
            for index, link in self._links.items():
                if index != but:
                    with contextlib.suppress(OSError):  # Its listener says so, if it matters.
                        link.sendall(line)

    def _hear(self, index: int, link: socket.socket) -> None:
        """Listens to one worker, and ends this process where that one ends before its time."""
        try:
            for line in link.makefile("rb"):
                word, _, rest = line.strip().partition(b" ")
                if word == b"done":
                    return
                if word == b"end":
                    code, _, sentence = rest.partition(b" ")
                    self._end(int(code), sentence.decode(errors="replace"), index)
            reason = "its process has ended"
        except ConnectionError:
            reason = "its process has ended"
        except OSError as error:
            reason = (f"no sign of life for {SILENCE:.0f} s" if isinstance(error, TimeoutError)
                      else str(error))
        self._end(LOST_EXIT_CODE, f"{self._name(index)} is lost: {reason}", index)

    def _end(self, code: int, sentence: str, index: int) -> None:
        """Ends this process, and first the others that are connected with it."""
        with self._ending:
            if self._stopped.is_set():
                return
            self._tell(_end_line(code, sentence), but=index)
            # Others are to read of it before they lose the chief; and where all fail alike, each
            # ends by its own error.
            if self._stopped.wait(2 * BEAT):
                return
            logging.flush()
            sys.stdout.flush()
            print(f"error: {sentence}; worker {self._own} ends too", file=sys.stderr, flush=True)
            # The main thread may be inside a collective, which nothing else ends.
            os._exit(code)

    def _name(self, index: int) -> str:
        return f"worker {index} ({self._names[index]})"


def _end_line(code: int, sentence: str) -> bytes:
    return f"end {code} {' '.join(sentence.split())[:500]}\n".encode()
