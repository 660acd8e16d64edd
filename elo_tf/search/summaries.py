"""A search in TensorBoard: what each candidate and each generation came to."""

import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from elo_tf.search.candidate import Candidate, Generation
from elo_tf.search.journal import Journal
from elo_tf.search.loop import Watcher

TENSORBOARD = "tensorboard"
MEASURED = ("zipf", "weak", "effective_rank", "spread")


class SearchSummaries(Watcher):
    """Writes scalars of what is evaluated now; of what was found in the journal, nothing again.

    Of candidates, by how many ended before: `candidate/fitness` (of those that did not fail), zipf,
    weak, effective_rank, spread, best (so far), failed (0 or 1), and `seconds/...` by part; of
    those evaluated again, the same under `repeat/`. Of generations, by number: `generation/best`,
    `generation/sigma`, and `mean/...` by the name of the loss.
    """

    def __init__(self, run_dir: str | os.PathLike):
        """Makes no file yet.

        Args:
          run_dir: of the search; gets a folder of event files.
        """
        self._folder = pathlib.Path(run_dir) / TENSORBOARD
        self._writer: EventFileWriter | None = None

    def on_candidate(self, journal: Journal, candidate: Candidate,
                     clusters: Mapping[str, Any] | None) -> None:
        """Writes what a candidate came to."""
        del clusters
        kind, known = (("repeat", journal.repeats) if candidate.repeat
                       else ("candidate", journal.candidates))
        values = {name: getattr(candidate, name) for name in MEASURED}
        values |= {"fitness": candidate.fitness if candidate.ok else None,
                   "failed": float(not candidate.ok),
                   "best": journal.best.fitness if journal.best else None}
        scalars = {f"{kind}/{name}": value for name, value in values.items() if value is not None}
        if not candidate.repeat:
            scalars |= {f"seconds/{part}": value for part, value in candidate.seconds.items()}
        self._write(len(known) - 1, scalars)

    def on_generation(self, journal: Journal, generation: Generation) -> None:
        """Writes what a generation came to."""
        del journal
        self._write(generation.generation, {
            "generation/best": generation.best, "generation/sigma": generation.sigma,
            **{f"mean/{name}": weight for name, weight in generation.mean.items()}})

    def on_end(self, journal: Journal) -> None:
        """Closes the file."""
        del journal
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One event for all of them, without TensorFlow's operations."""
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventFileWriter(os.fspath(self._folder))
        summary = summary_pb2.Summary(value=[
            summary_pb2.Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars.items()])
        self._writer.add_event(event_pb2.Event(
            wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()
