"""Converts the videos of one split to TFRecord shards: what goes where, and which engine does it.

Which video goes into which shard, and at which place, depends on the names of the videos and a
seed, never on the workers. After each shard the split's file is saved, so that an interrupted
conversion goes on with the shards that are left.
"""

import collections
import dataclasses
import functools
import hashlib
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

from elo_tf import cli
from elo_tf.data import encoding, manifest, schema
from elo_tf.data.conversion import shards as conversion_shards
from elo_tf.data.conversion import summary as conversion_summary
from elo_tf.data.conversion.shards import Limits, ShardPlan
from elo_tf.data.conversion.state import SplitState, alone, naming_output, write_rejects
from elo_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What to convert, and how.

    Attributes:
      source: a folder of videos or a CSV file, see `manifest.py`.
      output: the folder for the records.
      split: name of the split; the first part of the shards' names.
      shards: number of shards; 0 for the square root of the number of videos.
      labels: "none" or "folders".
      video_root: the folder that the paths of a CSV are relative to; None for the CSV's own.
      label_map: a file with the labels in order; None for the one beside the CSV, or for sorted
        labels.
      options: how each video is converted.
      melspec: whether log-mel spectrograms are stored too, see `melspec.py`.
      workers: processes that decode; 0 for this process alone, without `limits`. With Ray on this
        machine, the number of tasks at a time.
      limits: what each of these processes may take.
      engine: "local", or "ray" for a task for each shard on a cluster, whose machines all see the
        input and the output at the same paths.
      ray_address: of a running cluster; None to start Ray on this machine.
      seed: of the order in which the videos are written.
    """

    source: str
    output: str
    split: str
    shards: int = 0
    labels: str = "none"
    video_root: str | None = None
    label_map: str | None = None
    options: encoding.VideoOptions = dataclasses.field(default_factory=encoding.VideoOptions)
    melspec: bool = False
    workers: int = 1
    limits: Limits = dataclasses.field(default_factory=Limits)
    engine: str = "local"
    ray_address: str | None = None
    seed: int = 0


def convert(job: Conversion) -> dict[str, Any]:
    """Runs a conversion, or the part of it that an earlier run left.

    Args:
      job: what to convert, and how.

    Returns:
      The split's summary as saved in `<split>.json`, and `unchanged`: True if there was nothing
      left to do.

    Raises:
      UserError: if no video can be used, the output holds this split with other settings, cannot
        be written, or another process is converting the split.
    """
    if schema.summary_name(job.split) == conversion_summary.SUMMARY_FILE:
        raise UserError(f"--split={job.split} would be saved as {conversion_summary.SUMMARY_FILE}, "
                        "which describes all splits; choose another name")
    listing = manifest.read_manifest(job.source, job.labels, images=job.options.images,
                                     video_root=job.video_root)
    if listing.ignored:
        found = ", ".join(f"{n} {suffix}" for suffix, n in sorted(listing.ignored.items()))
        logging.info("Ignoring files of other kinds: %s", found)
    labels = manifest.label_map(job.output, listing.labels, job.label_map or listing.label_file)
    parts = _partition(listing.entries, job)
    state = SplitState(job.output, job.split, _settings(job, listing.entries, len(parts)), parts)
    missing = state.missing()
    if missing:
        with alone(state.directory, job.split):
            new_labels = not (state.directory / schema.LABELS_FILE).exists()
            with naming_output(state.directory):
                state.begin()
                manifest.write_labels(state.directory, labels)
            _write_shards(job, state, missing, labels)
            with naming_output(state.directory):
                write_rejects(state.directory)
            summary = state.summary()
            if not summary["converted"]:
                state.remove_records()
                if new_labels:
                    (state.directory / schema.LABELS_FILE).unlink(missing_ok=True)
                reason, count = collections.Counter(summary["reasons"]).most_common(1)[0]
                raise UserError(
                    f"none of the {len(listing.entries)} videos in {job.source} can be used; most "
                    f"frequent reason: {reason} ({count}); see "
                    f"{state.directory / schema.REJECTS_FILE}")
    with naming_output(state.directory):
        conversion_summary.write_summary(state.directory)
    return state.summary() | {"unchanged": not missing}


def _partition(entries: Sequence[manifest.Entry], job: Conversion) -> list[list[manifest.Entry]]:
    """Distributes the videos over the shards, each of which gets a mixture."""
    shards = job.shards or max(1, int(len(entries) ** 0.5))
    if shards > len(entries):
        raise UserError(f"--shards={shards}, but there are only {len(entries)} videos, and no "
                        f"shard may be empty; use --shards={len(entries)} or fewer")

    def rank(entry: manifest.Entry) -> bytes:
        return hashlib.sha256(os.fsencode(f"{job.seed}:{entry.id}")).digest()

    mixed = sorted(entries, key=rank)
    return [mixed[index::shards] for index in range(shards)]


def _settings(job: Conversion, entries: Sequence[manifest.Entry], shards: int) -> dict[str, Any]:
    """All that the records depend on, to tell a run to go on with from a different one."""
    digest = hashlib.sha256()
    for entry in entries:
        try:
            size = os.stat(entry.path).st_size
        except OSError:
            size = -1
        digest.update(os.fsencode(f"{entry.id}|{entry.label}|{entry.caption}|{size}\n"))
    options = dataclasses.asdict(job.options)
    region = options.pop("region")
    return options.pop("limits") | options | {
        "region": None if region is None else list(region),  # As JSON has it.
        "melspec": job.melspec,
        "shards": shards,
        "seed": job.seed,
        "dataset": _dataset(job),
        "videos": f"{len(entries)} ({digest.hexdigest()[:12]})",
    }


def _dataset(job: Conversion) -> str:
    return pathlib.Path(os.path.abspath(job.source)).stem


def _write_shards(job: Conversion, state: SplitState, missing: Sequence[int],
                  labels: dict[str, int]) -> None:
    """Writes the shards that are missing, and saves the state after each."""
    # Whole paths, since a task of another machine has another working folder.
    plans = [ShardPlan(index, os.path.abspath(state.shard_path(index)), _dataset(job),
                       [_absolute(entry) for entry in state.parts[index]], labels, job.options,
                       job.melspec)
             for index in missing]
    videos = sum(len(plan.entries) for plan in plans)
    with cli.progress(total=videos, desc=f"converting {job.split}", unit="video") as bar:
        progress = _Progress(bar)
        for counts in _engine(job, plans, progress):
            with naming_output(state.directory):
                state.add(counts)
    state.remove_leftovers()


def _absolute(entry: manifest.Entry) -> manifest.Entry:
    return dataclasses.replace(entry, path=os.path.abspath(entry.path))


class _Progress:
    """Shows videos a second, and beside them clips and how much faster than real time it goes."""

    def __init__(self, bar: Any):
        self._bar = bar
        self._began = self._shown = time.monotonic()
        self._clips = 0
        self._seconds = 0.0

    def add(self, videos: int, clips: int, seconds: float) -> None:
        """Counts videos and clips that are done."""
        self._clips += clips
        self._seconds += seconds
        now = time.monotonic()
        speed = self._seconds / max(now - self._began, 1e-9)
        self._bar.set_postfix_str(f"{self._clips} clips, {speed:.0f}x real time", refresh=False)
        if videos:
            self._bar.update(videos)
        elif now - self._shown > self._bar.mininterval:  # Of a long video there are many clips.
            self._shown = now
            self._bar.refresh()


def _engine(job: Conversion, plans: Sequence[ShardPlan],
            progress: _Progress) -> Iterator[dict[str, Any]]:
    """Yields the counts of each shard once it is whole, in any order."""
    if job.engine == "local":
        videos = sum(len(plan.entries) for plan in plans)
        yield from conversion_shards.write_shards(
            plans, min(job.workers, videos), job.limits, progress.add)
        return
    from elo_tf import parallel_ray

    write = functools.partial(conversion_shards.write_shard, limits=job.limits)
    with parallel_ray.cluster(job.ray_address, max(job.workers, 1)):
        for _, counts in parallel_ray.run_tasks(write, plans):
            if isinstance(counts, Exception):
                raise counts
            progress.add(counts["videos"], counts["clips"], counts["seconds"])
            yield counts
