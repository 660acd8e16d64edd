"""Multi-modal contrastive embedding: two modalities of one clip near, other clips past a margin.

    L_i = d_ii^2 + mean_{j != i} max(alpha - d_ij, 0)^2        d_ij = || u_i - v_j ||

u_i and v_j are linear projections of x_m and x_p of unit length; j runs over the other clips of the
global batch (paper, task six: "max margin"; the margin and the projection are our choice).
"""

import types
from collections.abc import Mapping

import gin
import tensorflow as tf

from elo_tf.tasks.partners import partner_of
from elo_tf.tasks.task import (
    Encoded,
    Shapes,
    Task,
    TaskOutput,
    ViewKey,
    across_replicas,
    own_rows,
)

# Gray against RGB is left out: it is the same picture.
PARTNERS = types.MappingProxyType(
    {"rgb": "flow", "flow": "audio", "gray": "audio", "audio": "rgb"})
EPSILON = 1e-6


@gin.register
class Contrast(Task):
    """`{m}/contrast`: margin loss between x_m and the partner's x_p; gradient to both."""

    family = "contrast"
    chance = 0.5

    def __init__(self, modality: str, *, partners: Mapping[str, str] = PARTNERS, width: int = 64,
                 margin: float = 1.0):
        """Makes the task.

        Args:
          modality: the anchor's.
          partners: what each modality is compared with (our choice).
          width: of the common space (our choice).
          margin: alpha; distances lie in [0, 2] (our choice).
        """
        super().__init__(modality)
        self.partner = partner_of(modality, partners, self.family)
        self._width = width
        self._margin = margin

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """Both intact clips."""
        return ((self.modality, "intact"), (self.partner, "intact"))

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the two projections."""
        self.anchor_projection = tf.keras.layers.Dense(self._width, use_bias=False)
        self.partner_projection = tf.keras.layers.Dense(self._width, use_bias=False)
        self.anchor_projection.build((None, shapes.widths[self.modality]["embedding"]))
        self.partner_projection.build((None, shapes.widths[self.partner]["embedding"]))

    def call(self, encoded: Encoded) -> TaskOutput:
        """The loss, against that of features which are all the same: margin^2."""
        # TensorFlow Addons is slow to import; only training needs it.
        from tensorflow_addons.losses import contrastive_loss

        mask = self.mask(encoded)
        distance, same, negatives = self._distances(encoded, mask)
        # As Python: its own graph forgets the size of the batch once it was called with another.
        pairs = contrastive_loss.python_function(same, distance, self._margin)
        loss = (tf.reduce_sum(same * pairs, axis=1)
                + tf.math.divide_no_nan(tf.reduce_sum(negatives * pairs, axis=1),
                                        tf.reduce_sum(negatives, axis=1)))
        return TaskOutput(loss=loss, mask=mask,
                          trivial=tf.fill(tf.shape(loss), self._margin ** 2))

    def accuracy(self, encoded: Encoded) -> tf.Tensor:
        """The share of other clips whose partner is farther away than the clip's own."""
        distance, same, negatives = self._distances(encoded, self.mask(encoded))
        own = tf.reduce_sum(same * distance, axis=1, keepdims=True)
        farther = negatives * tf.cast(distance > own, tf.float32)
        return tf.math.divide_no_nan(tf.reduce_sum(farther, axis=1),
                                     tf.reduce_sum(negatives, axis=1))

    def _distances(self, encoded: Encoded, mask: tf.Tensor
                   ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Float32 [B, n], of each clip to every partner of the global batch.

        Returns:
          The distances; 1 where the partner is the clip's own; 1 where it is another's that counts.
        """
        anchor = unit(self.anchor_projection(encoded.activation(self.modality, "intact")))
        local = unit(self.partner_projection(encoded.activation(self.partner, "intact")))
        partner = across_replicas(local)
        squared = tf.reduce_sum(
            tf.square(anchor[:, tf.newaxis] - partner[tf.newaxis]), axis=-1)  # [B, n]
        same = tf.one_hot(own_rows(local), tf.shape(partner)[0])  # [B, n]
        negatives = (1.0 - same) * tf.cast(across_replicas(mask), tf.float32)[tf.newaxis]
        return tf.sqrt(squared + EPSILON), same, negatives


def unit(vectors: tf.Tensor) -> tf.Tensor:
    """Scales [B, D] to length one, with a finite gradient at zero."""
    return vectors * tf.math.rsqrt(tf.reduce_sum(tf.square(vectors), -1, keepdims=True) + EPSILON)
