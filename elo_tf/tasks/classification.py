"""Classification: which class is a clip of. The one task that reads labels.

It makes the supervised rows of the paper's tables, and mixes with the other tasks where only some
clips have labels.
"""

import functools
import math
from collections.abc import Callable, Sequence

import gin
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.models import decoders
from elo_tf.tasks.task import Encoded, Present, Shapes, Task, TaskOutput, ViewKey


@gin.register
class Classify(Task):
    """`rgb/classify`: the class of a labelled clip, by one linear layer; gradient to rgb."""

    family = "classify"

    def __init__(self, modality: str = "rgb", *, classes: int = 400):
        """Makes the task.

        Args:
          modality: of the intact clip.
          classes: how many there are; Kinetics' by default.

        Raises:
          UserError: for fewer than two.
        """
        super().__init__(modality)
        if classes < 2:
            raise UserError(f"Classify.classes is {classes}; it must be 2 or more")
        self._classes = classes
        self.chance = 1.0 / classes

    @classmethod
    def members(cls) -> dict[str, Callable[[], Task]]:
        """One loss, of RGB."""
        return {f"rgb/{cls.family}": functools.partial(cls, "rgb")}

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """The clip."""
        return ((self.modality, "intact"),)

    def check_labels(self, names: Sequence[str]) -> None:
        """Refuses records whose labels are no classes of this task, before anything is read.

        Args:
          names: the records' label map.

        Raises:
          UserError: if there is none, or it has more than `classes`.
        """
        if not names:
            raise UserError(f"{self.name} needs labels, but the records have no label map "
                            "(labels.txt, one name a line), or their sources' maps differ")
        if len(names) > self._classes:
            raise UserError(f"Classify.classes is {self._classes}, but the records' label map has "
                            f"{len(names)} names; set it to {len(names)} or more")

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the classifier."""
        self.classifier = decoders.classifier(
            self._classes, name=self.name.replace("/", "_") + "_logits")
        self.classifier.build((None, shapes.widths[self.modality]["embedding"]))

    def mask(self, views: Present) -> tf.Tensor:
        """The clips that have a label."""
        labels = views.labels()
        return tf.logical_and(labels >= 0, labels < self._classes)

    def _logits(self, encoded: Encoded) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits float32 [B, classes] and labels int64 [B], 0 where there is none."""
        logits = self.classifier(encoded.activation(self.modality, "intact"))
        return logits, tf.where(self.mask(encoded), encoded.labels(), 0)

    def call(self, encoded: Encoded) -> TaskOutput:
        """Cross-entropy, against that of chance, ln(classes)."""
        logits, labels = self._logits(encoded)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return TaskOutput(loss=loss, mask=self.mask(encoded),
                          trivial=tf.fill(tf.shape(loss), math.log(self._classes)))

    def accuracy(self, encoded: Encoded) -> tf.Tensor:
        """1 where the class is right, float32 [B]."""
        logits, labels = self._logits(encoded)
        return tf.cast(tf.argmax(logits, axis=1) == labels, tf.float32)
