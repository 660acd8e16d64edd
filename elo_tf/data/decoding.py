"""Encoded frames, flow and sound -> the pixels and samples of one window, and only those.

What leaves is uint8 (casting is done on the device).
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from elo_tf.data import schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.parsing import STORED, require
from elo_tf.data.sampling import window_of
from elo_tf.data.sound import waveform_window

MOST_HALVINGS = 2  # a JPEG's blocks of 8 x 8 pixels allow three; each makes the graph larger


def crop_side(height: tf.Tensor, width: tf.Tensor, spec: ClipSpec) -> tf.Tensor:
    """Side of the square crop, int32 []."""
    shorter = tf.minimum(height, width)
    return tf.maximum(tf.cast(tf.round(tf.cast(shorter, tf.float32) * spec.crop), tf.int32), 1)


def spread_box(height: tf.Tensor, width: tf.Tensor, spec: ClipSpec, crops: int = 1,
               crop: tf.Tensor | int = 0) -> tf.Tensor:
    """One of `crops` crops, evenly spread over the longer side; the central one if it is one.

    Args:
      height: of the frame.
      width: of the frame.
      spec: the clip's size.
      crops: how many there are.
      crop: which of them, int32 [].

    Returns:
      int32 [4]: y, x, height, width.
    """
    side = crop_side(height, width, spec)
    room = tf.stack([height - side, width - side])
    middle = room // 2
    if crops > 1:
        along = tf.stack([height > width, height <= width])
        middle = tf.where(along, room * tf.cast(crop, tf.int32) // (crops - 1), middle)
    return tf.stack([middle[0], middle[1], side, side])


def decode_window(parsed: Mapping[str, tf.Tensor], start: tf.Tensor, frames: int, box: tf.Tensor,
                  size: int, spec: ClipSpec, *, modalities: Sequence[str] = STORED,
                  scaled: bool = False) -> dict[str, tf.Tensor]:
    """Decodes the frames, flow and sound of one window, cropped and resized.

    Args:
      parsed: from `parsing.parse`.
      start: int32 [], where the window starts on the track.
      frames: its length.
      box: int32 [4], the crop.
      size: S, the side in pixels to resize to.
      spec: the clip's size.
      modalities: of `parsing.STORED`, what to decode.
      scaled: where the crop is at least twice as large as S, let the JPEG decoder halve or quarter
        it, which costs nothing, before it is resized: half the time, for pixels that differ a
        little. The crop's corners then move by up to 3 pixels, for frames and flow alike.

    Returns:
      rgb uint8 [frames, S, S, 3], flow uint8 [frames, S, S, 2], audio float32 [samples].
    """
    indices = window_of(parsed["track"], start, frames)
    halvings = tf.constant(0)
    if scaled:
        halvings, box = halve(box, size)
    window = {}
    if "rgb" in modalities:
        images = tf.gather(parsed["images"], indices)

        def halved(times: int) -> tf.Tensor:
            return resize(decode_frames(images, frames, box, parsed["width"], 2**times), size)

        rgb = halved(0) if not scaled else tf.switch_case(
            halvings, [functools.partial(halved, times) for times in range(MOST_HALVINGS + 1)])
        window["rgb"] = tf.ensure_shape(rgb, [frames, size, size, 3])
    if "flow" in modalities:

        def flow() -> tf.Tensor:
            # Of N frames, other writers store N - 1 flows.
            last = tf.size(parsed["flows"]) - 1
            encoded = tf.gather(parsed["flows"], tf.minimum(indices, last))
            video = resize(decode_flows(encoded, frames, box, parsed), size)
            clip = parsed["flow_clip"]
            clip = tf.where(clip > 0, clip / schema.FLOW_CLIP, 1.0)  # 0: the record does not say
            scale = (size / box[2]) * tf.cast(clip, tf.float64)
            return tf.cond(tf.equal(scale, 1.0), lambda: video,
                           lambda: rescale_flow(video, scale))

        def no_flow() -> tf.Tensor:
            return tf.fill([frames, size, size, 2], tf.constant(128, tf.uint8))

        window["flow"] = tf.ensure_shape(tf.cond(parsed["has_flow"], flow, no_flow),
                                         [frames, size, size, 2])
    if "audio" in modalities:
        window["audio"] = waveform_window(parsed["waveform"], parsed["waveform_rate"], start,
                                          tf.shape(parsed["track"])[0], frames, spec)
    return window


def halve(box: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """How often a crop can be halved and be `size` large yet; and the crop, divisible by that.

    Args:
      box: int32 [4], the crop.
      size: side in pixels that is wanted.

    Returns:
      int32 [], at most `MOST_HALVINGS`, and int32 [4].
    """
    halvings = tf.reduce_sum(tf.cast(
        [box[2] >= size * 2**times for times in range(1, MOST_HALVINGS + 1)], tf.int32))
    step = tf.bitwise.left_shift(1, halvings)
    return halvings, box // step * step


def decode_frames(images: tf.Tensor, frames: int, box: tf.Tensor, width: tf.Tensor,
                  shrink: int = 1) -> tf.Tensor:
    """Decodes the crop of JPEG files, string [frames], to uint8 [frames, h, w, 3].

    With `shrink`, sides are divided by it, and those of the crop are its multiples.
    """
    box = box // shrink
    width = (width + shrink - 1) // shrink
    # A column more on either side: the colours of the outermost are blended with those outside,
    # as where the whole picture is decoded (by the exported model, for one).
    left = tf.minimum(box[1], 1)
    right = tf.minimum(width - box[1] - box[3], 1)
    wider = box + tf.stack([0, -left, 0, left + right])

    # Without a fixed method the pixels may depend on the build.
    video = _each(images, frames, lambda image: tf.image.decode_and_crop_jpeg(
        image, wider, channels=3, ratio=shrink, dct_method="INTEGER_ACCURATE"))
    return video[:, :, left:left + box[3]]


def decode_flows(images: tf.Tensor, frames: int, box: tf.Tensor,
                 parsed: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Decodes the crop of flow pictures, string [frames], to uint8 [frames, h, w, 2]."""
    # (This reads PNG too; other writers have flow as JPEG.)
    video = _each(images, frames, lambda image: tf.image.decode_jpeg(
        image, channels=3, dct_method="INTEGER_ACCURATE"))
    found, wanted = tf.shape(video)[1:3], tf.stack([parsed["height"], parsed["width"]])
    same = require(tf.reduce_all(tf.equal(found, wanted)), lambda: tf.strings.join([
        "record ", parsed["id"], " has flow of another size than its frames"]))
    with tf.control_dependencies([same]):
        y, x, height, width = tf.unstack(box)
        return video[:, y:y + height, x:x + width, :2]


def _each(images: tf.Tensor, frames: int, decode: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """One operation for each frame: a loop over them takes an eighth longer."""
    return tf.stack([decode(image) for image in tf.unstack(images, frames)])


def resize(video: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes uint8 [T, h, w, C] to [T, size, size, C]; nothing is done where the size is right."""

    def resized() -> tf.Tensor:
        pixels = tf.image.resize(tf.cast(video, tf.float32), [size, size], antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)

    height, width = tf.shape(video)[1], tf.shape(video)[2]
    right = tf.logical_and(tf.equal(height, size), tf.equal(width, size))
    return tf.cond(right, lambda: video, resized)


def rescale_flow(coded: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Multiplies coded flow by `scale` (float64 []), as its pixels are resized or recoded."""
    centred = tf.cast(coded, tf.float32) - 127.5
    scaled = tf.clip_by_value(tf.round(centred * tf.cast(scale, tf.float32) + 127.5), 0, 255)
    # The two middle codes are zero, and stay so.
    return tf.where(tf.abs(centred) < 1.0, coded, tf.cast(scaled, tf.uint8))
