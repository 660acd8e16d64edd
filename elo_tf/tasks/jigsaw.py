"""Jigsaw: in which order are the tiles of a frame shown (Noroozi and Favaro, ECCV 2016)."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Protocol

import gin
import tensorflow as tf

from elo_tf.models import decoders
from elo_tf.tasks.task import Encoded, Shapes, Task, TaskOutput, ViewKey
from elo_tf.views.patch_sampling import JigsawTiles
from elo_tf.views.samplers import Sampler


class PieceSampler(Sampler, Protocol):
    """Cuts pieces of a frame."""

    def geometry(self, size: int, frames: int) -> tuple[int, ...]:
        """Lengths in pixels; a UserError if the clip is too small for the pieces."""


class Placement(Task):
    """Tells how pieces of a frame lie, from their features side by side.

    One encoder for all pieces; then a fully connected layer, ReLU, and a softmax.

    Attributes:
      pieces: the view's name.
      answer: of the sampler's truth, the class.
      chance: the accuracy of guessing.
    """

    pieces: str = ""
    answer: str = ""

    def __init__(self, modality: str, sampler: PieceSampler, *, items: int, classes: int,
                 hidden: int):
        """Makes the task: `items` pieces, `classes` answers, a hidden layer of that width."""
        super().__init__(modality)
        self.chance = 1.0 / classes
        self._sampler = sampler
        self._items = items
        self._classes = classes
        self._hidden = hidden

    @classmethod
    def members(cls) -> dict[str, Callable[[], Task]]:
        """The one loss, of RGB."""
        return {f"rgb/{cls.family}": functools.partial(cls, "rgb")}

    @property
    def samplers(self) -> Mapping[str, Sampler]:
        """What cuts the pieces."""
        return {self.pieces: self._sampler}

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """The pieces."""
        return ((self.modality, self.pieces),)

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the two layers.

        Raises:
          UserError: if the clip is too small for the pieces.
        """
        self._sampler.geometry(shapes.clip.size, shapes.clip.frames)
        self.hidden = tf.keras.layers.Dense(self._hidden, activation="relu", dtype="float32")
        self.hidden.build((None, self._items * shapes.widths[self.modality]["embedding"]))
        self.classifier = decoders.classifier(
            self._classes, name=self.name.replace("/", "_") + "_logits")
        self.classifier.build((None, self._hidden))

    def _logits(self, encoded: Encoded) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits float32 [B, classes] and the right ones, int32 [B]."""
        features = encoded.activation(self.modality, self.pieces)  # [B, K, D]
        features = tf.reshape(features, [-1, self._items * features.shape[-1]])
        logits = self.classifier(self.hidden(features))
        return logits, encoded.truth(self.modality, self.pieces)[self.answer]

    def call(self, encoded: Encoded) -> TaskOutput:
        """Cross-entropy, against that of chance."""
        logits, answer = self._logits(encoded)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(answer, logits)
        return TaskOutput(loss=loss, mask=self.mask(encoded),
                          trivial=tf.fill(tf.shape(loss), math.log(self._classes)))

    def accuracy(self, encoded: Encoded) -> tf.Tensor:
        """Float32 [B]: 1 where the answer is right."""
        logits, answer = self._logits(encoded)
        return tf.cast(tf.argmax(logits, axis=1, output_type=tf.int32) == answer, tf.float32)


@gin.register
class Jigsaw(Placement):
    """`rgb/jigsaw`: which of P orders the tiles are shown in; gradient to RGB."""

    family = "jigsaw"
    pieces = "tiles"
    answer = "order"

    def __init__(self, modality: str, *, sampler: JigsawTiles | None = None, hidden: int = 512):
        """Makes the task.

        Args:
          modality: of the clip.
          sampler: of the tiles; it holds the orders.
          hidden: width of the layer before the softmax (our choice; the paper's 4096 is from
            memory, unproven).
        """
        sampler = sampler or JigsawTiles()
        super().__init__(modality, sampler, items=sampler.tiles, classes=sampler.classes,
                         hidden=hidden)
