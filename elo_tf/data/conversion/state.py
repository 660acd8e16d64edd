"""The files that say how far the conversion of a split is, and how it was made.

`<split>.json` holds the settings and the counts of each shard that is whole. It is there before
the first shard and is replaced after each, so that a conversion that was killed knows what is
left. `rejects.csv` is derived from it.
"""

import collections
import contextlib
import csv
import fcntl
import io
import json
import os
import pathlib
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from elo_tf import files, provenance
from elo_tf.data import manifest, schema
from elo_tf.data.conversion.shards import COUNTS, TALLIES
from elo_tf.errors import UserError

_REJECT_COLUMNS = ["path", "split", "reason", "detail"]

_FRAMING = 16
"""Bytes that a TFRecord file takes for each record beside it: its length and two checksums."""


class SplitState:
    """What is there of one split.

    Attributes:
      directory: the folder of the records.
      parts: the videos of each shard.
    """

    def __init__(self, directory: str, split: str, settings: dict[str, Any],
                 parts: Sequence[Sequence[manifest.Entry]]):
        self.directory = pathlib.Path(directory)
        self.parts = parts
        self._name = split
        self._settings = settings
        self._shards: dict[int, dict[str, Any]] = {}
        self._commits: list[str] = []
        self._wall_seconds = 0.0
        self._saved = time.monotonic()
        if self.directory.exists() and not self.directory.is_dir():
            raise UserError(f"--output={self.directory} is a file; name a folder")
        self._load()

    def shard_path(self, index: int) -> pathlib.Path:
        """The file of a shard."""
        return self.directory / schema.shard_name(self._name, index, len(self.parts))

    def missing(self) -> list[int]:
        """Indices of the shards that are not there yet."""
        return [index for index in range(len(self.parts)) if index not in self._shards]

    def begin(self) -> None:
        """Prepares the folder; removes what a conversion that was killed left."""
        commit = provenance.commit()
        if commit not in self._commits:
            self._commits.append(commit)
        self._saved = time.monotonic()
        self.remove_leftovers()
        self._save()

    def add(self, counts: dict[str, Any]) -> None:
        """Records that a shard is whole.

        Args:
          counts: as `conversion_shards.write_shards` gives them.
        """
        self._shards[counts["index"]] = counts
        self._save()
        if counts["rejects"]:
            write_rejects(self.directory)

    def summary(self) -> dict[str, Any]:
        """The settings and counts, with the sums over all shards."""
        shards = [self._shards[index] for index in sorted(self._shards)]
        totals = {key: sum(shard[key] for shard in shards) for key in COUNTS}
        totals["seconds"] = round(totals["seconds"], 3)
        tallies: dict[str, collections.Counter] = {
            key: collections.Counter() for key in TALLIES}
        for shard in shards:
            for key, tally in tallies.items():
                tally.update(shard[key])
        return {
            "split": self._name,
            "complete": not self.missing(),
            **totals,
            "largest_record": max((shard["largest_record"] for shard in shards), default=0),
            **{key: dict(tally.most_common()) for key, tally in tallies.items()},
            "wall_seconds": round(self._wall_seconds, 3),
            "fps": self._settings["fps"],
            "min_side": self._settings["min_side"],
            "flow": self._settings["flow"],
            "settings": self._settings,
            "commits": self._commits,
            "shards": shards,
        }

    def remove_records(self) -> None:
        """Removes what says that there are records; the rejects stay."""
        for index in self._shards:
            self.shard_path(index).unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Removes temporary files of this split, as a process that was killed leaves them."""
        ours = re.compile(rf"\.{re.escape(self._name)}(-\d{{5}}-of-\d{{5}})?\.\d+\.tmp\.")
        for path in self.directory.glob(".*.tmp.*"):
            if ours.match(path.name):
                path.unlink(missing_ok=True)

    @property
    def _path(self) -> pathlib.Path:
        return self.directory / schema.summary_name(self._name)

    def _save(self) -> None:
        now = time.monotonic()
        self._wall_seconds += now - self._saved
        self._saved = now
        files.write_atomic(self._path, json.dumps(self.summary(), indent=1) + "\n")

    def _load(self) -> None:
        if not self._path.exists():
            strays = sorted(self.directory.glob(f"{self._name}-*-of-*.tfrecord"))
            if strays:
                raise UserError(f"{strays[0]} is there, but {self._path.name}, which says "
                                "how it was made, is not; choose another --output, or remove the "
                                "shards of this split")
            return
        saved = _read(self._path)
        if saved is None:
            raise UserError(f"{self._path} is not the summary of a conversion; remove it "
                            "together with the shards of this split")
        settings = saved["settings"]
        differing = [f"{key}: {settings.get(key)} there, {value} asked for"
                     for key, value in self._settings.items() if settings.get(key) != value]
        if differing:
            raise UserError(f"{self.directory} holds the split {self._name!r} with other settings "
                            f"({'; '.join(differing)}); choose another --output or --split, or "
                            f"remove {self._path.name} and the split's shards")
        self._commits = saved["commits"]
        self._wall_seconds = saved["wall_seconds"]
        self._shards = {shard["index"]: shard for shard in saved["shards"]
                        if self._is_whole(shard)}

    def _is_whole(self, shard: dict[str, Any]) -> bool:
        path = self.shard_path(shard["index"])
        return (path.exists()
                and path.stat().st_size == shard["bytes"] + _FRAMING * shard["clips"])


@contextlib.contextmanager
def alone(directory: pathlib.Path, split: str) -> Iterator[None]:
    """Keeps other processes from converting a split into a folder, which is made.

    Raises:
      UserError: if another one does, or the folder cannot be written.
    """
    path = directory / f".{split}.lock"
    with naming_output(directory):
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process converts the split {split!r} into {directory}; wait for it to "
                "end, or choose another --output or --split") from error
        except OSError:
            pass  # Some network file systems have no locks.
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming_output(directory: pathlib.Path) -> Iterator[None]:
    """Makes an error of the system in the output folder one that says what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to --output={directory}: {error.strerror or error}; free "
                        "the space, mend its rights, or choose another folder") from error


def read_states(directory: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The summaries of all splits of a folder of records, by the splits' names."""
    found = ((path.stem, _read(path)) for path in sorted(directory.glob("*.json")))
    return {name: state for name, state in found if state is not None}


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    """The contents of a split's file; None if it is something else."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    known = {"split", "settings", "commits", "wall_seconds", "shards"}
    return state if isinstance(state, dict) and known <= state.keys() else None


def write_rejects(directory: pathlib.Path) -> None:
    """Writes `rejects.csv` from the files of the splits; not if there has never been a reject."""
    path = directory / schema.REJECTS_FILE
    rows = sorted([reject[0], name, *reject[1:]] for name, state in read_states(directory).items()
                  for shard in state["shards"] for reject in shard["rejects"])
    if rows or path.exists():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([_REJECT_COLUMNS, *rows])
        files.write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))
