"""Multi-modal alignment: do two modalities show the same clip at the same time (task seven).

A binary classifier sees a pair of features. One pair of an example is aligned; the negatives are
the partner of another clip and the partner of another time of the same clip, which alone forbids
to solve the task by recognising the scene (Owens and Efros 2018; Korbar et al. 2018).
"""

import functools
import types
from collections.abc import Mapping

import gin
import tensorflow as tf

from elo_tf.models import decoders
from elo_tf.tasks.ordering import CHANCE
from elo_tf.tasks.partners import partner_of
from elo_tf.tasks.task import (
    Encoded,
    Present,
    Shapes,
    Task,
    TaskOutput,
    ViewKey,
    across_replicas,
    own_rows,
)

PARTNERS = types.MappingProxyType(
    {"rgb": "audio", "flow": "rgb", "gray": "flow", "audio": "flow"})


@gin.register
class Align(Task):
    """`{m}/align`: same time or not, with the partner; gradient to both."""

    family = "align"
    chance = 0.5

    def __init__(self, modality: str, *, partners: Mapping[str, str] = PARTNERS, width: int = 64):
        """Makes the task.

        Args:
          modality: of the intact clip.
          partners: what each modality is aligned with (our choice).
          width: of the hidden layer that compares the two features; a single layer on their
            concatenation could not compare them at all (our choice).
        """
        super().__init__(modality)
        self.partner = partner_of(modality, partners, self.family)
        self._width = width

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """The clip, its partner, and the partner at another time."""
        return ((self.modality, "intact"), (self.partner, "intact"),
                (self.partner, "other_time"))

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the classifier of pairs."""
        widths = shapes.widths
        inputs = widths[self.modality]["embedding"] + widths[self.partner]["embedding"]
        self.hidden = tf.keras.layers.Dense(self._width, activation="relu")
        self.hidden.build((None, inputs))
        self.classifier = decoders.classifier(1, name=self.name.replace("/", "_") + "_logit")
        self.classifier.build((None, self._width))

    def mask(self, views: Present) -> tf.Tensor:
        """The pairs that have a negative, of another clip or of another time."""
        _, has_clip, has_time = self._negatives(views)
        return tf.logical_or(has_clip, has_time)

    def _negatives(self, views: Present) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The row of the other clip int32 [B]; whether that and the other time are there [B]."""
        mask = tf.logical_and(views.present(self.modality), views.present(self.partner))
        row = next_present(own_rows(mask), across_replicas(mask))
        has_time = tf.logical_and(mask, views.present(self.partner, "other_time"))
        return row, tf.logical_and(mask, row >= 0), has_time

    def _logit(self, clip: tf.Tensor, partner: tf.Tensor) -> tf.Tensor:
        return self.classifier(self.hidden(tf.concat([clip, partner], axis=-1)))[:, 0]

    def call(self, encoded: Encoded) -> TaskOutput:
        """Cross-entropy, half for the aligned pair and half for the negatives there are.

        An example counts if it has at least one negative.
        """
        aligned, negatives = self._logits(encoded)
        loss = 0.5 * (tf.nn.softplus(-aligned)
                      + _mean([(tf.nn.softplus(logit), has) for logit, has in negatives]))
        mask = functools.reduce(tf.logical_or, [has for _, has in negatives])
        return TaskOutput(loss=loss, mask=mask, trivial=tf.fill(tf.shape(loss), CHANCE))

    def accuracy(self, encoded: Encoded) -> tf.Tensor:
        """The share of pairs that are told right: half the aligned one, half the negatives."""
        aligned, negatives = self._logits(encoded)
        return 0.5 * (tf.cast(aligned > 0, tf.float32)
                      + _mean([(tf.cast(logit < 0, tf.float32), has) for logit, has in negatives]))

    def _logits(self, encoded: Encoded
                ) -> tuple[tf.Tensor, list[tuple[tf.Tensor, tf.Tensor]]]:
        """Of being aligned, [B]: the clip's own pair; each negative's, and bool [B], its mask."""
        clip = encoded.activation(self.modality, "intact")
        partner = encoded.activation(self.partner, "intact")
        other_time = encoded.activation(self.partner, "other_time")
        row, has_clip, has_time = self._negatives(encoded)
        other_clip = tf.gather(across_replicas(partner), tf.maximum(row, 0))
        return self._logit(clip, partner), [
            (self._logit(clip, other_clip), has_clip), (self._logit(clip, other_time), has_time)]


def _mean(parts: list[tuple[tf.Tensor, tf.Tensor]]) -> tf.Tensor:
    """The mean of values [B] over those whose mask [B] is true; 0 where there is none."""
    total = tf.add_n([tf.cast(has, tf.float32) * value for value, has in parts])
    return tf.math.divide_no_nan(total, tf.add_n([tf.cast(has, tf.float32) for _, has in parts]))


def next_present(rows: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """For each row, the next one (cyclically) that is present; -1 where there is no other.

    Args:
      rows: int32 [B], indices in the global batch.
      present: bool [n], over the global batch.

    Returns:
      int32 [B].
    """
    size = tf.shape(present)[0]
    ahead = tf.math.floormod(tf.range(size)[tf.newaxis] - rows[:, tf.newaxis] - 1, size)  # [B, n]
    other = tf.logical_and(present[tf.newaxis], ahead < size - 1)
    ahead = tf.where(other, ahead, size)
    nearest = tf.argmin(ahead, axis=1, output_type=tf.int32)
    return tf.where(tf.reduce_any(other, axis=1), nearest, -1)
