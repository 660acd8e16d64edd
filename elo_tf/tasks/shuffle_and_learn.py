"""Shuffle and Learn: are three frames in their order (Misra, Zitnick and Hebert, ECCV 2016).

Five frames a < b < c < d < e come from a window with much motion. (b, c, d) is in order; (b, a, d)
and (b, e, d) are not: the middle frame is from outside, the frames around it stay, so that none of
them alone tells. The features of three frames side by side go through one linear layer to a 2-way
softmax; AlexNet's fc7 in the paper, here the embedding of our encoder.
"""

import math
from collections.abc import Callable, Mapping

import gin
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.models import decoders
from elo_tf.tasks.task import Encoded, Shapes, Task, TaskOutput, ViewKey
from elo_tf.views.frame_sampling import MotionTuples

TUPLES = ((1, 2, 3), (1, 0, 3), (1, 4, 3))  # of the five frames
IN_ORDER = (1, 0, 0)


@gin.register
class ShuffleAndLearn(Task):
    """`rgb/shuffle_and_learn`: binary, on tuples of three frames; gradient to rgb."""

    family = "shuffle_and_learn"
    chance = 0.5

    def __init__(self, *, sampler: MotionTuples | None = None,
                 negatives: float = 0.75):
        """Makes the task.

        Args:
          sampler: chooses the frames.
          negatives: share of the tuples out of order in the loss (0.75 from memory, unproven).
            Every clip gives one tuple in order and two that are not; they are weighted.

        Raises:
          UserError: if `negatives` is no share.
        """
        super().__init__("rgb")
        if not 0 < negatives < 1:
            raise UserError(f"ShuffleAndLearn.negatives is {negatives}; it is a share, in (0, 1)")
        self._sampler = sampler or MotionTuples()
        self._negatives = negatives

    @classmethod
    def members(cls) -> dict[str, Callable[[], Task]]:
        """One loss, of RGB."""
        return {f"rgb/{cls.family}": cls}

    @property
    def samplers(self) -> Mapping[str, MotionTuples]:
        """Five frames."""
        return {"tuples": self._sampler}

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """The five frames, each once: tuples share them."""
        return (("rgb", "tuples"),)

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the classifier.

        Raises:
          UserError: if clips are shorter than the sampler's window.
        """
        self._sampler.check(shapes.clip.frames)
        self.classifier = decoders.classifier(2, name="rgb_shuffle_and_learn_logits")
        self.classifier.build((None, 3 * shapes.widths["rgb"]["embedding"]))

    def _logits(self, encoded: Encoded) -> tf.Tensor:
        """Float32 [B, 3, 2]: of each of `TUPLES`, out of order and in order."""
        frames = encoded.activation("rgb", "tuples")
        tuples = tf.gather(frames, tf.constant(TUPLES), axis=1)  # [B, 3, 3, D]
        return self.classifier(tf.reshape(tuples, [-1, len(TUPLES), 3 * frames.shape[-1]]))

    def call(self, encoded: Encoded) -> TaskOutput:
        """Cross-entropy, against that of always answering the share of tuples in order."""
        logits = self._logits(encoded)
        labels = tf.broadcast_to(tf.constant(IN_ORDER), tf.shape(logits)[:2])
        entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        share = self._negatives
        loss = tf.reduce_sum(entropies * tf.constant([1 - share, share / 2, share / 2]), axis=1)
        prior = -share * math.log(share) - (1 - share) * math.log(1 - share)
        return TaskOutput(loss=loss, mask=self.mask(encoded),
                          trivial=tf.fill(tf.shape(loss), prior))

    def accuracy(self, encoded: Encoded) -> tf.Tensor:
        """Share of right decisions float32 [B], half for the tuple in order, half for the others.

        Decisions are made as if half of the tuples were in order, so that guessing gives 0.5.
        """
        logits = self._logits(encoded)
        prior = math.log(self._negatives / (1 - self._negatives))
        right = tf.equal(logits[..., 1] - logits[..., 0] + prior > 0, tf.constant(IN_ORDER) == 1)
        return tf.reduce_sum(tf.cast(right, tf.float32) * tf.constant([0.5, 0.25, 0.25]), axis=1)
