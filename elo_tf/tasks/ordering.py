"""Temporal ordering: are the frames in order, do they run forwards (tasks four and five).

Both are binary classifiers on the feature of one clip: a single fully connected layer with
cross-entropy. Every clip is shown both ways, so the classes are balanced in every batch.
"""

import math

import gin
import tensorflow as tf

from elo_tf.models import decoders
from elo_tf.tasks.task import Encoded, Shapes, Task, TaskOutput, ViewKey

CHANCE = math.log(2.0)


class OrderingTask(Task):
    """Tells a clip from the same clip with its frames rearranged."""

    chance = 0.5
    rearranged: str = ""  # the view that is told from the intact one

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """The clip as it is and rearranged."""
        return ((self.modality, "intact"), (self.modality, self.rearranged))

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the classifier."""
        self.classifier = decoders.classifier(1, name=self.name.replace("/", "_") + "_logit")
        self.classifier.build((None, shapes.widths[self.modality]["embedding"]))

    def call(self, encoded: Encoded) -> TaskOutput:
        """Mean cross-entropy of the two views of an example, against that of chance, ln 2."""
        intact, rearranged = self._logits(encoded)
        loss = 0.5 * (tf.nn.softplus(intact) + tf.nn.softplus(-rearranged))
        return TaskOutput(loss=loss, mask=self.mask(encoded),
                          trivial=tf.fill(tf.shape(loss), CHANCE))

    def accuracy(self, encoded: Encoded) -> tf.Tensor:
        """The share of the two views that are told right."""
        intact, rearranged = self._logits(encoded)
        return 0.5 * (tf.cast(intact < 0, tf.float32) + tf.cast(rearranged > 0, tf.float32))

    def _logits(self, encoded: Encoded) -> tuple[tf.Tensor, tf.Tensor]:
        """Of being rearranged, [B]: the clip's as it is, and rearranged."""
        return tuple(self.classifier(encoded.activation(self.modality, view))[:, 0]
                     for view in ("intact", self.rearranged))


@gin.register
class Shuffle(OrderingTask):
    """`{m}/shuffle`: ordered or permuted (Misra et al. 2016, on a whole clip); gradient to m."""

    family = "shuffle"
    rearranged = "shuffled"


@gin.register
class Reverse(OrderingTask):
    """`{m}/reverse`: forward or backward (the arrow of time); gradient to m."""

    family = "reverse"
    rearranged = "reversed"
