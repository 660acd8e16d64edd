"""How training clips are varied: what is drawn for each clip, and to which views it applies.

The paper does not say how it augments; all of this is our choice, and all of it is off by default.
"""

import dataclasses
import math
import numbers
from typing import Any

import gin
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.views import augmentation_ops as ops

# What a draw is for; 0 and 1 are the readers' and the frame orders'.
_CLIP, _FIRST_MASK = 2, 3
_MASKED_VIEWS = ("intact", "next", "shuffled", "reversed", "other_time")


@dataclasses.dataclass(frozen=True)
class ClipDraws:
    """What was drawn for the clips of a batch, uniform in [0, 1), float32 [B] each."""

    area: tf.Tensor
    aspect: tf.Tensor
    top: tf.Tensor
    left: tf.Tensor
    flip: tf.Tensor
    jitter: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor
    blur: tf.Tensor
    sigma: tf.Tensor


def _is_range(values: Any, top: float) -> bool:
    """Whether these are two numbers (least, largest) in (0, top]."""
    return (isinstance(values, (tuple, list)) and len(values) == 2
            and all(isinstance(value, numbers.Real) for value in values)
            and 0 < values[0] <= values[1] <= top)


@gin.register
class Augmentation:
    """Random crops, flips, colours, blur and SpecAugment, drawn once for each clip.

    A clip's frames, what follows it, its other window and its flow share one geometry, and its
    frames one change of colour: else the tasks that tell views of a clip apart could tell them by
    that. Blur and masks destroy what a decoder may be asked for, and are seen by encoders only.
    Masks are drawn for each view anew, after it was rearranged: one cut to pieces would tell a
    shuffled clip, and one that two views share would tell the clip. Every draw is a function of
    (seed, position in the stream, example id), so that all candidates of a search train on the
    same clips, on however many devices.
    """

    def __init__(self, crop_area: tuple[float, float] = (1.0, 1.0),
                 crop_aspect: tuple[float, float] = (1.0, 1.0), flip: float = 0.0,
                 jitter: float = 1.0, brightness: float = 0.0, contrast: float = 0.0,
                 saturation: float = 0.0, hue: float = 0.0, blur: float = 0.0,
                 blur_sigma: tuple[float, float] = (0.1, 2.0), time_masks: int = 0,
                 time_mask: float = 0.1, freq_masks: int = 0, freq_mask: float = 0.2):
        """Checks the settings.

        Args:
          crop_area: range of the crop's share of the training clip as it leaves the host (see
            `ClipSpec.host_size`); the whole of it where both are 1.
          crop_aspect: range of its width divided by its height, uniform in the logarithm; what
            would not fit at the drawn area is not drawn.
          flip: probability of exchanging left and right.
          jitter: probability that a clip's colours change at all.
          brightness: at most this is added or taken away, as a share of the range of values.
          contrast: the factor lies in [1 - contrast, 1 + contrast].
          saturation: the factor lies in [1 - saturation, 1 + saturation].
          hue: at most this share of the colour circle, to either side; up to 0.5.
          blur: probability of a Gaussian blur.
          blur_sigma: range of its standard deviation, in pixels of the network's input.
          time_masks: masked spans of time of a log-mel spectrogram.
          time_mask: the longest, as a share of the spectrogram.
          freq_masks: masked bands of frequency.
          freq_mask: the widest, as a share of the bins.

        Raises:
          UserError: for a setting out of its range.
        """
        for name, value, top in (
                ("flip", flip, 1), ("jitter", jitter, 1), ("brightness", brightness, 1),
                ("contrast", contrast, 1), ("saturation", saturation, 1), ("hue", hue, 0.5),
                ("blur", blur, 1), ("time_masks", time_masks, 100), ("time_mask", time_mask, 0.9),
                ("freq_masks", freq_masks, 100), ("freq_mask", freq_mask, 0.9)):
            if not (isinstance(value, numbers.Real) and 0 <= value <= top):
                raise UserError(f"Augmentation.{name} is {value!r}; it must lie in [0, {top}]")
        for name, values, top in (("crop_area", crop_area, 1), ("crop_aspect", crop_aspect, 100),
                                  ("blur_sigma", blur_sigma, 100)):
            if not _is_range(values, top):
                raise UserError(f"Augmentation.{name} is {values!r}; it must be a range "
                                f"(least, largest) in (0, {top}]")
        self._area = crop_area
        self._aspect = crop_aspect
        self._flip = flip
        self._jitter = jitter
        self._strengths = {"brightness": brightness, "contrast": contrast,
                           "saturation": saturation, "hue": hue}
        self._blur = blur
        self._sigma = blur_sigma
        self._time = (time_masks, time_mask)
        self._freq = (freq_masks, freq_mask)
        self._colour_jitter: Any = ops.ColourJitter() if self.colours else None
        self._gaussian_blur: Any = ops.GaussianBlur(blur_sigma[1]) if self.blurs else None

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return bool(self.crops or self._flip or self.colours or self.blurs or self.masks)

    @property
    def crops(self) -> bool:
        """Whether clips are cropped."""
        return (*self._area, *self._aspect) != (1, 1, 1, 1)

    @property
    def colours(self) -> bool:
        """Whether colours change."""
        return self._jitter > 0 and any(self._strengths.values())

    @property
    def blurs(self) -> bool:
        """Whether clips are blurred."""
        return self._blur > 0

    @property
    def masks(self) -> bool:
        """Whether spectrograms are masked."""
        return min(self._time) > 0 or min(self._freq) > 0

    def draw(self, index: tf.Tensor, key: tf.Tensor, seed: int) -> ClipDraws:
        """Draws for each clip.

        Args:
          index: int64 [B], positions in the stream.
          key: int64 [B], hashes of the ids.
          seed: of the run.
        """
        names = [field.name for field in dataclasses.fields(ClipDraws)]
        drawn = uniform(index, key, [seed, _CLIP], len(names))
        return ClipDraws(*tf.unstack(drawn, axis=1))

    def box(self, draws: ClipDraws, side: int) -> tf.Tensor:
        """The crop in pixels of a frame of `side` x `side`: top, left, height, width, [B, 4]."""
        area = self._area[0] + draws.area * (self._area[1] - self._area[0])
        # Neither side is longer than the frame as long as area <= aspect <= 1 / area.
        fits = -tf.math.log(area)
        least, most = (tf.clip_by_value(tf.fill(tf.shape(area), math.log(x)), -fits, fits)
                       for x in self._aspect)
        aspect = tf.exp(least + draws.aspect * (most - least))
        height, width = (tf.minimum(tf.sqrt(x), 1.0) for x in (area / aspect, area * aspect))
        box = [draws.top * (1.0 - height), draws.left * (1.0 - width), height, width]
        return side * tf.stack(box, axis=1)

    def place(self, frames: tf.Tensor, draws: ClipDraws, size: int) -> tf.Tensor:
        """Crops, resizes and flips frames [B, T, S, S, C]; untouched where there is nothing to do.

        Args:
          frames: of any type.
          draws: of `draw`.
          size: of the network's input.

        Returns:
          [B, T, size, size, C], float32 where pixels were blended.
        """
        if self.crops:
            frames = ops.resample(frames, self.box(draws, frames.shape[2]), size)
        else:
            frames = resize(frames, size)
        return ops.mirror(frames, draws.flip < self._flip) if self._flip else frames

    def place_flow(self, flow: tf.Tensor, draws: ClipDraws, size: int) -> tf.Tensor:
        """The same for flow [B, T, S, S, 2], float32 in pixels, whose values change with it."""
        if self.crops:
            box = self.box(draws, flow.shape[2])
            scale = ops.flow_scale(box, size)[:, tf.newaxis, tf.newaxis, tf.newaxis]
            flow = ops.resample(flow, box, size) * scale
        else:
            flow = resize_flow(flow, size)
        return ops.mirror_flow(flow, draws.flip < self._flip) if self._flip else flow

    def recolour(self, frames: tf.Tensor, draws: ClipDraws) -> tf.Tensor:
        """Changes the colours of frames [B, T, H, W, 3], 0 to 255; float32."""
        frames = tf.cast(frames, tf.float32)
        numbers = {}
        for name, strength in self._strengths.items():
            if strength:
                change = strength * (2.0 * getattr(draws, name) - 1.0)
                factor = name in ("contrast", "saturation")
                numbers[name] = 1.0 + change if factor else change
        changed = 255.0 * self._colour_jitter(frames / 255.0, **numbers)
        return tf.where((draws.jitter < self._jitter)[:, *[tf.newaxis] * 4], changed, frames)

    def soften(self, frames: tf.Tensor, draws: ClipDraws) -> tf.Tensor:
        """Blurs float32 [B, T, H, W, C] where it was drawn."""
        sigma = self._sigma[0] + draws.sigma * (self._sigma[1] - self._sigma[0])
        return self._gaussian_blur(frames, tf.where(draws.blur < self._blur, sigma, 0.0))

    def mask(self, mel: tf.Tensor, view: str, index: tf.Tensor, key: tf.Tensor,
             seed: int) -> tf.Tensor:
        """SpecAugment (Park et al. 2019), without its warping: spans and bands become 0, the mean.

        Args:
          mel: float32 [B, F, M].
          view: whose it is.
          index: as in `draw`.
          key: as in `draw`.
          seed: as in `draw`.

        Returns:
          The same shape.
        """
        spans, bands = self._time[0], self._freq[0]
        purpose = _FIRST_MASK + _MASKED_VIEWS.index(view)
        drawn = uniform(index, key, [seed, purpose], 2 * (spans + bands))
        drawn = tf.reshape(drawn, [-1, spans + bands, 2])
        frames, bins = mel.shape[1:]
        time = ops.masked_bands(drawn[:, :spans], frames, round(self._time[1] * frames))
        freq = ops.masked_bands(drawn[:, spans:], bins, round(self._freq[1] * bins))
        masked = tf.logical_or(time[:, :, tf.newaxis], freq[:, tf.newaxis, :])
        return tf.where(masked, 0.0, mel)


def resize(frames: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes [B, T, S, S, C], as `tf.image.resize` does; untouched where the size is right."""
    if frames.shape[2] == size:
        return frames
    return ops.resample(frames, _whole(frames.shape[2]), size)


def resize_flow(flow: tf.Tensor, size: int) -> tf.Tensor:
    """The same for flow in pixels, float32, which becomes shorter or longer with the frame."""
    return flow if flow.shape[2] == size else resize(flow, size) * (size / flow.shape[2])


def _whole(side: int) -> tf.Tensor:
    return tf.constant([[0.0, 0.0, side, side]])


def uniform(index: tf.Tensor, key: tf.Tensor, seed: list[int], count: int) -> tf.Tensor:
    """Numbers in [0, 1) for each example.

    Args:
      index: int64 [B], positions in the stream.
      key: int64 [B], hashes of the ids.
      seed: of the run, and what the numbers are for.
      count: how many.

    Returns:
      float32 [B, count].
    """
    fold = tf.random.experimental.stateless_fold_in

    def draw(example: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        own = fold(fold(tf.constant(seed), example[0]), example[1])
        return tf.random.stateless_uniform([count], own)

    return tf.map_fn(draw, (index, key), fn_output_signature=tf.TensorSpec([count], tf.float32))
