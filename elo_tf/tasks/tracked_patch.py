"""Tracked patches: the two ends of a track near, patches of other clips far (Wang and Gupta 2015).

    L = mean_n max(0, D(q, p) - D(q, n) + M)        D = 1 - cos

q is a moving patch of a clip's first frame, p the same patch in the last frame, found by tracking,
and n runs over the patches p of other clips of the global batch: at first over all of them, which
is what random ones come to on average; later over those of the largest loss.
"""

import functools
from collections.abc import Callable, Mapping

import gin
import tensorflow as tf

from elo_tf.tasks.contrastive import unit
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
from elo_tf.views.samplers import Sampler
from elo_tf.views.tracking import TrackedPatches


@gin.register
class TrackedPatch(Task):
    """`rgb/tracked_patch`: ranking hinge on cosine distances; gradient to RGB.

    Attributes:
      chance: the accuracy of guessing.
    """

    family = "tracked_patch"
    chance = 0.5

    def __init__(self, modality: str, *, sampler: TrackedPatches | None = None, width: int = 1024,
                 margin: float = 0.5, hard_from: int = 96_000, hardest: int = 4):
        """Makes the task.

        Args:
          modality: of the clip.
          sampler: of the patches.
          width: of the last layer, on which distances are taken; linear, after the encoder's
            pooled feature (1024: from memory, unproven).
          margin: M (0.5: from memory, unproven).
          hard_from: training clips after which only the hardest negatives count. The paper's
            150,000 iterations would be 15 million clips if a batch had 100 (from memory,
            unproven); the default is our choice, for 160,000 clips in all.
          hardest: so many of them (the paper's 4).
        """
        super().__init__(modality)
        self._sampler = sampler or TrackedPatches()
        self._width = width
        self._margin = margin
        self._hard_from = hard_from
        self._hardest = hardest

    @classmethod
    def members(cls) -> dict[str, Callable[[], Task]]:
        """The one loss, of RGB."""
        return {f"rgb/{cls.family}": functools.partial(cls, "rgb")}

    @property
    def samplers(self) -> Mapping[str, Sampler]:
        """What tracks the patches."""
        return {"tracked": self._sampler}

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """The two ends of a track."""
        return ((self.modality, "tracked"),)

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the last layer.

        Raises:
          UserError: if the clip is too small or too short for patches to be tracked.
        """
        self._sampler.geometry(shapes.clip.size, shapes.clip.frames)
        self.projection = tf.keras.layers.Dense(self._width, dtype="float32")
        self.projection.build((None, shapes.widths[self.modality]["embedding"]))

    def mask(self, views: Present) -> tf.Tensor:
        """The clips that have flow, if another one has it too."""
        tracked = super().mask(views)
        everywhere = tf.reduce_sum(tf.cast(across_replicas(tracked), tf.int32))
        return tf.logical_and(tracked, everywhere > 1)

    def _cosines(self, encoded: Encoded) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Cosines of q with its own p [B, 1] and with all [B, n]; which are negatives, bool."""
        features = encoded.activation(self.modality, "tracked")  # [B, 2, D]
        query, positive = unit(self.projection(features[:, 0])), unit(
            self.projection(features[:, 1]))
        own = tf.reduce_sum(query * positive, axis=1, keepdims=True)
        everywhere = across_replicas(positive)
        others = tf.range(tf.shape(everywhere)[0]) != own_rows(query)[:, tf.newaxis]
        negative = tf.logical_and(others, across_replicas(self.mask(encoded))[tf.newaxis])
        return own, tf.matmul(query, everywhere, transpose_b=True), negative

    def call(self, encoded: Encoded) -> TaskOutput:
        """The loss, against that of features which are all the same: the margin.

        A clip in which too little moves has no loss: its patch shows nothing in particular.
        """
        own, cosines, negative = self._cosines(encoded)
        hinge = tf.nn.relu(cosines - own + self._margin)
        # Of those that are no negatives, less than any: they come last.
        ordered = tf.sort(tf.where(negative, hinge, -1.0), axis=1, direction="DESCENDING")
        rank = tf.range(tf.shape(hinge)[1])
        hard = encoded.position() >= self._hard_from
        counted = tf.logical_and(ordered >= 0.0, tf.logical_or(
            rank < self._hardest, tf.logical_not(hard)[:, tf.newaxis]))
        counted = tf.cast(counted, tf.float32)
        loss = tf.math.divide_no_nan(tf.reduce_sum(counted * ordered, axis=1),
                                     tf.reduce_sum(counted, axis=1))
        usable = encoded.truth(self.modality, "tracked")["usable"]
        return TaskOutput(loss=tf.where(usable > 0, loss, 0.0), mask=self.mask(encoded),
                          trivial=tf.fill(tf.shape(loss), self._margin))

    def accuracy(self, encoded: Encoded) -> tf.Tensor:
        """Float32 [B]: share of the negatives that are farther from q than p is."""
        own, cosines, negative = self._cosines(encoded)
        negative = tf.cast(negative, tf.float32)
        right = tf.reduce_sum(negative * tf.cast(cosines < own, tf.float32), axis=1)
        return tf.math.divide_no_nan(right, tf.reduce_sum(negative, axis=1))
