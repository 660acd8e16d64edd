"""Converts the videos of one split to TFRecord shards: the loop around decoding and writing.

Worker processes decode and encode, this process writes. Which video goes into which shard, and at
which place, depends on the names of the videos and a seed, never on the workers. After each shard
the split's summary is saved, so that an interrupted conversion goes on with the next shard.
"""

import collections
import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

from elo_tf import cli, files, parallel
from elo_tf.data import encoding, manifest, media, schema
from elo_tf.errors import UserError

JOB_SECONDS = 600.0
"""A video that takes a worker longer than this is rejected."""

_REJECT_COLUMNS = ["path", "split", "reason", "detail"]

_COUNTS = ("converted", "rejected", "seconds", "frames", "with_audio", "silent", "with_flow",
           "labelled", "damaged", "cut")


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What to convert, and how.

    Attributes:
      source: a folder of videos or a CSV file, see `manifest.py`.
      output: the folder for the records.
      split: name of the split; the first part of the shards' names.
      shards: number of shards; 0 for the square root of the number of videos.
      labels: "none" or "folders".
      options: how each video is converted.
      workers: processes that decode; 0 for this process alone.
      seed: of the order in which the videos are written.
    """

    source: str
    output: str
    split: str
    shards: int = 0
    labels: str = "none"
    options: encoding.VideoOptions = dataclasses.field(default_factory=encoding.VideoOptions)
    workers: int = 1
    seed: int = 0


def convert(job: Conversion) -> dict[str, Any]:
    """Runs a conversion, or the part of it that an earlier run left.

    Args:
      job: what to convert, and how.

    Returns:
      The split's summary as saved in `<split>.json`, and `unchanged`: True if there was nothing
      left to do.

    Raises:
      UserError: if no video can be used, or the output holds this split with other settings.
    """
    listing = manifest.read_manifest(job.source, job.labels)
    if listing.ignored:
        found = ", ".join(f"{n} {suffix}" for suffix, n in sorted(listing.ignored.items()))
        logging.info("Ignoring files that are no videos: %s", found)
    indices = manifest.label_map(job.output, listing.labels)
    parts = _partition(listing.entries, job)
    split = _Split(job, _settings(job, listing.entries, len(parts)), parts)
    missing = split.missing()
    if not missing:
        return split.summary() | {"unchanged": True}
    new_labels = not (split.directory / schema.LABELS_FILE).exists()
    manifest.write_labels(split.directory, indices)
    split.remove_leftovers()
    _write_shards(job, split, missing, indices)
    summary = split.summary()
    if not summary["converted"]:
        split.remove_records()
        if new_labels:
            (split.directory / schema.LABELS_FILE).unlink(missing_ok=True)
        reason, count = collections.Counter(summary["reasons"]).most_common(1)[0]
        raise UserError(f"none of the {len(listing.entries)} videos in {job.source} can be used; "
                        f"most frequent reason: {reason} ({count}); "
                        f"see {split.directory / schema.REJECTS_FILE}")
    return summary | {"unchanged": False}


def _partition(entries: Sequence[manifest.Entry], job: Conversion) -> list[list[manifest.Entry]]:
    """Distributes the videos over the shards, each of which gets a mixture."""
    shards = job.shards or max(1, int(len(entries) ** 0.5))
    if shards > len(entries):
        logging.warning("--shards=%d, but there are only %d videos: writing %d shards",
                        shards, len(entries), len(entries))
        shards = len(entries)

    def rank(entry: manifest.Entry) -> bytes:
        return hashlib.sha256(os.fsencode(f"{job.seed}:{entry.id}")).digest()

    mixed = sorted(entries, key=rank)
    return [mixed[index::shards] for index in range(shards)]


def _settings(job: Conversion, entries: Sequence[manifest.Entry], shards: int) -> dict[str, Any]:
    """All that the records depend on, to tell a run to go on with from a different one."""
    digest = hashlib.sha256()
    for entry in entries:
        size = os.path.getsize(entry.path) if os.path.exists(entry.path) else -1
        digest.update(os.fsencode(f"{entry.id}|{entry.label}|{size}\n"))
    options = dataclasses.asdict(job.options)
    return options.pop("limits") | options | {
        "shards": shards,
        "seed": job.seed,
        "dataset": pathlib.Path(os.path.abspath(job.source)).stem,
        "videos": f"{len(entries)} ({digest.hexdigest()[:12]})",
    }


class _Split:
    """The files of one split: shards, summary, and its rows among the rejects."""

    def __init__(self, job: Conversion, settings: dict[str, Any],
                 parts: list[list[manifest.Entry]]):
        self.directory = pathlib.Path(job.output)
        self.parts = parts
        self._name = job.split
        self._settings = settings
        self._done: dict[int, dict[str, Any]] = {}
        if self.directory.exists() and not self.directory.is_dir():
            raise UserError(f"--output={self.directory} is a file; name a folder")
        self._load()

    def shard_path(self, index: int) -> pathlib.Path:
        return self.directory / schema.shard_name(self._name, index, len(self.parts))

    def missing(self) -> list[int]:
        """Indices of the shards that are not there yet."""
        return [index for index in range(len(self.parts)) if index not in self._done]

    def add(self, index: int, counts: dict[str, Any], rejects: list[list[str]]) -> None:
        """Records that a shard is written, in the rejects file and in the summary."""
        self._done[index] = counts
        kept = [row for row in self._read_rejects()
                if row[1] != self._name or row[0] in self._ids(set(self._done) - {index})]
        rows = sorted([*kept, *rejects])
        if rows or self._rejects_path.exists():
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([_REJECT_COLUMNS, *rows])
            files.write_atomic(self._rejects_path,
                               text.getvalue().encode("utf-8", "surrogateescape"))
        files.write_atomic(self._summary_path, json.dumps(self.summary(), indent=2) + "\n")

    def summary(self) -> dict[str, Any]:
        shards = [self._done[index] for index in sorted(self._done)]
        totals = {key: sum(shard[key] for shard in shards) for key in _COUNTS}
        reasons = collections.Counter()
        for shard in shards:
            reasons.update(shard["reasons"])
        return {
            "split": self._name,
            "complete": not self.missing(),
            **(totals | {"seconds": round(totals["seconds"], 3)}),
            "reasons": dict(reasons.most_common()),
            "fps": self._settings["fps"],
            "min_side": self._settings["min_side"],
            "flow": self._settings["flow"],
            "settings": self._settings,
            "shards": shards,
        }

    def remove_records(self) -> None:
        """Removes what says that there are records; the rejects stay."""
        for index in self._done:
            self.shard_path(index).unlink(missing_ok=True)
        self._summary_path.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Removes the temporary files of a conversion that was killed."""
        ours = re.compile(rf"\.{re.escape(self._name)}(-\d{{5}}-of-\d{{5}})?\.\d+\.tmp\.")
        for path in self.directory.glob(".*.tmp.*"):
            if ours.match(path.name):
                path.unlink(missing_ok=True)

    @property
    def _summary_path(self) -> pathlib.Path:
        return self.directory / schema.summary_name(self._name)

    @property
    def _rejects_path(self) -> pathlib.Path:
        return self.directory / schema.REJECTS_FILE

    def _ids(self, shards: set[int]) -> set[str]:
        return {entry.id for index in shards for entry in self.parts[index]}

    def _load(self) -> None:
        if not self._summary_path.exists():
            strays = sorted(self.directory.glob(f"{self._name}-*-of-*.tfrecord"))
            if strays:
                raise UserError(f"{strays[0]} is there, but {self._summary_path.name}, which says "
                                "how it was made, is not; choose another --output, or remove the "
                                "shards of this split")
            return
        try:
            saved = json.loads(self._summary_path.read_text(encoding="utf-8"))
            settings = saved["settings"]
            shards = {shard["index"]: shard for shard in saved["shards"]}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._summary_path} is not the summary of a conversion; remove it "
                            "together with the shards of this split") from error
        differing = [f"{key}: {settings.get(key)} there, {value} asked for"
                     for key, value in self._settings.items() if settings.get(key) != value]
        if differing:
            raise UserError(f"{self.directory} holds the split {self._name!r} with other settings "
                            f"({'; '.join(differing)}); choose another --output or --split, or "
                            f"remove {self._summary_path.name} and the split's shards")
        self._done = {index: shard for index, shard in shards.items()
                      if self.shard_path(index).exists()}
        for leftover in self.directory.glob(f".{self._name}-*.tmp.tfrecord"):
            leftover.unlink()

    def _read_rejects(self) -> list[list[str]]:
        if not self._rejects_path.exists():
            return []
        with open(self._rejects_path, newline="", encoding="utf-8",
                  errors="surrogateescape") as file:
            rows = list(csv.reader(file))
        return [row for row in rows[1:] if len(row) == len(_REJECT_COLUMNS)]


def _write_shards(job: Conversion, split: _Split, shards: list[int],
                  indices: dict[str, int]) -> None:
    """Converts the videos of the given shards and writes these one after the other."""
    jobs = [encoding.VideoJob(entry.path, entry.start, entry.end, job.options)
            for index in shards for entry in split.parts[index]]
    # Here, since importing TensorFlow takes seconds that wrong input should not cost, and the
    # worker processes need none of it.
    from elo_tf.data import records

    dataset = pathlib.Path(os.path.abspath(job.source)).stem

    def examples(part: list[manifest.Entry], counts: dict[str, Any],
                 rejects: list[list[str]]) -> Iterator[bytes]:
        for entry in part:
            _, clip = next(results)
            bar.update()
            if isinstance(clip, Exception):
                rejects.append([entry.id, job.split, *_reason(clip)])
                continue
            _count(counts, clip, entry)
            yield records.encode_example(
                clip, example_id=entry.id, path=entry.relative, dataset=dataset,
                label=indices.get(entry.label), label_name=entry.label)

    with (contextlib.closing(parallel.map_jobs(
              encoding.encode_video, jobs, min(job.workers, len(jobs)),
              timeout=JOB_SECONDS)) as results,
          cli.progress(total=len(jobs), desc=f"converting {job.split}", unit="video") as bar):
        for index in shards:
            counts = {"index": index, "name": split.shard_path(index).name,
                      **dict.fromkeys(_COUNTS, 0)}
            rejects: list[list[str]] = []
            records.write_shard(split.shard_path(index),
                                examples(split.parts[index], counts, rejects))
            counts["rejected"] = len(rejects)
            counts["reasons"] = dict(collections.Counter(row[2] for row in rejects))
            split.add(index, counts, rejects)


def _reason(error: Exception) -> tuple[str, str]:
    """A reject's reason and detail, the latter on one line."""
    if isinstance(error, media.MediaError):
        reason, detail = error.reason, error.detail
    elif isinstance(error, parallel.WorkerDiedError):
        reason, detail = "crashed", str(error)
    else:
        reason, detail = "failed", f"{type(error).__name__}: {error}"
    return reason, " ".join(detail.split())


def _count(counts: dict[str, Any], clip: encoding.EncodedClip, entry: manifest.Entry) -> None:
    counts["converted"] += 1
    counts["seconds"] = round(counts["seconds"] + clip.seconds, 6)
    counts["frames"] += len(clip.images)
    counts["with_audio"] += clip.audio is not None
    counts["silent"] += clip.silent
    counts["with_flow"] += clip.flows is not None
    counts["labelled"] += entry.label is not None
    counts["damaged"] += clip.damaged
    counts["cut"] += clip.cut
