"""The log of a training: losses.jsonl for programs, TensorBoard for people.

A line of losses.jsonl is one of two kinds. Of every `log_every`-th step:

    step, total             the weighted sum of the losses
    learning_rate           of this step
    weights                 by name, where they are learned
    losses                  raw, by name
    weighted, share         times its weight; as a share of the total
    gradient_norm           of the total, in all variables, before clipping
    gradient_norms          by name: of each weighted loss in the activations it is computed from
    measured                clips_per_second, data_wait (share of the wall time for which devices
                            waited for data), memory_gb (peak); all that differs between two runs

and, where checkpoints are scored, `step`, `heldout` (losses on unseen clips) and `heldout_total`.
"""

import json
import os
import pathlib
import resource
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.text import summary_v2 as text_summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from elo_tf import files
from elo_tf.errors import UserError
from elo_tf.training.data_wait import Waited

LOSSES = "losses.jsonl"
TENSORBOARD = "tensorboard"


class RunLog:
    """Writes the log; a resumed run goes on with it."""

    def __init__(self, folder: pathlib.Path, weights: Mapping[str, float], *, start: int = 0,
                 config: str = "", writes: bool = True):
        """Opens the log, without what was logged after step `start`.

        Args:
          folder: of the run.
          weights: of the losses, by name, in the order of their vectors.
          start: step of the checkpoint that the run goes on from.
          config: text of the configuration, shown in TensorBoard.
          writes: False on a worker whose log is not kept.

        Raises:
          UserError: naming a line that cannot be read.
        """
        self._path = folder / LOSSES
        self._weights = dict(weights)
        self._board = None
        if not writes:
            return
        lines = (self._path.read_text(encoding="utf-8").splitlines(True)
                 if self._path.exists() else [])
        # What a kill left of a half-written line does not end.
        kept = [line for number, line in enumerate(lines, start=1)
                if line.endswith("\n") and self._step(number, line) <= start]
        files.write_atomic(self._path, "".join(kept))
        self._board = _TensorBoard(folder / TENSORBOARD, start, config)

    def write(self, step: int, report: Mapping[str, np.ndarray], *, learning_rate: float,
              clips_per_second: float, waited: Waited) -> dict[str, Any]:
        """Logs a step.

        Args:
          step: its number, from 1.
          report: of `PretrainingModel.train_step`.
          learning_rate: of this step.
          clips_per_second: since the last entry.
          waited: for data, since the last entry.

        Returns:
          The entry.
        """
        names, weights = list(self._weights), np.array(list(self._weights.values()))
        learned = "weights" in report
        if learned:
            weights = report["weights"].astype(np.float64)
        weighted = weights * report["losses"].astype(np.float64)
        total = weighted.sum()

        def by_name(values: np.ndarray) -> dict[str, float]:
            return dict(zip(names, map(float, values), strict=True))

        entry = {
            "step": step, "total": float(total), "learning_rate": learning_rate,
            "gradient_norm": float(report["gradient_norm"]),
            "losses": by_name(report["losses"]), "weighted": by_name(weighted),
            "share": by_name(weighted / total if total else weighted),
            "gradient_norms": by_name(report["gradient_norms"]),
            "measured": {"clips_per_second": round(clips_per_second, 3),
                         "data_wait": round(waited.share, 4),
                         "memory_gb": round(peak_memory() / 1e9, 3)}}
        if learned:
            entry["weights"] = by_name(weights)
        self._append(entry)
        return entry

    def write_heldout(self, step: int, losses: Mapping[str, float], total: float) -> None:
        """Logs losses on unseen clips."""
        self._append({"step": step, "heldout": dict(losses), "heldout_total": total})

    def _step(self, number: int, line: str) -> int:
        """The step of a line of the log."""
        try:
            return json.loads(line)["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._path}, line {number} is damaged ({error}); delete the line, "
                            "and start the same command again") from error

    def _append(self, entry: Mapping[str, Any]) -> None:
        if self._board is None:
            return
        with open(self._path, "a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        scalars: dict[str, float] = {}
        for key, value in entry.items():
            if isinstance(value, Mapping):
                scalars |= {f"{key}/{name}": x for name, x in value.items()}
            elif key != "step":
                scalars[key] = value
        self._board.write(entry["step"], scalars)


class _TensorBoard:
    """Event files, written without TensorFlow's operations: one event for all of an entry."""

    def __init__(self, folder: pathlib.Path, start: int, config: str):
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(os.fspath(folder))
        # TensorBoard then forgets what an earlier, killed process wrote of later steps.
        self._write(start + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
        text = "    " + config.replace("\n", "\n    ")  # preformatted, in Markdown
        self._write(start, summary=text_summary.text_pb("config", text))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        self._write(step, summary=summary_pb2.Summary(value=[
            summary_pb2.Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars.items()]))

    def _write(self, step: int, **content) -> None:
        self._writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, **content))
        self._writer.flush()


def peak_memory() -> int:
    """Bytes at most in use so far: of the fullest GPU, or of this process where there is none."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return max(tf.config.experimental.get_memory_info(f"GPU:{i}")["peak"]
                   for i in range(len(gpus)))
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
