"""Checkpoints of a training run: written whole or not at all, the newest usable one restored."""

import contextlib
import errno
import math
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Sequence

import tensorflow as tf
from absl import logging

from elo_tf import provenance
from elo_tf.errors import UserError
from elo_tf.training import checkpoint_files, checkpoint_parts
from elo_tf.training.checkpoint_files import Manifest, UnusableError
from elo_tf.training.checkpoint_parts import Parts

_VARIABLES = "variables"
# Of another worker, not of the disk: they are not the user's to mend.
_PEER_ERRORS = (tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError,
                tf.errors.UnavailableError)


class Checkpoints:
    """Saves and restores the parts of a training run.

    A checkpoint is a folder, as `checkpoint_files` describes. The files of two saves of the same
    values by the same program are equal byte for byte.

    All devices wait while it saves: TensorFlow writes as fast as a plain copy to the same disk,
    and the SHA-256 reads the file once more from memory. Four ResNet-50s with Adam's slots, 1.6 GB,
    take 3.4 to 6.7 s on two busy cores, where a plain copy takes 4.9 s; restoring takes 4.6 s.
    """

    def __init__(self, parts: Parts, folder: pathlib.Path, *, keep_last: int = 2,
                 keep_best: int = 1, writes: bool = True, config: str = ""):
        """Prepares a folder of checkpoints.

        Args:
          parts: trackable objects by name, nested once where there are several of a kind, such as
            {"encoders": {"rgb": model}, "optimizer": optimizer}. The optimiser's slots must be
            there (`optimization.create_slots`).
          folder: made by the first save.
          keep_last: how many of the newest are kept.
          keep_best: how many of those with the best scores are kept.
          writes: False for a worker that is not the chief. It must save with the others, since
            TensorFlow reads synchronised variables by a collective, but what it writes goes to
            the system's temporary folder and is deleted.
          config: hash of the configuration, kept in the checkpoint.

        Raises:
          UserError: for numbers that cannot be.
        """
        for name, value, least in (("keep_last", keep_last, 1), ("keep_best", keep_best, 0)):
            if value < least:
                raise UserError(f"{name} is {value}; it must be {least} or more")
        self._checkpoint = tf.train.Checkpoint(**parts)
        self._parts = checkpoint_parts.part_names(parts)
        self._folder = pathlib.Path(folder)
        self._keep_last = keep_last
        self._keep_best = keep_best
        self._writes = writes
        self._config = config
        self._commit = provenance.commit()
        self._unusable: set[int] = set()

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints on disk, usable or not, oldest first."""
        return checkpoint_files.find_steps(self._folder)

    def save(self, step: int, *, score: float | None = None) -> None:
        """Saves, then deletes those that are neither among the newest nor the best.

        Args:
          step: of the training, one that is not behind the newest usable checkpoint's.
          score: lower is better; one that is not finite is none.

        Raises:
          UserError: if the checkpoint cannot be written, such as on a full disk. Nothing of it is
            left and the older ones are untouched.
        """
        if not self._writes:
            with tempfile.TemporaryDirectory(prefix="elo_tf_save_") as folder:
                self._write(pathlib.Path(folder))
            return
        path = checkpoint_files.step_folder(self._folder, step)
        with self._explained(path), checkpoint_files.new_folder(path) as folder:
            variables = self._write(folder)
            checkpoint_files.write_manifest(
                folder, step=step,
                score=None if score is None or not math.isfinite(score) else float(score),
                commit=self._commit, config=self._config, parts=self._parts, variables=variables)
        self._unusable.discard(step)
        self._prune(step)

    def restore(self) -> int:
        """Restores the newest usable checkpoint, and removes what a killed save left.

        Returns:
          The step it was saved at; 0 if there is none.

        Raises:
          UserError: if there are checkpoints but none of them can be used.
        """
        if self._writes:
            checkpoint_files.clear_leftovers(self._folder)
        variables = checkpoint_parts.describe(self._checkpoint)

        def read(path: pathlib.Path, manifest: Manifest) -> None:
            unlike = checkpoint_parts.differences(manifest.variables, manifest.parts, variables,
                                                  self._parts)
            if unlike:
                raise UnusableError(unlike)
            checkpoint_files.verify_hashes(path, manifest)
            with _unusable_if_unreadable():
                self._checkpoint.read(str(path / _VARIABLES)).assert_consumed()

        reasons = {}
        for step in reversed(self.steps):
            path = checkpoint_files.step_folder(self._folder, step)
            try:
                manifest = checkpoint_files.read_manifest(path)
                read(path, manifest)
            except UnusableError as error:
                logging.warning("the checkpoint %s cannot be used: %s", path, error)
                reasons[step] = str(error)
                continue
            self._unusable = set(reasons)
            if manifest.config != self._config:
                logging.info("%s was saved under another configuration", path)
            logging.info("resuming from %s", path)
            return step
        if reasons:
            newest = max(reasons)
            raise UserError(
                f"no checkpoint in {self._folder} can be used; of the newest, step {newest}: "
                f"{reasons[newest]}. Use another --run_dir, or delete this folder to begin anew")
        return 0

    def _write(self, folder: pathlib.Path) -> dict[str, str]:
        """Writes TensorFlow's files; returns what is in them, as `describe` gives it."""
        prefix = str(folder / _VARIABLES)
        self._checkpoint.write(prefix)
        return checkpoint_parts.written(prefix)

    @contextlib.contextmanager
    def _explained(self, path: pathlib.Path) -> Iterator[None]:
        """Turns what the disk refuses into a `UserError`."""
        try:
            yield
        except _PEER_ERRORS:
            raise
        except (OSError, tf.errors.OpError) as error:
            number, reason = _reason(error)
            usable = list(self._usable(upto=math.inf))
            last = f"the last whole one is step {usable[-1]}" if usable else "there is none yet"
            mend = ("Free space" if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
                    else "Mend that")
            raise UserError(f"cannot write checkpoint {path}: {reason}; {last}. {mend} and start "
                            "the same command again") from error

    def _usable(self, upto: float) -> dict[int, Manifest]:
        """Manifests of the checkpoints that seem whole, by step, oldest first."""
        manifests = {}
        for step in self.steps:
            if step <= upto and step not in self._unusable:
                with contextlib.suppress(UnusableError):
                    manifests[step] = checkpoint_files.read_manifest(
                        checkpoint_files.step_folder(self._folder, step))
        return manifests

    def _prune(self, newest: int) -> None:
        """Deletes what need not be kept; leaves alone what is of a later step."""
        usable = self._usable(upto=newest)
        scored = sorted((x for x in usable if usable[x].score is not None),
                        key=lambda x: (usable[x].score, -x))
        kept = {newest, *list(usable)[-self._keep_last:], *scored[:self._keep_best]}
        for step in self.steps:
            if step < newest and step not in kept:
                checkpoint_files.remove(checkpoint_files.step_folder(self._folder, step))


def restore_parts(path: str | os.PathLike, parts: Parts, names: Sequence[str]) -> int:
    """Restores only the named parts, as for fine-tuning an encoder; no optimiser's state.

    Args:
      path: a checkpoint, a folder of checkpoints (the newest usable one is read), or a run
        directory that holds `checkpoints/`.
      parts: as for `Checkpoints`; those that are not named stay as they are.
      names: such as "encoders/rgb", or "encoders" for all encoders of `parts`.

    Returns:
      The step of the checkpoint.

    Raises:
      UserError: if there is no usable checkpoint, or it does not hold the named parts as `parts`
        has them.
    """
    try:
        selected = checkpoint_parts.select(parts, names)
    except KeyError as error:
        raise UserError(f"there is no part {error.args[0]} to restore; the model has "
                        f"{', '.join(checkpoint_parts.part_names(parts))}") from error
    if "optimizer" in selected:
        raise UserError("the optimizer's state cannot be restored by itself; resume the run")
    folder = pathlib.Path(path)
    if (folder / "checkpoints").is_dir():
        folder = folder / "checkpoints"
    single = any((folder / x).exists() for x in (checkpoint_files.MANIFEST, f"{_VARIABLES}.index"))
    paths = [folder] if single else [checkpoint_files.step_folder(folder, step) for step in
                                     reversed(checkpoint_files.find_steps(folder))]
    reasons = []
    for candidate in paths:
        try:
            manifest = checkpoint_files.read_manifest(candidate)
            checkpoint_files.verify_hashes(candidate, manifest)
            _read_parts(candidate, manifest, selected)
        except UnusableError as error:
            logging.warning("the checkpoint %s cannot be used: %s", candidate, error)
            reasons.append(str(error))
            continue
        logging.info("%s restored from %s", ", ".join(names), candidate)
        return manifest.step
    if reasons:
        raise UserError(f"no checkpoint in {folder} can be used; of the newest: {reasons[0]}")
    raise UserError(f"{folder} holds no checkpoint; give a checkpoint, a folder of checkpoints or "
                    "a run directory")


def _read_parts(path: pathlib.Path, manifest: Manifest, selected: Parts) -> None:
    names = checkpoint_parts.part_names(selected)
    checkpoint = tf.train.Checkpoint(**selected)
    saved = checkpoint_parts.without_slots(manifest.variables, names)
    mine = checkpoint_parts.describe(checkpoint)
    unlike = checkpoint_parts.differences(saved, set(names).intersection(manifest.parts), mine,
                                          names)
    if unlike:
        raise UserError(f"checkpoint {path} does not fit {', '.join(names)}: {unlike}. It holds "
                        f"{', '.join(x for x in manifest.parts if x != 'optimizer')}")
    with _unusable_if_unreadable():
        status = checkpoint.read(str(path / _VARIABLES))
        status.assert_existing_objects_matched()
        status.expect_partial()


@contextlib.contextmanager
def _unusable_if_unreadable() -> Iterator[None]:
    try:
        yield
    except (AssertionError, OSError, ValueError, IndexError, tf.errors.OpError) as error:
        raise UnusableError(f"TensorFlow cannot read it: {_reason(error)[1]}") from error


def _reason(error: Exception) -> tuple[int | None, str]:
    """The system's error, which TensorFlow gives only as words, and its number if there is one."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.errno, error.strerror
    for number in errno.errorcode:
        if f"; {os.strerror(number)}" in text:
            return number, os.strerror(number)
    text = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]", "", text).strip()
    return None, text.splitlines()[0] if text else type(error).__name__
