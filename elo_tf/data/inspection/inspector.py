"""Inspects whole record sets: every record of every shard, and what only the set shows.

Shards are inspected in processes of their own, one job each. A shard that cannot be read to its end
is reported and costs nothing else; so does a record that is wrong. Works on records of others too:
any TFRecord files of SequenceExamples with the keys of MediaSequence or DMVR.
"""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from elo_tf import parallel
from elo_tf.data import manifest, schema
from elo_tf.data.inspection import record_checks
from elo_tf.data.inspection.record_values import ERROR, WARNING, Facts
from elo_tf.data.record_set import FRAMING_BYTES, SHARD
from elo_tf.errors import UserError

SUFFIXES = (".tfrecord", ".tfrecords")
HEADER_BYTES = 12  # of a TFRecord's framing, before the record: its length and a checksum
MOSTLY_SILENT = 0.5
WORKER_BYTES = 32e6  # a process more is started for each of these: starting takes seconds


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that is wrong with a record, a shard or a set.

    Attributes:
      level: "error" or "warning".
      check: a short stable name of what was checked.
      message: what is wrong, and how to mend it.
      split: of which set.
      shard: name of the file; "" for the set.
      record: number in the shard, counted from 0; None for the shard.
      id: of the clip.
      offset: where the record begins in the shard, in bytes.
    """

    level: str
    check: str
    message: str
    split: str = ""
    shard: str = ""
    record: int | None = None
    id: str = ""
    offset: int | None = None

    @property
    def where(self) -> str:
        """The record's name, such as `train-00003-of-00010.tfrecord record 17 (id 'a/b.mp4')`."""
        where = self.shard or f"split {self.split!r}"
        if self.record is not None:
            where += f" record {self.record}"
        return where + (f" (id {self.id!r})" if self.id else "")


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """One shard to inspect."""

    path: str
    split: str
    names: tuple[str, ...] | None
    limit: int = 0


@dataclasses.dataclass
class ShardReport:
    """What one shard holds.

    Attributes:
      path: of the file.
      split: of which set.
      size: in bytes.
      facts: of each record that could be read.
      offsets: where each of them begins.
      flow_codes: {clip in pixels: counts of the codes, see `Facts`}.
      problems: in the order in which they were found.
      whole: whether the shard was read to its end.
    """

    path: str
    split: str
    size: int = 0
    facts: list[Facts] = dataclasses.field(default_factory=list)
    offsets: list[int] = dataclasses.field(default_factory=list)
    flow_codes: dict[float, np.ndarray] = dataclasses.field(default_factory=dict)
    problems: list[Problem] = dataclasses.field(default_factory=list)
    whole: bool = True

    @property
    def name(self) -> str:
        """Of the file, without its folder."""
        return os.path.basename(self.path)


@dataclasses.dataclass
class RecordSet:
    """The shards of one split.

    Attributes:
      split: its name.
      directory: where they lie.
      paths: of the shards, sorted.
      whole: whether all shards of the split should be there.
      names: the label map, None without one.
      problems: of the set as such.
      reports: of the shards, in their order.
    """

    split: str
    directory: pathlib.Path
    paths: list[pathlib.Path]
    whole: bool = True
    names: tuple[str, ...] | None = None
    problems: list[Problem] = dataclasses.field(default_factory=list)
    reports: list[ShardReport] = dataclasses.field(default_factory=list)

    def add(self, level: str, check: str, message: str, **place: Any) -> None:
        """Adds a problem."""
        self.problems.append(Problem(level, check, message, split=self.split, **place))

    def all_problems(self) -> list[Problem]:
        """Those of the set, then those of its shards."""
        return self.problems + [problem for report in self.reports for problem in report.problems]


def find_sets(sources: Sequence[str | os.PathLike], split: str = "") -> list[RecordSet]:
    """Finds the record sets in folders, or made of the shards named.

    Args:
      sources: folders and files.
      split: only this one; all if empty.

    Returns:
      One set for each split of each folder, at least one.

    Raises:
      UserError: if there is nothing to inspect.
    """
    sets = []
    for source in map(pathlib.Path, sources):
        if not source.exists():
            raise UserError(f"--records={source} does not exist; name a folder of records, or a "
                            "shard")
        if source.is_dir():
            paths = sorted(path for path in source.iterdir() if _is_shard(path))
        else:
            paths = [source]
        grouped: dict[str, list[pathlib.Path]] = {}
        for path in paths:
            match = SHARD.search(path.name)
            name = path.name[:match.start()] if match else path.stem
            grouped.setdefault(name, []).append(path)
        if not grouped:
            raise UserError(f"{source} holds no record shards (names such as "
                            f"{schema.shard_name('train', 0, 10)}); make some with "
                            "tools/convert_videos, or name the files themselves")
        sets += [RecordSet(name, source if source.is_dir() else source.parent, found,
                           whole=source.is_dir()) for name, found in grouped.items()]
    chosen = [found for found in sets if split in ("", found.split)]
    if not chosen:
        raise UserError(f"there is no split {split!r}, only "
                        f"{', '.join(sorted({found.split for found in sets}))}")
    return _merged(chosen)


def _is_shard(path: pathlib.Path) -> bool:
    named = SHARD.search(path.name) or path.suffix in SUFFIXES
    return bool(named) and not path.name.startswith(".") and path.is_file()


def _merged(sets: list[RecordSet]) -> list[RecordSet]:
    """One set for each folder and split, each with its label map."""
    merged: dict[tuple[pathlib.Path, str], RecordSet] = {}
    for found in sets:
        known = merged.setdefault((found.directory, found.split), found)
        if known is not found:
            known.paths = sorted({*known.paths, *found.paths})
            known.whole |= found.whole
    for found in merged.values():
        try:
            names = manifest.read_labels(found.directory)
        except UserError as error:
            found.add(ERROR, "labels", error.message)
        else:
            found.names = None if names is None else tuple(names)
    return list(merged.values())


def inspect(sets: Sequence[RecordSet], *, workers: int = 0, limit: int = 0,
            on_shard: Callable[[ShardReport], Any] = lambda _: None) -> None:
    """Inspects all shards, and then what only the sets show.

    Args:
      sets: from `find_sets`; get the reports and the problems.
      workers: processes at most, fewer for small sets; 0 for this one.
      limit: records of each shard; 0 for all.
      on_shard: is called with each report, in the order of completion.
    """
    owners, jobs = [], []
    for found in sets:
        owners += [found] * len(found.paths)
        jobs += [ShardJob(str(path), found.split, found.names, limit) for path in found.paths]
    reports: dict[int, ShardReport] = {}
    useful = int(sum(os.path.getsize(job.path) for job in jobs) / WORKER_BYTES)
    workers = min(workers, len(jobs), useful)
    with contextlib.closing(parallel.map_jobs(
            inspect_shard, jobs, workers if workers > 1 else 0, ordered=False)) as results:
        for index, report in results:
            if isinstance(report, Exception):
                failed = ShardReport(jobs[index].path, jobs[index].split, whole=False)
                failed.problems.append(Problem(
                    ERROR, "shard", f"could not be inspected ({type(report).__name__}: {report}); "
                    "is there enough memory, and the right to read it?", split=failed.split,
                    shard=failed.name))
                report = failed
            reports[index] = report
            on_shard(report)
    for index, owner in enumerate(owners):
        owner.reports.append(reports[index])
    for found in sets:
        _check_set(found, limit)
    _check_across(sets)


def inspect_shard(job: ShardJob) -> ShardReport:
    """Inspects the records of one file."""
    report = ShardReport(job.path, job.split, os.path.getsize(job.path))
    offset = number = 0

    def add(level: str, check: str, message: str, **place: Any) -> None:
        report.problems.append(
            Problem(level, check, message, split=job.split, shard=report.name, **place))

    try:
        for data in tf.data.TFRecordDataset(job.path).as_numpy_iterator():
            facts, found = record_checks.check_record(data, job.names)
            for finding in found:
                add(*finding, record=number, id=facts.id, offset=offset)
            if facts.flow_codes is not None:
                total = report.flow_codes.setdefault(facts.flow_clip, np.zeros(65536, np.int64))
                total += facts.flow_codes
                facts.flow_codes = None
            report.facts.append(facts)
            report.offsets.append(offset)
            offset += FRAMING_BYTES + len(data)
            number += 1
            if job.limit and number >= job.limit:
                report.whole = offset == report.size
                return report
    except tf.errors.DataLossError as error:
        reason = "is cut off" if "truncated" in error.message else "fails its checksum"
    else:
        # TensorFlow takes a header that is cut off for the end of the file.
        reason = "is cut off" if offset != report.size else ""
    report.whole = not reason
    if reason:
        packed = "; the file is compressed, unpack it" if _is_gzip(job.path) else ""
        add(ERROR, "framing", f"{reason}, at byte {offset} of {report.size}{packed}; neither it "
            "nor what follows in the shard can be read: make the shard again",
            record=number, offset=offset)
    elif not number:
        add(WARNING, "empty", "holds no records")
    return report


def _is_gzip(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def read_record(report: ShardReport, number: int) -> bytes:
    """The bytes of one record of an inspected shard."""
    with open(report.path, "rb") as file:
        file.seek(report.offsets[number])
        length = int.from_bytes(file.read(8), "little")
        file.seek(HEADER_BYTES - 8, os.SEEK_CUR)
        return file.read(length)


def _check_set(found: RecordSet, limit: int) -> None:
    """What only all shards of a split show."""
    if found.whole:
        _check_shard_names(found)
    seen: dict[str, tuple[str, int]] = {}
    silent = audible = 0
    for report in found.reports:
        for number, facts in enumerate(report.facts):
            audible += facts.has_audio
            silent += facts.has_audio and record_checks.decibels(
                facts.rms) < record_checks.SILENT_DB
            if not facts.id:
                continue
            shard, first = seen.setdefault(facts.id, (report.name, number))
            if (shard, first) != (report.name, number):
                found.add(ERROR, "id", f"has the id of {shard} record {first}; convert again, each "
                          "clip once", shard=report.name, record=number, id=facts.id,
                          offset=report.offsets[number])
    if audible and silent > MOSTLY_SILENT * audible:
        found.add(WARNING, "mostly silent", f"{silent} of {audible} sounds are silent; was the "
                  "sound decoded as 32-bit floats, and not as integers?")
    if found.names is None and any(facts.labels for r in found.reports for facts in r.facts):
        found.add(WARNING, "labels", f"there are labels, but no {schema.LABELS_FILE} in "
                  f"{found.directory}; what label 0 means is only in the records")
    if found.whole and not limit:
        _check_summary(found)


def _check_shard_names(found: RecordSet) -> None:
    sets: dict[tuple[int, str], set[int]] = {}
    for path in found.paths:
        if match := SHARD.search(path.name):
            sets.setdefault((int(match[2]), match[3] or ""), set()).add(int(match[1]))
    if len(sets) > 1:
        names = " and ".join(f"{count}{suffix and f' {suffix}'}" for count, suffix in sorted(sets))
        found.add(ERROR, "shards", f"shard sets of {names} files lie in {found.directory}; remove "
                  "the old one")
        return
    for (count, suffix), indices in sets.items():
        missing = sorted(set(range(count)) - indices)
        if missing:
            name = f"{found.split}-{missing[0]:05d}-of-{count:05d}{suffix}"
            found.add(ERROR, "shards", f"{name} is missing ({len(missing)} of {count} shards "
                      "are); convert again")
        if stray := sorted(indices - set(range(count))):
            found.add(ERROR, "shards", f"there is a shard {stray[0]} of {count}, which counts "
                      "from 0; remove it")


def _check_summary(found: RecordSet) -> None:
    """The summary that tools/convert_videos writes, where there is one, counts the same."""
    path = found.directory / schema.summary_name(found.split)
    if not path.is_file():
        return
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        shards = {shard["name"]: shard["clips"] for shard in summary["shards"]}
    except (ValueError, KeyError, TypeError):
        return  # Somebody else's file of this name.
    if not summary.get("complete", True):
        found.add(ERROR, "summary", f"{path.name} says that the conversion is not finished; start "
                  "the same command again")
    for report in found.reports:
        count = shards.get(report.name)
        if report.whole and count is not None and count != len(report.facts):
            found.add(ERROR, "summary", f"holds {len(report.facts)} records, {path.name} says "
                      f"{count}; convert again", shard=report.name)
    if not all(report.whole for report in found.reports):
        return
    facts = [facts for report in found.reports for facts in report.facts]
    actual = {
        "clips": len(facts), "frames": sum(x.frames for x in facts),
        "with_audio": sum(x.has_audio for x in facts), "with_flow": sum(x.has_flow for x in facts),
        "labelled": sum(bool(x.labels) for x in facts)}
    differing = [f"{key} {summary[key]} there, {value} here" for key, value in actual.items()
                 if key in summary and summary[key] != value]
    if differing:
        found.add(ERROR, "summary", f"{path.name} counts otherwise: {'; '.join(differing)}; "
                  "convert again")


def _check_across(sets: Sequence[RecordSet]) -> None:
    """One label is one name in all splits; and a clip is in one of them."""
    meanings: dict[int, tuple[str, str]] = {}
    clips: dict[str, tuple[str, ...]] = {}
    shared: collections.Counter[tuple[str, str]] = collections.Counter()
    for found in sets:
        told = set()
        for report in found.reports:
            for number, facts in enumerate(report.facts):
                where = f"{report.name} record {number}"
                for label, name in zip(facts.labels, facts.label_names, strict=False):
                    known, first = meanings.setdefault(label, (name, where))
                    if known != name and label not in told and not found.names:
                        told.add(label)
                        found.add(ERROR, "label", f"label {label} is {name!r} here, and "
                                  f"{known!r} in {first}; make all splits with one label map",
                                  shard=report.name, record=number, id=facts.id,
                                  offset=report.offsets[number])
                owners = clips.get(facts.id, ()) if facts.id else (found.split,)
                if found.split not in owners:
                    shared.update((owner, found.split) for owner in owners)
                    clips[facts.id] = (*owners, found.split)
    labelled = {found.split for found in sets
                if any(facts.labels for report in found.reports for facts in report.facts)}
    for (first, second), count in shared.items():
        # Training without labels on the clips that another split has with labels is meant so.
        if (first in labelled) != (second in labelled):
            continue
        next(x for x in sets if x.split == second).add(
            WARNING, "id", f"{count} ids are in the split {first!r} too; are these the same clips?")
