"""Starts a command again where it fails.

The command is to go on by itself from what it has saved. Of several hosts each has a supervisor of
its own: where one worker is lost all end (`training/workers.py`), and all are started again.
"""

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

FLAG = "restarts"
FINAL_CODES = (0, 2, 130, 143)
"""Done, an error of the user, and stopped on purpose by Ctrl-C or SIGTERM: no start would help."""

FIRST_DELAY, LONGEST_DELAY = 5.0, 60.0
"""Seconds before the first restart, by which all workers of a cluster have ended; each further one
waits twice as long as the one before, up to the longest (our choice)."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_prctl = ctypes.CDLL(None).prctl


def own_command() -> list[str]:
    """The command line that started this process."""
    return [sys.executable, *sys.orig_argv[1:]]


def supervise(command: Sequence[str], restarts: int, *, first_delay: float = FIRST_DELAY) -> int:
    """Runs a command, without its flag --restarts, until it ends for good.

    It is started again after any end but those of `FINAL_CODES`. SIGTERM and SIGINT go on to it,
    and its end is then final; SIGTERM reaches it also where this process is killed.

    Args:
      command: the program and its arguments, such as `own_command()`.
      restarts: how often it is started again at most.
      first_delay: seconds before the first restart.

    Returns:
      Its last exit code; 128 + n where signal n ended it.
    """
    return _Supervisor(without_flag(command)).run(restarts, first_delay)


def without_flag(command: Sequence[str]) -> list[str]:
    """The command without --restarts=n or --restarts n."""
    kept, skip = [], False
    for argument in command:
        name = argument.lstrip("-")
        is_flag = argument.startswith("-") and name.partition("=")[0] == FLAG
        if not (skip or is_flag):
            kept.append(argument)
        skip = is_flag and "=" not in name
    return kept


class _Supervisor:
    """One child process at a time, and the signals that are for it."""

    def __init__(self, command: Sequence[str]):
        self._command = command
        self._child: subprocess.Popen | None = None
        self._signal = 0  # that asked this process to end

    def run(self, restarts: int, delay: float) -> int:
        """See `supervise`."""
        before = {number: signal.signal(number, self._forward)
                  for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for restart in range(1, restarts + 2):
                code = self._run_once()
                if self._signal or code in FINAL_CODES:
                    return code
                if restart > restarts:
                    _say(f"{_how(code)}; it was started {restarts + 1} times, and is given up")
                    return code
                _say(f"{_how(code)}; starting it again in {delay:g} s ({restart} of at most "
                     f"{restarts} times)")
                self._wait(delay)
                if self._signal:
                    return 128 + self._signal
                delay = min(2 * delay, LONGEST_DELAY)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return code

    def _run_once(self) -> int:
        # A process group of its own: of Ctrl-C it hears once, through us.
        self._child = subprocess.Popen(self._command, process_group=0,
                                       preexec_fn=end_with_parent)
        if self._signal:  # It came while the child was being made.
            self._child.send_signal(self._signal)
        code = self._child.wait()
        return code if code >= 0 else 128 - code

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        if self._child is not None:
            self._child.send_signal(number)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._signal and time.monotonic() < end:
            time.sleep(min(0.1, seconds))


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """In a new process: has the system send it a signal once the one that started it is gone."""
    _prctl(_PR_SET_PDEATHSIG, number)


def _how(code: int) -> str:
    if code <= 128:
        return f"the run ended with exit code {code}"
    try:
        return f"the run was ended by {signal.Signals(code - 128).name}"
    except ValueError:
        return f"the run ended with exit code {code}"


def _say(text: str) -> None:
    print(f"supervisor: {text}", file=sys.stderr, flush=True)
