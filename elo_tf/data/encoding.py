"""A video or image file becomes the bytes of its records: what a conversion worker does.

Needs no TensorFlow, so that worker processes start fast; `records.py` assembles the records.
Frames are JPEGs, flow is PNGs, both by OpenCV in one thread: the same bytes for the same pixels.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np

from elo_tf.data import flow, images, media
from elo_tf.errors import UserError

STAGES = ("decode", "flow", "encode")
"""What the seconds that a clip takes are counted under."""

# The runs of equal values in flow are what compresses: searching for longer matches as well
# (the usual strategy, at level 6) takes four times as long, for files that are no smaller.
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)


@dataclasses.dataclass(frozen=True)
class VideoOptions:
    """How a video, or an image, is converted.

    Attributes:
      fps: frames a second that are stored.
      min_side: shorter side of the stored frames, in pixels.
      flow: a key of `flow.METHODS`, or "none" for records without optical flow.
      min_frames: a video with fewer stored frames is rejected.
      clip_seconds: cuts videos into clips of this length; None for one clip a video.
      stride_seconds: from the begin of a clip to the next one's; None for `clip_seconds`.
      images: the files are images, each of which becomes a clip of one frame.
      limits: what one video may cost.
      jpeg_quality: of the stored frames, 1 to 100. At 92 and 256 x 340 pixels, a frame of a real
        video takes about 28 kB.
      region: the part of the upright picture that is kept, as shares (left, top, width, height);
        None for all of it.
    """

    fps: float = 12.0
    min_side: int = 64
    flow: str = "dis"
    min_frames: int = 2
    clip_seconds: float | None = None
    stride_seconds: float | None = None
    images: bool = False
    limits: media.Limits = dataclasses.field(default_factory=media.Limits)
    jpeg_quality: int = 92
    region: media.Region | None = None

    def __post_init__(self):
        if self.flow not in (*flow.METHODS, "none"):
            raise UserError(f"there is no optical flow {self.flow!r}; use one of "
                            f"{', '.join(flow.METHODS)}, none")
        if not 1 <= self.jpeg_quality <= 100:
            raise UserError(f"jpeg_quality is {self.jpeg_quality}; use 1 to 100")
        if self.region is not None and not (
                len(self.region) == 4 and min(self.region[:2]) >= 0 and min(self.region[2:]) > 0
                and self.region[0] + self.region[2] <= 1 and self.region[1] + self.region[3] <= 1):
            raise UserError(f"region is {', '.join(map(str, self.region))}; give left, top, width "
                            "and height as shares of the picture, such as 0.25, 0.5, 0.5, 0.5")


@dataclasses.dataclass(frozen=True)
class VideoJob:
    """One file to convert: where it is, and the part of a video that is wanted (seconds)."""

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
      source_fps: frames a second of the source, 0 if unknown.
      seconds_spent: wall seconds of each of `STAGES`; for statistics, never stored.
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
    source_fps: float = 0.0
    seconds_spent: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return len(self.images) / self.fps


def encode_video(job: VideoJob) -> Iterator[EncodedClip]:
    """Decodes a file, computes its flow, and encodes both, one clip at a time.

    Args:
      job: the file and the options.

    Yields:
      The encoded clips, in their order; the same bytes for the same file and options. Just one
      for an image, and for a video that is not cut.

    Raises:
      MediaError: if the file cannot be used, possibly after some of its clips.
    """
    cv2.setNumThreads(1)
    spent = dict.fromkeys(STAGES, 0.0)
    for clip in _timed(_decoded(job), spent, "decode"):
        yield _encoded(clip, job.options, spent)
        spent.update(dict.fromkeys(STAGES, 0.0))


def _decoded(job: VideoJob) -> Iterator[media.DecodedClip]:
    options = job.options
    if options.images:
        yield images.decode_image(job.path, fps=options.fps, min_side=options.min_side,
                                  limits=options.limits, region=options.region)
    else:
        yield from media.decode_clips(
            job.path, fps=options.fps, min_side=options.min_side, start=job.start, end=job.end,
            clip_seconds=options.clip_seconds, stride_seconds=options.stride_seconds,
            min_frames=options.min_frames, limits=options.limits, region=options.region)


def _encoded(clip: media.DecodedClip, options: VideoOptions,
             spent: dict[str, float]) -> EncodedClip:
    began = time.perf_counter()
    jpeg = (cv2.IMWRITE_JPEG_QUALITY, options.jpeg_quality)
    pictures = _encode_all(clip.frames, ".jpg", jpeg)
    flows = None
    if options.flow != "none" and not options.images:
        steps = _timed(flow.optical_flow(clip.frames, options.flow), spent, "flow")
        flows = _encode_all(steps, ".png", _PNG, flow.quantise)
    spent["encode"] += time.perf_counter() - began - spent["flow"]
    height, width, _ = clip.frames[0].shape
    return EncodedClip(
        images=pictures, flows=flows, audio=clip.audio, fps=clip.fps, start=clip.start,
        height=height, width=width, silent=clip.silent, damaged=clip.damaged, cut=clip.cut,
        source_fps=clip.source_fps, seconds_spent=dict(spent))


def _encode_all(arrays: Iterable[np.ndarray], extension: str, settings: tuple[int, ...],
                to_picture: Callable[[np.ndarray], np.ndarray] | None = None) -> list[bytes]:
    """Encodes RGB pictures; an array that comes again at once is the same picture."""
    encoded = []
    before = None
    for array in arrays:
        if array is not before:
            picture = to_picture(array) if to_picture else array
            done, coded = cv2.imencode(
                extension, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), settings)
            if not done:
                height, width, _ = picture.shape
                raise media.MediaError("too_large", f"frames of {width}x{height} pixels cannot be "
                                       f"stored as {extension}; choose a smaller min_side")
            data = coded.tobytes()
        encoded.append(data)
        before = array
    return encoded


def _timed(items: Iterator, spent: dict[str, float], stage: str) -> Iterator:
    """Yields the items, and adds the seconds that waiting for them takes to `spent`."""
    while True:
        began = time.perf_counter()
        item = next(items, None)
        spent[stage] += time.perf_counter() - began
        if item is None:
            return
        yield item
