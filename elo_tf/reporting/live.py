"""report.html while the search runs: written again as it goes on, for a small share of the time."""

import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from elo_tf.reporting import report, results, search_section
from elo_tf.search.candidate import Candidate, Generation
from elo_tf.search.journal import Journal
from elo_tf.search.loop import Watcher

SHARE = 0.02    # of the wall time, at most


class LiveReport(Watcher):
    """Writes the report of a running search; whatever goes wrong here does not end the search."""

    def __init__(self, run_dir: str | os.PathLike, *,
                 read_clips: Callable[[Sequence[str]], Mapping[str, np.ndarray]] | None = None,
                 clock: Callable[[], float] = time.monotonic):
        """Writes nothing yet.

        Args:
          run_dir: of the search; gets report.html.
          read_clips: ids -> frames uint8 [T, H, W, 3] by id, of those that are there; called when
            the clips nearest to the clusters' centres have changed. None: they are not shown.
          clock: seconds.
        """
        self._run_dir = run_dir
        self._read_clips = read_clips
        self._clock = clock
        self._next = -float("inf")
        self._ids: list[str] = []
        self._clips: Mapping[str, np.ndarray] = {}
        self._said: set[str] = set()
        self._started = False

    def on_start(self, journal: Journal) -> None:
        """Writes a first one."""
        self._started = True
        self._write(journal)

    def on_candidate(self, journal: Journal, candidate: Candidate,
                     clusters: Mapping[str, Any] | None) -> None:
        """Writes it again if it is time."""
        del candidate, clusters
        if self._clock() >= self._next:
            self._write(journal)

    def on_generation(self, journal: Journal, generation: Generation) -> None:
        """Writes it again if it is time."""
        del generation
        if self._clock() >= self._next:
            self._write(journal)

    def on_end(self, journal: Journal) -> None:
        """Writes the last one, unless the search had ended before and its report is there."""
        if self._started or not (pathlib.Path(self._run_dir) / "report.html").exists():
            self._write(journal)

    def _write(self, journal: Journal) -> None:
        started = self._clock()
        with self._guarded("the clips of the clusters could not be read"):
            self._update_clips()
        with self._guarded("report.html could not be written"):
            report.write_report(self._run_dir, search_dir=self._run_dir, journal=journal,
                                clips=self._clips)
        ended = self._clock()
        self._next = ended + (ended - started) / SHARE

    @contextlib.contextmanager
    def _guarded(self, failed: str) -> Iterator[None]:
        """What goes wrong within it is said once: a picture is not worth a search."""
        try:
            yield
        except Exception as error:
            if failed not in self._said:
                logging.warning("%s, the search goes on: %s: %s", failed, type(error).__name__,
                                error)
            self._said.add(failed)

    def _update_clips(self) -> None:
        """Reads the clips that would be shown, where they are others than before."""
        if self._read_clips is None:
            return
        ids = search_section.shown_clips(results.read_clusters(self._run_dir))
        if ids != self._ids:
            self._ids = ids
            self._clips = self._read_clips(ids)

