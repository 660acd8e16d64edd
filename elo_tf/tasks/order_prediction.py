"""OPN: in which order are four frames shown (Lee, Huang, Singh and Yang, ICCV 2017).

"Unsupervised Representation Learning by Sorting Sequences", arXiv 1708.01246. Patches of four
frames are shown in a drawn order; an order and its reverse are one class, so there are 4!/2 = 12.
The features of every pair of frames go through one layer, the same for all six pairs as in the
authors' code, and side by side to a 12-way softmax. Our embedding takes the place of fc6.
"""

import itertools
import math
from collections.abc import Callable, Mapping

import gin
import tensorflow as tf

from elo_tf.models import decoders
from elo_tf.tasks.task import Encoded, Shapes, Task, TaskOutput, ViewKey
from elo_tf.views.frame_sampling import ORDERS, ShuffledPatches

PAIRS = tuple(itertools.combinations(range(4), 2))


@gin.register
class OrderPrediction(Task):
    """`rgb/order`: 12-way, on patches of four frames; gradient to rgb."""

    family = "order"
    chance = 1.0 / ORDERS

    def __init__(self, *, sampler: ShuffledPatches | None = None,
                 width: int = 512):
        """Makes the task.

        Args:
          sampler: cuts the patches.
          width: of the layer for pairs, the paper's fc7.
        """
        super().__init__("rgb")
        self._sampler = sampler or ShuffledPatches()
        self._width = width

    @classmethod
    def members(cls) -> dict[str, Callable[[], Task]]:
        """One loss, of RGB."""
        return {f"rgb/{cls.family}": cls}

    @property
    def samplers(self) -> Mapping[str, ShuffledPatches]:
        """The patches, in a drawn order."""
        return {"shuffled_patches": self._sampler}

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """The four patches."""
        return (("rgb", "shuffled_patches"),)

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the layer for pairs and the classifier.

        Raises:
          UserError: if clips are shorter than the sampler's window.
        """
        self._sampler.check(shapes.clip.frames)
        self.pair = tf.keras.layers.Dense(self._width, activation="relu")
        self.pair.build((None, 2 * shapes.widths["rgb"]["embedding"]))
        self.classifier = decoders.classifier(ORDERS, name="rgb_order_logits")
        self.classifier.build((None, len(PAIRS) * self._width))

    def _logits(self, encoded: Encoded) -> tf.Tensor:
        """Float32 [B, 12]."""
        features = encoded.activation("rgb", "shuffled_patches")
        pairs = tf.gather(features, tf.constant(PAIRS), axis=1)  # [B, 6, 2, D]
        compared = self.pair(tf.reshape(pairs, [-1, len(PAIRS), 2 * features.shape[-1]]))
        return self.classifier(tf.reshape(compared, [-1, len(PAIRS) * self._width]))

    def call(self, encoded: Encoded) -> TaskOutput:
        """Cross-entropy, against that of chance, ln 12."""
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
            encoded.truth("rgb", "shuffled_patches")["order"], self._logits(encoded))
        return TaskOutput(loss=loss, mask=self.mask(encoded),
                          trivial=tf.fill(tf.shape(loss), math.log(ORDERS)))

    def accuracy(self, encoded: Encoded) -> tf.Tensor:
        """1 where the order is found, float32 [B]."""
        found = tf.argmax(self._logits(encoded), axis=1, output_type=tf.int32)
        return tf.cast(found == encoded.truth("rgb", "shuffled_patches")["order"], tf.float32)
