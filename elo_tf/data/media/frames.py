"""Frames with times become upright pictures at a constant rate, cut into clips.

Each frame is on show until the next. A frame becomes a picture (scaled, in RGB) only if a clip
takes it, and only once, however many clips and output frames show it.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterator
from typing import TypeAlias

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter

from elo_tf.data.media.container import MediaError

TIME_TOLERANCE = 0.002
"""Seconds; some containers round time stamps to the millisecond."""

_LONGEST_SHAPE = 20
"""Largest ratio of a frame's sides."""

Region: TypeAlias = tuple[float, float, float, float]
"""Part of an upright picture, as shares of its sides: left, top, width, height."""


@dataclasses.dataclass
class OpenClip:
    """A clip that is being filled.

    Attributes:
      start: where it begins, in seconds from the first frame of the file.
      begin: the same in the file's own time.
      limit: frames of the whole clip.
      end: time at which the last of them has been shown.
      frames: those there are, uint8 [H, W, 3].
      damaged: something could not be decoded meanwhile.
    """

    start: float
    begin: float
    limit: int
    end: float
    frames: list[np.ndarray] = dataclasses.field(default_factory=list)
    damaged: bool = False

    def shown(self, until: float, fps: float) -> int:
        """Frames whose time is full where the video ends at `until`.

        A last frame whose time is not full is left out, since its sound is missing.
        """
        full = max(1, int((max(until - self.begin, 0.0) + TIME_TOLERANCE) * fps))
        return min(len(self.frames), full)


def windows(start: float, seconds: float, clip_seconds: float | None,
            stride_seconds: float | None) -> Iterator[tuple[float, float]]:
    """Where clips begin and how long they are: (seconds from the first frame, seconds).

    Args:
      start: where the first one begins.
      seconds: how much may be used from there on, infinity for all.
      clip_seconds: length of a clip; None for one clip of all.
      stride_seconds: from one begin to the next.
    """
    if clip_seconds is None or stride_seconds is None:
        yield start, seconds
        return
    for i in itertools.count():
        # Not a running sum, whose error would grow.
        left = seconds - i * stride_seconds
        if i and left < clip_seconds / 2 - TIME_TOLERANCE:
            return
        yield start + i * stride_seconds, min(clip_seconds, left)
        if left <= clip_seconds + TIME_TOLERANCE:
            return


class FrameSampler:
    """Gives each output frame of each clip the picture on show at its time.

    Attributes:
      clips: those that have begun and have not been taken, in order.
      upcoming: the one that begins next, if any.
      origin: time of the file's first frame.
    """

    def __init__(self, origin: float, fps: float, places: Iterator[tuple[float, float]],
                 min_side: int, region: Region | None, pixel_ratio: float):
        self.clips: collections.deque[OpenClip] = collections.deque()
        self.origin = origin
        self._fps = fps
        self._places = places
        self.upcoming: OpenClip | None = None
        self._advance()
        self._pictures = _Pictures(min_side, region, pixel_ratio)
        self._held: av.VideoFrame | None = None
        self._suspect = False

    @property
    def begin(self) -> float:
        """Time from which on something is still wanted; infinity if nothing is."""
        first = self.clips[0] if self.clips else self.upcoming
        return first.begin if first else float("inf")

    @property
    def is_last(self) -> bool:
        """Whether the first clip is the last, too."""
        return self.upcoming is None and len(self.clips) == 1

    @property
    def is_empty(self) -> bool:
        """Whether nothing is wanted any more."""
        return self.upcoming is None and not self.clips

    def show(self, frame: av.VideoFrame, time: float) -> None:
        """Shows `frame` from `time` on."""
        if self._suspect:
            self._mark()
        self.fill(time)
        self._held = frame
        # What follows an error is built on what is missing, up to a frame that stands by itself.
        if self._suspect:
            self._mark()
            self._suspect = not frame.key_frame

    def fill(self, until: float) -> None:
        """Takes the frame on show for all output times before `until`."""
        picture = None
        while self.upcoming is not None and self.upcoming.begin < until - TIME_TOLERANCE:
            self.clips.append(self.upcoming)
            self._advance()
        for clip in self.clips:
            while (len(clip.frames) < clip.limit and self._held is not None
                   and clip.begin + len(clip.frames) / self._fps < until - TIME_TOLERANCE):
                if picture is None:
                    picture = self._pictures.picture(self._held)
                clip.frames.append(picture)

    def spoil(self) -> None:
        """Marks the clips that are being filled: something between frames could not be decoded."""
        self._mark()
        self._suspect = True

    def _mark(self) -> None:
        for clip in self.clips:
            clip.damaged |= len(clip.frames) < clip.limit

    def _advance(self) -> None:
        place = next(self._places, None)
        self.upcoming = None
        if place is not None:
            start, seconds = place
            begin = self.origin + start
            limit = int(min(seconds * self._fps + 1e-6, 1e9))
            self.upcoming = OpenClip(start, begin, limit, begin + limit / self._fps)


class _Pictures:
    """Makes pictures of frames: upright, square pixels, RGB, all of one size."""

    def __init__(self, min_side: int, region: Region | None, pixel_ratio: float):
        self._min_side = min_side
        self._region = region
        self._pixel_ratio = pixel_ratio
        self._size: tuple[int, int] | None = None
        self._rotation = 0
        self._orientation = False, False, False
        self._reformatter = VideoReformatter()

    def picture(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 [H, W, 3]."""
        # Reading the whole matrix of each frame would take a tenth of the time.
        if self._size is None or frame.rotation != self._rotation:
            self._rotation = frame.rotation
            self._orientation = _orientation(frame)
        turned, flip_x, flip_y = self._orientation
        if self._size is None:
            seen = frame.width * self._pixel_ratio, float(frame.height)
            self._size = output_size(*(seen[::-1] if turned else seen), self._min_side,
                                     self._region)
        width, height = self._size[::-1] if turned else self._size
        if self._region:  # The whole at its own size: a small part could need a huge enlargement.
            width, height = frame.width, frame.height
        shrinks = width <= frame.width and height <= frame.height
        image = self._reformatter.reformat(
            frame, width, height, "rgb24", threads=1,
            interpolation=Interpolation.AREA if shrinks else Interpolation.BILINEAR).to_ndarray()
        if turned:
            image = image.transpose(1, 0, 2)
        if flip_x:
            image = image[:, ::-1]
        if flip_y:
            image = image[::-1]
        if self._region:
            image = resize(cut(image, self._region), self._size)
        return np.ascontiguousarray(image)


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How to set a stored picture upright: swap its axes, then mirror x, then mirror y."""
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    if matrix is None:
        return False, False, False
    # The stored place (x, y) is seen at (a x + c y, b x + d y).
    a, b, _, c, d = (float(value) for value in np.frombuffer(matrix, np.int32)[:5])
    if abs(b) > abs(a):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


def output_size(width: float, height: float, min_side: int,
                region: Region | None = None) -> tuple[int, int]:
    """(width, height) of a picture, or of a region of it, whose shorter side becomes `min_side`.

    Raises:
      MediaError: if one side is more than 20 times the other.
    """
    if region:
        width, height = width * region[2], height * region[3]
    if max(width, height) > _LONGEST_SHAPE * min(width, height):
        raise MediaError("bad_shape", f"frames of {width:.0f}x{height:.0f} pixels, one side more "
                         f"than {_LONGEST_SHAPE} times the other")
    scale = min_side / min(width, height)
    return round(width * scale), round(height * scale)


def cut(image: np.ndarray, region: Region) -> np.ndarray:
    """The region of a picture uint8 [H, W, 3], of at least one pixel."""
    height, width = image.shape[:2]
    left = min(round(region[0] * width), width - 1)
    top = min(round(region[1] * height), height - 1)
    right, bottom = (region[0] + region[2]) * width, (region[1] + region[3]) * height
    return image[top:max(top + 1, round(bottom)), left:max(left + 1, round(right))]


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture uint8 [H, W, 3] as (width, height), by area where it shrinks."""
    shrinks = size[0] <= image.shape[1] and size[1] <= image.shape[0]
    return cv2.resize(np.ascontiguousarray(image), size,
                      interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
