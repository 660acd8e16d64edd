"""A video file becomes the bytes of its record: what a conversion worker does.

Needs no TensorFlow, so that worker processes start fast; `records.py` assembles the record.
"""

import dataclasses
import io

import numpy as np
from PIL import Image

from elo_tf.data import flow, media

JPEG_QUALITY = 92
PNG_COMPRESSION = 6


@dataclasses.dataclass(frozen=True)
class VideoOptions:
    """How a video is converted.

    Attributes:
      fps: frames a second that are stored.
      min_side: shorter side of the stored frames, in pixels.
      flow: "dis", or "none" for records without optical flow.
      min_frames: a video with fewer stored frames is rejected.
      limits: what one video may cost.
    """

    fps: float = 12.0
    min_side: int = 64
    flow: str = "dis"
    min_frames: int = 2
    limits: media.Limits = dataclasses.field(default_factory=media.Limits)


@dataclasses.dataclass(frozen=True)
class VideoJob:
    """One video to convert: where it is, and the part that is wanted (seconds)."""

    path: str
    start: float | None
    end: float | None
    options: VideoOptions


@dataclasses.dataclass
class EncodedClip:
    """A clip as it is stored.

    Attributes:
      images: N JPEGs.
      flows: N PNGs, see `flow.py`; None without flow.
      audio: float32 [S], mono at `schema.SAMPLE_RATE`; None without sound.
      fps: frames a second.
      start: where the clip begins in its source, in seconds.
      height: of the images.
      width: of the images.
      silent: there is a track, but nothing can be heard on it.
      damaged: parts of the file could not be decoded.
      cut: the video goes on after the longest time allowed.
    """

    images: list[bytes]
    flows: list[bytes] | None
    audio: np.ndarray | None
    fps: float
    start: float
    height: int
    width: int
    silent: bool = False
    damaged: bool = False
    cut: bool = False

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return len(self.images) / self.fps


def encode_video(job: VideoJob) -> EncodedClip:
    """Decodes a video, computes its flow, and encodes both.

    Args:
      job: the video and the options.

    Returns:
      The encoded clip; the same bytes for the same file and options.

    Raises:
      MediaError: if the video cannot be used.
    """
    options = job.options
    clip = media.decode_video(
        job.path, fps=options.fps, min_side=options.min_side, start=job.start, end=job.end,
        min_frames=options.min_frames, limits=options.limits)
    flows = None
    if options.flow == "dis":
        flows = [_encode(flow.quantise(step), "PNG", compress_level=PNG_COMPRESSION)
                 for step in flow.dis_flow(clip.frames)]
    height, width, _ = clip.frames[0].shape
    return EncodedClip(
        images=[_encode(frame, "JPEG", quality=JPEG_QUALITY) for frame in clip.frames],
        flows=flows, audio=clip.audio, fps=clip.fps, start=clip.start, height=height, width=width,
        silent=clip.silent, damaged=clip.damaged, cut=clip.cut)


def _encode(image: np.ndarray, file_format: str, **settings: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, file_format, **settings)
    return buffer.getvalue()
