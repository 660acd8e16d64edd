"""Clips of a video, spread evenly over all of it, while only these are held in memory.

How long a video is has to be known before its first clip is cut. What the file declares is taken
at its word; where clips are then missing, or it declares nothing, the video is decoded once for its
length and a second time for its clips.
"""

import dataclasses
import functools
from collections.abc import Generator, Iterator

import numpy as np

from elo_tf.data import media
from elo_tf.data.media import container

_LONGEST = 24 * 3600.0
"""Seconds of a video that are used at most (our choice)."""

_SEEK_OVER = 10.0
"""Seconds from a clip to the next from which on seeking is faster than decoding what is between."""

_TOLERANCE = 0.002
"""Seconds, as times in containers are rounded."""


@dataclasses.dataclass(frozen=True)
class Job:
    """Which clips of a video are wanted. Of a short video there are fewer.

    Attributes:
      path: the file.
      start: first second used, or None.
      end: second before which to stop, or None.
      windows: how many clips, spread evenly; a single one is the middle.
      frames: of a clip.
      fps: frames a second.
      side: of the square in pixels, the shorter side of the whole picture.
      inner: side of the central square that will be cut out of it later. The square lies so that
        this is the centre of the whole picture, to the pixel.
      max_pixels: files with larger frames are refused.
    """

    path: str
    start: float | None
    end: float | None
    windows: int
    frames: int
    fps: float
    side: int
    inner: int
    max_pixels: int = media.Limits.max_pixels

    @property
    def limits(self) -> media.Limits:
        """What the video may cost."""
        return media.Limits(max_seconds=_LONGEST, max_pixels=self.max_pixels)


@dataclasses.dataclass
class Window:
    """A clip.

    Attributes:
      frames: uint8 [T, side, side, 3]; a video shorter than a clip starts again.
      start: where it begins, in seconds of the video.
      end: where it ends.
      damaged: parts of the file could not be decoded meanwhile.
    """

    frames: np.ndarray
    start: float
    end: float
    damaged: bool


def read_windows(job: Job) -> Iterator[Window | None]:
    """Decodes the clips of a video: what a worker process does.

    Args:
      job: the video and what is wanted of it.

    Yields:
      The clips in order, at least one; before them None, now and then, as a sign of life.

    Raises:
      MediaError: with the reason, if the file cannot be used.
    """
    declared, indexed = _declared(job)
    clips: list[Window] = []
    whole, error = False, None
    if declared is not None:
        clips, whole, error = _cut(job, declared, indexed)
    if not whole:
        try:
            # The last frame may not be shown for its whole time.
            known = max((yield from _count(job)) - 1, 1)
            again, _, error = _cut(job, known, indexed)
            clips = again or clips
        except media.MediaError as failed:
            error = failed
    if not clips:
        raise error or media.MediaError("undecodable", "nothing of it is shown")
    for clip in clips:
        clip.damaged |= error is not None
        yield clip


def _declared(job: Job) -> tuple[int | None, bool]:
    """Frames that the file declares to have, None if unknown, and whether seeking is fast."""
    with container.open_file(job.path, job.limits) as file:
        declared, indexed = file.declared_end(), file.indexed
    if declared is None:
        return None, indexed
    seconds = declared[1] - declared[0]
    if job.end is not None:
        seconds = min(seconds, job.end)
    seconds = min(seconds - (job.start or 0.0), _LONGEST)
    return (int((seconds + _TOLERANCE) * job.fps) if seconds > 0 else None), indexed


def _count(job: Job) -> Generator[None, None, int]:
    """Decodes all of the video and returns how many frames it has, of which the last may be short.

    Yields:
      None, now and then.
    """
    count = 0
    for clip in media.decode_clips(
            job.path, fps=job.fps, min_side=16, start=job.start, end=job.end,
            clip_seconds=2 / job.fps, min_frames=1, limits=job.limits):
        before, count = count, count + len(clip.frames)
        if before // 1000 < count // 1000:
            yield None
    return count


def _cut(job: Job, known: int, indexed: bool
         ) -> tuple[list[Window], bool, media.MediaError | None]:
    """Cuts the clips of a video.

    Args:
      job: the video and what is wanted of it.
      known: frames of the video.
      indexed: whether seeking is fast.

    Returns:
      Those that are there, whether these are all and whole, and the error that ended them.
    """
    room = max(known - job.frames, 0)
    count = min(job.windows, room + 1)
    stride = room // (count - 1) if count > 1 else 1
    first = (room - stride * (count - 1)) // 2
    clips: list[Window] = []
    error = None
    try:
        for clip in _decode(job, first, stride, count, indexed):
            clips.append(_window(job, clip))
    except media.MediaError as failed:
        error = failed
    wanted = min(job.frames, known) / job.fps
    whole = len(clips) == count and all(
        clip.end - clip.start > wanted - _TOLERANCE for clip in clips)
    return clips, whole, error


def _decode(job: Job, first: int, stride: int, count: int,
            indexed: bool) -> Iterator[media.DecodedClip]:
    """The clips that begin at frame `first + i * stride`."""
    decode = functools.partial(media.decode_clips, job.path, fps=job.fps, min_side=job.side,
                               min_frames=1, limits=job.limits)
    begin, seconds = (job.start or 0.0) + first / job.fps, job.frames / job.fps
    stop = float("inf") if job.end is None else job.end
    if count > 1 and indexed and stride / job.fps > _SEEK_OVER:
        for index in range(count):
            start = begin + index * stride / job.fps
            yield from decode(start=start, end=min(start + seconds, stop))
        return
    yield from decode(
        start=begin, end=min(begin + (count - 1) * stride / job.fps + seconds, stop),
        clip_seconds=seconds, stride_seconds=stride / job.fps)


def _window(job: Job, clip: media.DecodedClip) -> Window:
    height, width, _ = clip.frames[0].shape
    margin = (job.side - job.inner) // 2
    top, left = (max((x - job.inner) // 2 - margin, 0) for x in (height, width))
    square = [x[top:top + job.side, left:left + job.side] for x in clip.frames]
    return Window(
        np.stack([square[i % len(square)] for i in range(job.frames)]), clip.start,
        clip.start + len(square) / clip.fps, clip.damaged)
