"""Stopping on request: SIGTERM (a cluster takes its machine back) and SIGINT (Ctrl-C)."""

import signal
from typing import Any

from absl import logging


class StopRequests:
    """Notes the first SIGTERM or SIGINT for whoever can stop well; a second one stops at once.

    Use it in a `with` statement in the main thread.

    Attributes:
      received: the signal, or None.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequests":
        self._before = {number: signal.signal(number, self._note)
                        for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error) -> None:
        self._restore()

    def _note(self, number: int, frame) -> None:
        self.received = signal.Signals(number)
        self._restore()
        logging.info("%s: saving after this step; once more to stop at once", self.received.name)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
