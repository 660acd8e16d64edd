"""What augmentation does to frames and spectrograms, given the numbers that were drawn.

All functions take a batch and one set of numbers for each clip, the same for all its frames.
"""

import math

import tensorflow as tf


def resample(video: tf.Tensor, box: tf.Tensor, size: int) -> tf.Tensor:
    """Cuts a box out of the frames of each clip and resizes it.

    Bilinear with antialiasing, and exactly `tf.image.resize` where the box is the whole frame;
    that has no kernel for GPUs, and no box for each clip. Since rows and columns are weighted
    independently, two products of matrices do it. At the border of a box inside the frame, the
    pixels beyond it count too, as they do inside.

    Args:
      video: [B, T, H, W, C].
      box: float32 [B or 1, 4]: top, left, height and width in pixels; fractions are honoured.
      size: of the result.

    Returns:
      float32 [B, T, size, size, C].
    """
    video = tf.cast(video, tf.float32)
    rows = _weights(box[:, 0], box[:, 2], video.shape[2], size)
    columns = _weights(box[:, 1], box[:, 3], video.shape[3], size)
    if box.shape[0] == 1:
        return tf.einsum("xw,btywc->btyxc", columns[0],
                         tf.einsum("yh,bthwc->btywc", rows[0], video))
    return tf.einsum("bxw,btywc->btyxc", columns, tf.einsum("byh,bthwc->btywc", rows, video))


def _weights(start: tf.Tensor, length: tf.Tensor, source: int, size: int) -> tf.Tensor:
    """Float32 [B, size, source]: what each pixel of the source adds to each of the result."""
    step = length[:, tf.newaxis, tf.newaxis] / size
    place = start[:, tf.newaxis, tf.newaxis] + (
        tf.range(size, dtype=tf.float32)[:, tf.newaxis] + 0.5) * step
    distance = tf.abs(tf.range(source, dtype=tf.float32) + 0.5 - place)
    weights = tf.nn.relu(1.0 - distance / tf.maximum(step, 1.0))
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def flow_scale(box: tf.Tensor, size: int) -> tf.Tensor:
    """What pixels of motion in x and y are multiplied by when `box` becomes `size`, [B, 2]."""
    return size / tf.reverse(box[:, 2:], [1])


def mirror(video: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """Exchanges left and right of [B, T, H, W, C] where `mirrored`, bool [B], says so."""
    return tf.where(_each(mirrored, video), tf.reverse(video, [3]), video)


def mirror_flow(flow: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """The same for flow [B, T, H, W, 2]: what went right goes left."""
    turned = tf.reverse(flow, [3]) * tf.constant([-1.0, 1.0])
    return tf.where(_each(mirrored, flow), turned, flow)


class ColourJitter:
    """Brightness, contrast, saturation and hue, by keras-cv's layers with numbers from outside."""

    def __init__(self):
        """Makes the layers, outside of any traced function: they make a generator, never used."""
        import keras_cv  # Slow to import; only what augments needs it.

        layers = keras_cv.layers
        common = {"dtype": "float32", "seed": 1}
        self._brightness = layers.RandomBrightness(0.0, value_range=(0, 1), **common)
        self._contrast = layers.RandomContrast((0, 1), 0.0, **common)
        self._saturation = layers.RandomSaturation(0.5, **common)
        self._hue = layers.RandomHue(0.0, (0, 1), **common)

    def __call__(self, video: tf.Tensor, *, brightness: tf.Tensor | None = None,
                 contrast: tf.Tensor | None = None, saturation: tf.Tensor | None = None,
                 hue: tf.Tensor | None = None) -> tf.Tensor:
        """Applies those that are given, in this order, each clipped to [0, 1].

        Args:
          video: float32 [B, T, H, W, 3] in [0, 1].
          brightness: [B], what is added.
          contrast: [B], what the distance to the clip's mean colour is multiplied by.
          saturation: [B], what it is multiplied by.
          hue: [B], turns of the colour circle, in [-0.5, 0.5].

        Returns:
          The same shape.
        """
        _, frames, height, width, _ = video.shape
        # One tall picture a clip: the mean colour, which contrast needs, is that of the clip.
        pictures = tf.reshape(video, [-1, frames * height, width, 3])
        if brightness is not None:
            pictures = self._brightness.augment_images(
                pictures, tf.reshape(brightness, [-1, 1, 1, 1]))
        if contrast is not None:
            pictures = self._contrast.augment_images(pictures, tf.reshape(contrast, [-1, 1, 1, 1]))
        if saturation is not None:
            # The layer takes x for a factor of x / (1 - x).
            pictures = self._saturation.augment_images(pictures, saturation / (1.0 + saturation))
        if hue is not None:
            pictures = self._hue.augment_images(pictures, hue)
        return tf.reshape(pictures, [-1, frames, height, width, 3])


class GaussianBlur:
    """Blurs frames by keras-cv's layer, with a sigma from outside."""

    def __init__(self, largest: float):
        """Makes the layer, as in `ColourJitter`, for sigmas up to `largest` pixels."""
        import keras_cv

        self._radius = max(math.ceil(3 * largest), 1)
        self._layer = keras_cv.layers.RandomGaussianBlur(
            2 * self._radius + 1, 1.0, dtype="float32", seed=1)

    def __call__(self, video: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        """Blurs each frame of [B, T, H, W, C] by its clip's sigma, float32 [B]; 0 leaves it.

        Frames continue at their borders by their mirror image: keras-cv's own padding with zeros
        would draw a frame around a clip that is blurred.
        """
        _, frames, height, width, channels = video.shape
        margin = min(self._radius, height - 1, width - 1)
        kernel = 2 * margin + 1

        def blur(clip: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            picture, own = clip
            weights = self._layer.get_kernel(tf.maximum(own, 1e-6), kernel)
            return self._layer.augment_image(picture, (
                tf.reshape(weights, [kernel, 1, 1, 1]), tf.reshape(weights, [1, kernel, 1, 1])))

        # Frames become channels, each of which is blurred for itself.
        pictures = tf.reshape(tf.transpose(video, [0, 2, 3, 1, 4]),
                              [-1, height, width, frames * channels])
        pictures = tf.pad(pictures, [[0, 0], [margin] * 2, [margin] * 2, [0, 0]], "REFLECT")
        blurred = tf.vectorized_map(blur, (pictures, sigma))
        blurred = blurred[:, margin:margin + height, margin:margin + width]
        return tf.transpose(tf.reshape(blurred, [-1, height, width, frames, channels]),
                            [0, 3, 1, 2, 4])


def masked_bands(draws: tf.Tensor, size: int, widest: int) -> tf.Tensor:
    """Where bands lie whose width and place are drawn as tensorflow-io draws them.

    `tfio.audio.freq_mask` and `time_mask` draw from a generator of their own, one band for a
    whole batch: they cannot give a clip the same mask in every run. Here the draws come from
    outside; the widths (0 to `widest`, all equally likely) and places (all at which the band
    ends before the last row, as in theirs) are those of their `param = widest + 1`.

    Args:
      draws: float32 [B, bands, 2], uniform in [0, 1).
      size: of the axis, larger than `widest`.
      widest: in rows.

    Returns:
      bool [B, size], true in any of the bands.
    """
    width = tf.floor(draws[..., :1] * (widest + 1))
    start = tf.floor(draws[..., 1:] * (size - width))
    rows = tf.range(size, dtype=tf.float32)
    return tf.reduce_any(tf.logical_and(rows >= start, rows < start + width), axis=1)


def _each(flags: tf.Tensor, video: tf.Tensor) -> tf.Tensor:
    return tf.reshape(flags, [-1, *[1] * (video.shape.rank - 1)])
