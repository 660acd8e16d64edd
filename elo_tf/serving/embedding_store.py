"""The folder of embeddings: what is there, what it was made with, and what could not be used.

`embeddings.parquet/` holds the rows in shards, each of which appears when it is whole and says, in
its metadata, which of its videos were rejected. So a run that was killed knows what is done.
`summary.json` holds the settings; `rejects.csv`, `embeddings.npy` and `ids.csv` are derived.
"""

import collections
import contextlib
import csv
import dataclasses
import fcntl
import io
import itertools
import json
import os
import pathlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elo_tf import files, provenance
from elo_tf.data.conversion.state import naming_output
from elo_tf.errors import UserError

SHARDS = "embeddings.parquet"
SUMMARY = "summary.json"
REJECTS = "rejects.csv"
ARRAY, IDS = "embeddings.npy", "ids.csv"

SCHEMA = pa.schema([
    ("id", pa.string()), ("video", pa.string()), ("path", pa.string()), ("bytes", pa.int64()),
    ("start", pa.float64()), ("end", pa.float64()), ("clips", pa.int32()),
    ("status", pa.string()), ("embedding", pa.list_(pa.float32())),
])
_TEXTS = [name for name in SCHEMA.names if name != "embedding"]
_ORDER = ["video", "start"]
_REJECTED = b"elo_tf.rejected"


@dataclasses.dataclass(frozen=True)
class Reject:
    """A video that could not be used.

    Attributes:
      video: its id.
      bytes: size of its file; -1 if there is none.
      reason: a word for programs.
      detail: a sentence for people.
    """

    video: str
    bytes: int
    reason: str
    detail: str


class Store:
    """A folder that embeddings are written to.

    Attributes:
      folder: of the embeddings.
      done: size of the file of each video that was embedded or rejected, by its id; known while
        writing.
    """

    def __init__(self, folder: str | os.PathLike, settings: Mapping[str, Any]):
        """Compares the folder with what is asked for; changes nothing.

        Args:
          folder: of the embeddings; need not exist.
          settings: all that the rows depend on, as JSON has it; "model" is only for people.

        Raises:
          UserError: the folder holds embeddings of other settings, or something else.
        """
        self.folder = pathlib.Path(folder)
        self.done: dict[str, int] = {}
        self._rejects: dict[str, Reject] = {}
        self._settings = dict(settings)
        self._saved: dict[str, Any] = {"wall_seconds": 0.0, "commits": []}
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"--output={self.folder} is a file; name a folder")
        if (self.folder / SUMMARY).exists():
            self._saved = read_summary(self.folder)
            there = self._saved["settings"]
            differing = [f"{key}: {there.get(key)} there, {value} asked for"
                         for key, value in self._settings.items() if there.get(key) != value]
            # A model that was moved is the same one.
            if any(not text.startswith("model: ") for text in differing):
                raise UserError(f"{self.folder} holds embeddings made with other settings "
                                f"({'; '.join(differing)}); choose another --output, or remove it")
        elif shard_paths(self.folder):
            raise UserError(f"{shard_paths(self.folder)[0]} is there, but {SUMMARY}, which says "
                            "how it was made, is not; choose another --output, or remove it")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Claims the folder, and keeps other processes from writing here meanwhile.

        Raises:
          UserError: another process does, or the folder cannot be written.
        """
        with naming_output(self.folder):
            (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"another process writes embeddings into {self.folder}; wait for "
                                "it to end, or choose another --output") from error
            except OSError:
                pass  # Some network file systems have no locks.
            self._began = time.monotonic()
            for leftover in self.folder.glob("**/.*.tmp.*"):
                leftover.unlink(missing_ok=True)
            for path in shard_paths(self.folder):
                table = _read(path, ["video", "bytes"])
                self.done.update(zip(*table.to_pydict().values(), strict=True))
                self._rejects.update((x.video, x) for x in _rejected(table))
            self.done.update((x.video, x.bytes) for x in self._rejects.values())
            self._save()
            yield
        finally:
            os.close(descriptor)

    def forget(self, videos: Collection[str]) -> None:
        """Takes out all that there is of some videos, such as those whose files have changed."""
        for path in shard_paths(self.folder) if videos else ():
            table = _read(path)
            gone = pc.is_in(table["video"], pa.array(
                [x for x in videos if x not in self._rejects], pa.string()))
            kept, rejects = table.filter(pc.invert(gone)), _rejected(table)
            left = [x for x in rejects if x.video not in videos]
            if len(kept) < len(table) or len(left) < len(rejects):
                _write(path, kept, left)
        for video in videos:
            del self.done[video]
            self._rejects.pop(video, None)

    def add(self, rows: Sequence[Mapping[str, Any]], rejects: Sequence[Reject]) -> None:
        """Writes a shard.

        Args:
          rows: as `SCHEMA` has them.
          rejects: the videos beside them that could not be used.

        Raises:
          UserError: it cannot be written.
        """
        numbers = [int(path.stem.removeprefix("part-")) for path in shard_paths(self.folder)]
        path = self.folder / SHARDS / f"part-{max(numbers, default=-1) + 1:05d}.parquet"
        with naming_output(self.folder):
            _write(path, pa.Table.from_pylist(list(rows), SCHEMA), rejects)
            self._rejects.update((x.video, x) for x in rejects)
            if rejects:
                self._write_rejects()

    def finish(self, array: bool) -> dict[str, Any]:
        """Puts the rows in order and writes what is derived from them.

        Args:
          array: whether to write `embeddings.npy` and `ids.csv`; they are kept up to date where
            they are there.

        Returns:
          The summary, as saved.
        """
        with naming_output(self.folder):
            self._sort()
            self._write_rejects()
            if array or (self.folder / ARRAY).exists():
                _write_array(self.folder, self._settings["embedding_size"])
            return self._save()

    def _sort(self) -> None:
        """Orders the rows by their paths, where a later run added some that belong between.

        A process that is killed meanwhile leaves rows twice, of which the next one removes one.
        """
        paths = shard_paths(self.folder)
        keys = [key for path in paths for key in _keys(_read(path, _ORDER))]
        if all(a < b for a, b in itertools.pairwise(keys)):
            return
        tables = [_read(path) for path in paths]
        places = dict(zip(keys, range(len(keys)), strict=True))
        whole = pa.concat_tables(tables).take([places[key] for key in sorted(places)])
        _write(paths[0], whole, sorted(self._rejects.values(), key=lambda x: x.video))
        for path in paths[1:]:
            path.unlink()

    def _write_rejects(self) -> None:
        """Writes `rejects.csv`; not if there has never been a reject."""
        path = self.folder / REJECTS
        if self._rejects or path.exists():
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([
                ("path", "reason", "detail"),
                *((x.video, x.reason, x.detail) for _, x in sorted(self._rejects.items()))])
            files.write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))

    def _save(self) -> dict[str, Any]:
        rows = clips = 0
        videos: set[str] = set()
        damaged: set[str] = set()
        for path in shard_paths(self.folder):
            table = _read(path, ["video", "clips", "status"]).to_pydict()
            rows += len(table["video"])
            clips += sum(table["clips"])
            videos.update(table["video"])
            damaged.update(x for x, status in zip(table["video"], table["status"], strict=True)
                           if status != "ok")
        commits = self._saved["commits"]
        if provenance.commit() not in commits:
            commits = [*commits, provenance.commit()]
        reasons = collections.Counter(x.reason for x in self._rejects.values())
        summary = {
            "videos": len(videos) + len(self._rejects), "embedded": len(videos), "rows": rows,
            "clips": clips, "damaged": len(damaged), "rejected": len(self._rejects),
            "rejected_by_reason": dict(reasons.most_common()),
            "wall_seconds": round(
                self._saved["wall_seconds"] + time.monotonic() - self._began, 3),
            "commits": commits, "settings": self._settings}
        files.write_atomic(self.folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
        return summary


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """All rows of a folder, in order of their paths.

    Attributes:
      rows: of each the columns of `SCHEMA` but the embedding.
      features: float32 [N, D].
      settings: what they were made with.
    """

    rows: list[dict[str, Any]]
    features: np.ndarray
    settings: dict[str, Any]


def read_embeddings(folder: str | os.PathLike) -> Embeddings:
    """Reads all rows of a folder of embeddings, of which there is at least one.

    Raises:
      UserError: there are none, or a file is damaged.
    """
    folder = pathlib.Path(folder)
    settings = read_summary(folder)["settings"]
    tables = [_read(path) for path in shard_paths(folder)]
    rows = [row for table in tables for row in table.select(_TEXTS).to_pylist()]
    if not rows:
        raise UserError(f"{folder} holds no embeddings yet; run bin/embed")
    features = np.concatenate([_matrix(table) for table in tables if len(table)])
    keys = [key for table in tables for key in _keys(table)]
    places = dict(zip(keys, range(len(keys)), strict=True))
    order = [places[key] for key in sorted(places)]
    return Embeddings([rows[i] for i in order], features[order], settings)


def read_summary(folder: pathlib.Path) -> dict[str, Any]:
    """The contents of `summary.json`.

    Raises:
      UserError: it is not there, or is something else.
    """
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if not {"settings", "wall_seconds", "commits"} <= summary.keys():
            raise ValueError("it is something else")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"cannot read {path} ({getattr(error, 'strerror', None) or error}); "
                        "name a folder that bin/embed wrote, or remove it") from error
    return summary


def shard_paths(folder: pathlib.Path) -> list[pathlib.Path]:
    """The shards of a folder of embeddings, in order."""
    return sorted((folder / SHARDS).glob("part-*.parquet"))


def _read(path: pathlib.Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.ParquetFile(path).read(columns)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]}); remove it, and the "
                        "same bin/embed makes it again") from error


def _write(path: pathlib.Path, table: pa.Table, rejects: Sequence[Reject]) -> None:
    text = json.dumps([dataclasses.astuple(x) for x in rejects])
    with files.atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata({_REJECTED: text}), temporary)


def _rejected(table: pa.Table) -> list[Reject]:
    return [Reject(*x) for x in json.loads((table.schema.metadata or {}).get(_REJECTED, b"[]"))]


def _keys(table: pa.Table) -> list[tuple[str, float]]:
    return list(zip(*table.select(_ORDER).to_pydict().values(), strict=True))


def _matrix(table: pa.Table) -> np.ndarray:
    """float32 [N, D]."""
    values = [chunk.flatten().to_numpy() for chunk in table["embedding"].chunks]
    return np.concatenate(values).reshape(len(table), -1)


def _write_array(folder: pathlib.Path, size: int) -> None:
    """Writes `embeddings.npy`, shard by shard, and `ids.csv`, whose lines are its rows."""
    tables = [_read(path, _TEXTS) for path in shard_paths(folder)]
    with files.atomic_path(folder / ARRAY) as temporary:
        array = np.lib.format.open_memmap(
            temporary, "w+", np.float32, (sum(map(len, tables)), size))
        begin = 0
        for path in shard_paths(folder):
            table = _read(path, ["embedding"])
            if len(table):
                array[begin:begin + len(table)] = _matrix(table)
                begin += len(table)
        array.flush()
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [_TEXTS, *(row.values() for table in tables for row in table.to_pylist())])
    files.write_atomic(folder / IDS, text.getvalue())
