"""Sample clips as pictures: frames, optical flow as a colour wheel, the log-mel spectrogram."""

import base64
import dataclasses
import io

import matplotlib as mpl
import numpy as np
import PIL.Image
from matplotlib import colors

SHOWN_FRAMES = 8
FRAME_HEIGHT = 96
GAP = 4
BORDER = (208, 212, 217)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One clip to show.

    Attributes:
      id: of the clip.
      frames: uint8 [T, H, W, 3].
      flow: float [T, H, W, 2] in pixels, x to the right and y down; None where there is none.
      log_mel: float [F, M], time by frequency; None where there is no sound.
      label: a few words, such as the class.
    """

    id: str
    frames: np.ndarray
    flow: np.ndarray | None = None
    log_mel: np.ndarray | None = None
    label: str = ""


def flow_colors(flow: np.ndarray, *, longest: float | None = None) -> np.ndarray:
    """Flow as colours: the direction is the hue, the length is the saturation, white is at rest.

    Hue 0 (red) is to the right, a quarter of the circle is down, a half (cyan) is to the left.

    Args:
      flow: float [..., 2] in pixels, x to the right and y down.
      longest: length of full saturation; that of the longest vector, and at least one pixel, if
        None.

    Returns:
      uint8 [..., 3].
    """
    flow = np.asarray(flow, float)
    length = np.hypot(flow[..., 0], flow[..., 1])
    if longest is None:
        longest = max(1.0, float(length.max(initial=0.0)))
    hue = np.mod(np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi), 1.0)
    hsv = np.stack([hue, np.clip(length / longest, 0, 1), np.ones_like(hue)], axis=-1)
    return np.round(255 * colors.hsv_to_rgb(hsv)).astype(np.uint8)


def color_wheel(size: int = 48) -> np.ndarray:
    """The key of `flow_colors`: a disc, uint8 [size, size, 4], transparent outside."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis, axis)
    inside = np.hypot(x, y) <= 1
    disc = flow_colors(np.stack([x, y], axis=-1), longest=1.0)
    return np.concatenate([disc, 255 * inside[..., None].astype(np.uint8)], axis=-1)


def filmstrip(images: np.ndarray, *, border: bool = False, height: int = FRAME_HEIGHT,
              width: int | None = None) -> np.ndarray:
    """Up to 8 evenly spaced images of uint8 [T, H, W, 3] side by side, as uint8 [h, w, 4].

    All images of a report get the same height, and a strip has room for all 8, so that every clip
    is shown at the same scale. A strip of a given width is filled instead: each image is in the
    middle of its share of the width, as large as fits. What is between and after the images is
    transparent.

    Args:
      images: uint8 [T, H, W, 3], T >= 1.
      border: whether to draw a grey line around each, for images that may be as white as the page.
      height: of the strip, h.
      width: of the strip, w; room for 8 images of that height if None.
    """
    total = len(images)
    count = min(SHOWN_FRAMES, total)
    picked = images[(2 * np.arange(count) + 1) * total // (2 * count)]
    aspect = images.shape[2] / images.shape[1]
    wide = max(3, round(height * aspect))
    tall = height
    if width is None:
        width = SHOWN_FRAMES * (wide + GAP) - GAP
        lefts = np.arange(count) * (wide + GAP)
    else:
        share = (width + GAP) / count
        wide = max(3, min(wide, int(share) - GAP))
        tall = max(3, min(height, round(wide / aspect)))
        lefts = np.round(np.arange(count) * share + (share - GAP - wide) / 2).astype(int)
    top = (height - tall) // 2
    strip = np.zeros([height, width, 4], np.uint8)
    for left, image in zip(lefts, picked, strict=True):
        tile = np.array(
            PIL.Image.fromarray(image).resize((wide, tall), PIL.Image.Resampling.LANCZOS))
        if border:
            inner = tile[1:-1, 1:-1].copy()
            tile[:] = BORDER
            tile[1:-1, 1:-1] = inner
        strip[top:top + tall, left:left + wide, :3] = tile
        strip[top:top + tall, left:left + wide, 3] = 255
    return strip


def spectrogram(log_mel: np.ndarray) -> np.ndarray:
    """A log-mel, float [F, M], as colours uint8 [M, F, 3]: time to the right, high tones above."""
    log_mel = np.asarray(log_mel, float).T[::-1]
    low, high = float(log_mel.min()), float(log_mel.max())
    scaled = (log_mel - low) / max(high - low, 1e-6)
    return np.round(255 * mpl.colormaps["magma"](scaled)[..., :3]).astype(np.uint8)


def small_strip(frames: np.ndarray, *, count: int = 4, size: int = 64) -> str:
    """A few evenly spaced frames side by side, as a `data:` address of a JPEG of some kilobytes.

    Args:
      frames: uint8 [T, H, W, 3], T >= 1.
      count: how many frames.
      size: height of the strip in pixels.
    """
    picked = frames[(2 * np.arange(count) + 1) * len(frames) // (2 * count)]
    strip = PIL.Image.fromarray(np.concatenate(list(picked), axis=1))
    width = round(size * strip.width / strip.height)
    file = io.BytesIO()
    strip.resize((width, size), PIL.Image.Resampling.LANCZOS).save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def png_uri(image: np.ndarray) -> str:
    """An image uint8 [h, w, 3 or 4] as a `data:` address."""
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
