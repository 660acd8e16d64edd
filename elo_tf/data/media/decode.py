"""Decodes one video file with PyAV: clips of frames at a constant rate, and their sound.

Time 0 is the moment the first frame is shown. Output frame k of a clip is the picture on show
k / fps seconds after the clip's begin, and the waveform has the same begin and length. Clips are
given while the file is being decoded, so that memory does not grow with its length. Files come from
anywhere: `container.py` says what is opened at all.
"""

import os
from collections.abc import Iterator

from elo_tf.data.media.container import Limits, MediaError, open_file
from elo_tf.data.media.frames import Region
from elo_tf.data.media.reader import DecodedClip, Reader, SeekMissedError, Wanted

__all__ = ["VIDEO_SUFFIXES", "DecodedClip", "Limits", "MediaError", "decode_clips"]

VIDEO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".gif", ".m1v", ".m2ts", ".m2v", ".m4v",
    ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".ogg", ".ogv", ".rm", ".rmvb", ".ts",
    ".vob", ".webm", ".wmv", ".y4m",
})

_SEEK_FROM = 5.0
"""Seconds; for an earlier start, decoding from the beginning is as fast as seeking."""


def decode_clips(path: str | os.PathLike, *, fps: float, min_side: int,
                 start: float | None = None, end: float | None = None,
                 clip_seconds: float | None = None, stride_seconds: float | None = None,
                 min_frames: int = 2, limits: Limits | None = None,
                 region: Region | None = None) -> Iterator[DecodedClip]:
    """Decodes a video file, or the part of it between `start` and `end`, to one clip or several.

    Clip i begins at `start + i * stride_seconds`. The last one may be shorter, but not shorter than
    half a clip unless it is the only one, and only where it shows what the one before it does not.
    Rotation, mirroring and non-square pixels are corrected, and frames are resized (by area where
    they shrink) so that the shorter side is `min_side`. Where two frames lie more than 300 s apart,
    the time stamps are taken to be wrong, and the video ends there, damaged (our choice).

    Args:
      path: the file.
      fps: frames a second of the result.
      min_side: shorter side of the result, in pixels.
      start: first second used; None for the beginning.
      end: second before which to stop; None for the end.
      clip_seconds: length of a clip; None for one clip of all that is used.
      stride_seconds: from the begin of one clip to that of the next; None for `clip_seconds`.
      min_frames: a first clip with fewer frames is an error, a later one is left out.
      limits: what the file may cost.
      region: the part of the upright picture that is kept, as shares (left, top, width, height);
        its shorter side becomes `min_side`. None for all of it.

    Yields:
      The clips in order, each as soon as it has been decoded.

    Raises:
      MediaError: with the reason, if the file cannot be used; possibly after some clips.
    """
    stride = clip_seconds if stride_seconds is None else stride_seconds
    if clip_seconds is not None and stride is not None and min(clip_seconds, stride) <= 0:
        raise ValueError(f"clips of {clip_seconds:g} s every {stride:g} s")
    wanted = Wanted(fps, min_side, start or 0.0, float("inf") if end is None else end,
                    clip_seconds, stride, min_frames, limits or Limits(), region)
    path = os.fspath(path)
    if wanted.start > _SEEK_FROM:
        try:
            with open_file(path, wanted.limits) as file:
                yield from Reader(file, wanted).read(seek=file.indexed)
            return
        except SeekMissedError:
            pass
    with open_file(path, wanted.limits) as file:
        yield from Reader(file, wanted).read(seek=False)
