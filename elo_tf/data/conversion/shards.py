"""Writes shards: worker processes decode and encode, this process assembles and writes records.

The same code runs for shards on this machine and for one shard of a task on another. What a shard
holds, and in which order, is planned before; nothing of it depends on the workers.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from elo_tf import parallel
from elo_tf.data import encoding, manifest, media

STAGES = (*encoding.STAGES, "write")
"""What the seconds that a shard takes are counted under."""

COUNTS = ("videos", "converted", "rejected", "clips", "seconds", "frames", "with_audio", "silent",
          "with_flow", "labelled", "damaged", "cut", "bytes")
"""Counts of a shard that add up. `damaged` and `cut` are videos, as are the first three; what
follows `clips` are clips, up to `labelled`."""

TALLIES = ("reasons", "incomplete", "source_fps", "sizes", "stage_seconds")
"""Counts of a shard by a name: reasons of videos that were rejected, and of those that were used
as far as they could be; videos by their frame rate; clips by their stored size; seconds by stage,
summed over the workers."""


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """What goes into one shard.

    Attributes:
      index: of the shard.
      path: the shard's file.
      dataset: name of the data set.
      entries: the videos, in order.
      labels: index of each label.
      options: how each video is converted.
      melspec: whether log-mel spectrograms are stored.
    """

    index: int
    path: str
    dataset: str
    entries: Sequence[manifest.Entry]
    labels: dict[str, int]
    options: encoding.VideoOptions
    melspec: bool = False

    def jobs(self) -> Iterator["_Job"]:
        """One for each entry."""
        for entry in self.entries:
            yield _Job(encoding.VideoJob(entry.path, entry.start, entry.end, self.options),
                       self.melspec)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a worker process may take.

    Attributes:
      seconds: that may pass without a clip; the video is rejected.
      gigabytes: of memory; the video is rejected.
    """

    seconds: float = 600.0
    gigabytes: float = 4.0


def write_shards(plans: Sequence[ShardPlan], workers: int, limits: Limits,
                 progress: Callable[[int, int, float], None] | None = None
                 ) -> Iterator[dict[str, Any]]:
    """Converts the videos of some shards; several shards are written at a time.

    Args:
      plans: what goes into the shards.
      workers: processes that decode; 0 for this process alone, without the limits.
      limits: of each process.
      progress: called with the videos, clips and seconds that are done since the last call.

    Yields:
      Each shard's counts once it is whole: `index`, `name`, `largest_record` in bytes, `COUNTS`,
      `TALLIES`, and `rejects`, rows of id, reason and detail.

    Raises:
      UserError: if a shard cannot be written.
    """
    report = progress or (lambda videos, clips, seconds: None)
    writers: dict[int, _ShardWriter] = {}
    messages = parallel.stream_jobs(
        _encode, [plan.jobs() for plan in plans], workers, timeout=limits.seconds,
        memory=round(limits.gigabytes * 2**30))
    try:
        for message in messages:
            if message.lane not in writers:
                writers[message.lane] = _ShardWriter(plans[message.lane], limits)
            writer = writers[message.lane]
            if not message.last:
                clip, log_mel = message.item
                writer.add(clip, log_mel)
                report(0, 1, clip.seconds)
                continue
            writer.end_video(message.item)
            report(1, 0, 0.0)
            if writer.complete:
                del writers[message.lane]
                yield writer.close()
    finally:
        messages.close()
        for writer in writers.values():
            writer.abort()


def write_shard(plan: ShardPlan, limits: Limits) -> dict[str, Any]:
    """Converts the videos of one shard, with one process for the decoding; see `write_shards`."""
    [counts] = write_shards([plan], 1, limits)
    return counts


@dataclasses.dataclass(frozen=True)
class _Job:
    video: encoding.VideoJob
    melspec: bool


def _encode(job: _Job) -> Iterator[tuple[encoding.EncodedClip, np.ndarray | None]]:
    """Gives each clip of a video, and its log-mel spectrogram if wanted: what a worker does."""
    try:
        for clip in encoding.encode_video(job.video):
            log_mel = None
            if job.melspec and clip.audio is not None:
                # Here, since SciPy takes as long to import as a worker's other libraries together.
                from elo_tf.data import melspec

                log_mel = melspec.log_mel_seconds(clip.audio)
            yield clip, log_mel
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        raise MemoryError(str(error)) from error  # Some libraries' own do not pickle.


class _ShardWriter:
    """A shard that is being written, and what is counted."""

    def __init__(self, plan: ShardPlan, limits: Limits):
        # Here, since importing TensorFlow takes seconds that wrong input should not cost, and the
        # worker processes need none of it.
        from elo_tf.data import records

        self._encode_example = records.encode_example
        self._plan = plan
        self._limits = limits
        self._file = records.ShardFile(plan.path)
        # Any: those of seconds are no whole numbers.
        self._counts: Any = collections.Counter(
            dict.fromkeys(COUNTS, 0) | {"videos": len(plan.entries)})
        self._tallies: dict[str, Any] = {name: collections.Counter() for name in TALLIES}
        self._tallies["stage_seconds"].update(dict.fromkeys(STAGES, 0.0))
        self._rejects: list[list[str]] = []
        self._done = 0
        self._video = _Video()

    @property
    def complete(self) -> bool:
        """Whether all videos are in it."""
        return self._done == len(self._plan.entries)

    def add(self, clip: encoding.EncodedClip, log_mel: np.ndarray | None) -> None:
        """Writes a clip of the video that is next."""
        began = time.perf_counter()
        entry = self._plan.entries[self._done]
        example_id = entry.id
        if self._plan.options.clip_seconds is not None and not self._plan.options.images:
            example_id += (f"/{manifest.decimal(clip.start)}-"
                           f"{manifest.decimal(clip.start + clip.seconds)}")
        self._file.write(self._encode_example(
            clip, example_id=example_id, path=entry.relative, dataset=self._plan.dataset,
            label=None if entry.label is None else self._plan.labels.get(entry.label),
            label_name=entry.label,
            caption=entry.caption, melspec=log_mel))
        self._counts.update(
            clips=1, seconds=clip.seconds, frames=len(clip.images), silent=clip.silent,
            with_audio=clip.audio is not None, with_flow=clip.flows is not None,
            labelled=entry.label is not None)
        self._tallies["sizes"][f"{clip.width}x{clip.height}"] += 1
        self._tallies["stage_seconds"].update(clip.seconds_spent)
        self._tallies["stage_seconds"]["write"] += time.perf_counter() - began
        self._video.clips += 1
        self._video.seconds += clip.seconds
        self._video.damaged |= clip.damaged
        self._video.cut |= clip.cut
        self._video.source_fps = clip.source_fps

    def end_video(self, error: Exception | None) -> None:
        """Counts a video whose clips are all written, and why it ended if not by itself."""
        entry, video = self._plan.entries[self._done], self._video
        self._done += 1
        self._video = _Video()
        if error is not None:
            reason, detail = reject_reason(error, self._limits)
            if video.clips:
                detail = (f"used in part: {video.clips} clips of {video.seconds:g} s altogether; "
                          f"then: {detail}")
            self._rejects.append([entry.id, reason, detail])
            self._tallies["incomplete" if video.clips else "reasons"][reason] += 1
        if video.clips:
            self._counts.update(converted=1, cut=video.cut,
                                damaged=video.damaged or error is not None)
            rate = f"{video.source_fps:.2f}".rstrip("0").rstrip(".")
            self._tallies["source_fps"][rate if video.source_fps else "unknown"] += 1
        else:
            self._counts["rejected"] += 1

    def close(self) -> dict[str, Any]:
        """Completes the file and returns the counts."""
        began = time.perf_counter()
        self._file.close()
        stages = self._tallies["stage_seconds"]
        stages["write"] += time.perf_counter() - began
        for name, seconds in stages.items():
            stages[name] = round(seconds, 3)
        return {
            "index": self._plan.index,
            "name": self._file.path.name,
            **self._counts,
            "seconds": round(self._counts["seconds"], 6),
            "bytes": self._file.bytes,
            "largest_record": self._file.largest,
            **{name: dict(sorted(tally.items())) for name, tally in self._tallies.items()},
            "rejects": self._rejects,
        }

    def abort(self) -> None:
        """Removes what was written."""
        self._file.abort()


@dataclasses.dataclass
class _Video:
    """What is known of the clips of the video that is being written."""

    clips: int = 0
    seconds: float = 0.0
    damaged: bool = False
    cut: bool = False
    source_fps: float = 0.0


def reject_reason(error: Exception, limits: Limits) -> tuple[str, str]:
    """A reject's reason and detail, the latter on one line."""
    if isinstance(error, media.MediaError):
        reason, detail = error.reason, error.detail
    elif isinstance(error, parallel.WorkerHungError):
        reason, detail = "timeout", f"no clip came for {limits.seconds:g} s"
    elif isinstance(error, parallel.WorkerDiedError):
        reason, detail = "crashed", f"{error}, twice"
    elif isinstance(error, MemoryError):
        reason, detail = "out_of_memory", f"more than {limits.gigabytes:g} GB are needed ({error})"
    else:
        reason, detail = "failed", f"{type(error).__name__}: {error}"
    return reason, " ".join(detail.split())
