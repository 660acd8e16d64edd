"""An image file becomes a clip of one frame, for records of image folders such as ImageNet.

The format is told by the contents, as the names of files lie; only common formats are opened, and
the size is read from the header before any pixel is decoded. A truncated image is refused, for
the missing part would be gray: unlike a video's missing frames it could not be left out.
"""

import os
import warnings

import numpy as np
from PIL import Image

from elo_tf.data import media
from elo_tf.data.media import container, frames

IMAGE_SUFFIXES = frozenset({
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".webp",
})

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")  # MPO opens as JPEG.

_ORIENTATION = 0x0112
"""EXIF tag: how to turn the stored picture to see it upright."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}


def decode_image(path: str | os.PathLike, *, fps: float, min_side: int,
                 limits: media.Limits | None = None,
                 region: frames.Region | None = None) -> media.DecodedClip:
    """Decodes an image file, the first picture of an animated one.

    The picture is turned as its EXIF data say, seen on white where it is transparent (our choice),
    and resized (by area where it shrinks) so that the shorter side is `min_side`.

    Args:
      path: the file.
      fps: frames a second that the clip of one frame claims, so that readers of videos read it.
      min_side: shorter side of the result, in pixels.
      limits: what the file may cost.
      region: the part that is kept, see `media.decode_clips`.

    Returns:
      A clip of one frame, without sound.

    Raises:
      MediaError: with the reason, if the file cannot be used.
    """
    path = os.fspath(path)
    limits = limits or media.Limits()
    container.check_file(path)
    # Some of the decoders read the whole file first.
    if os.path.getsize(path) > 8 * limits.max_pixels + 2**20:
        raise media.MediaError("too_large", "more than 8 bytes for each of the "
                               f"{limits.max_pixels} pixels that are the limit")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Odd metadata; sizes are checked here.
            frame = _decode(path, min_side, limits.max_pixels, region)
    except (media.MediaError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise media.MediaError("too_large", str(error)) from error
    except Exception as error:  # Pillow raises whatever its parsers come across.
        text = str(error).replace(path, "the file") or type(error).__name__
        raise media.MediaError("undecodable", f"no image that can be decoded ({text})") from error
    return media.DecodedClip(
        frames=[frame], fps=fps, start=0.0, audio=None, silent=False, damaged=False, cut=False,
        source_fps=0.0)


def _decode(path: str, min_side: int, max_pixels: int,
            region: frames.Region | None) -> np.ndarray:
    with Image.open(path, formats=_FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise media.MediaError("too_large", f"{width}x{height} pixels, more than the limit "
                                   f"of {max_pixels} pixels")
        size = frames.output_size(width, height, min_side)
        # JPEG only: decodes at a half, quarter or eighth of the size, at least twice the result.
        if not region:
            image.draft(None, (2 * size[0], 2 * size[1]))
        image.load()
        turn = _TURNS.get(_orientation(image))
        picture = _rgb(image)
    frame = picture if region else frames.resize(picture, size)
    if turn is not None:
        frame = np.asarray(Image.fromarray(frame).transpose(turn))
    if region:
        size = frames.output_size(frame.shape[1], frame.shape[0], min_side, region)
        frame = frames.resize(frames.cut(frame, region), size)
    return frame


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Broken metadata are common, and no reason to refuse the picture.
        return 1


def _rgb(image: Image.Image) -> np.ndarray:
    """The picture as uint8 [H, W, 3]."""
    if image.mode.startswith("I"):  # 16 bits; Pillow would cut off instead of scale.
        gray = np.asarray(image).astype(np.uint32) >> 8
        return np.repeat(gray.clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))
