"""O3N: which sub-sequence is in a wrong order (Fernando, Bilen, Gavves and Gould, CVPR 2017).

"Self-Supervised Video Representation Learning With Odd-One-Out Networks", arXiv 1611.06646. N + 1
sub-sequences of one clip are encoded by one network; their features f_i are fused, by
concatenation or as the sum over i > j of (f_i - f_j), and two fully connected layers say which one
is odd. The paper makes an image of a sub-sequence for CaffeNet; our encoder takes it as a clip.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import gin
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.models import decoders
from elo_tf.tasks.task import Encoded, Shapes, Task, TaskOutput, ViewKey
from elo_tf.views.frame_sampling import OddSubsequences


@gin.register
class OddOneOut(Task):
    """`rgb/odd_one_out`: (N + 1)-way, on sub-sequences of a clip; gradient to rgb."""

    family = "odd_one_out"

    def __init__(self, *, sampler: OddSubsequences | None = None,
                 fusion: Literal["concatenation", "differences"] = "concatenation",
                 width: int = 128):
        """Makes the task.

        Args:
          sampler: cuts the sub-sequences.
          fusion: of their features; the paper has both, which one is its best we do not know.
          width: of the layer before the last (our choice).

        Raises:
          UserError: if there is no such fusion.
        """
        super().__init__("rgb")
        if fusion not in ("concatenation", "differences"):
            raise UserError(f"OddOneOut.fusion is {fusion!r}; it must be 'concatenation' or "
                            "'differences'")
        self._sampler = sampler or OddSubsequences()
        self.chance = 1.0 / self._sampler.items
        self._fusion = fusion
        self._width = width

    @classmethod
    def members(cls) -> dict[str, Callable[[], Task]]:
        """One loss, of RGB."""
        return {f"rgb/{cls.family}": cls}

    @property
    def samplers(self) -> Mapping[str, OddSubsequences]:
        """The sub-sequences."""
        return {"subsequences": self._sampler}

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """The sub-sequences, each as a clip."""
        return (("rgb", "subsequences"),)

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the two layers.

        Raises:
          UserError: if clips are shorter than a sub-sequence.
        """
        self._sampler.check(shapes.clip.frames)
        items = self._sampler.items
        fused = items if self._fusion == "concatenation" else 1
        self.hidden = tf.keras.layers.Dense(self._width, activation="relu")
        self.hidden.build((None, fused * shapes.widths["rgb"]["embedding"]))
        self.classifier = decoders.classifier(items, name="rgb_odd_one_out_logits")
        self.classifier.build((None, self._width))

    def _logits(self, encoded: Encoded) -> tf.Tensor:
        """Float32 [B, N + 1]."""
        features = encoded.activation("rgb", "subsequences")
        items, width = features.shape[1:]
        if self._fusion == "concatenation":
            fused = tf.reshape(features, [-1, items * width])
        else:  # f_i is added for every j < i and subtracted for every j > i
            signs = tf.range(1.0 - items, items, 2.0)
            fused = tf.einsum("k,bkd->bd", signs, features)
        return self.classifier(self.hidden(fused))

    def call(self, encoded: Encoded) -> TaskOutput:
        """Cross-entropy, against that of chance, ln(N + 1)."""
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
            encoded.truth("rgb", "subsequences")["odd"], self._logits(encoded))
        return TaskOutput(loss=loss, mask=self.mask(encoded),
                          trivial=tf.fill(tf.shape(loss), math.log(self._sampler.items)))

    def accuracy(self, encoded: Encoded) -> tf.Tensor:
        """1 where the odd one is found, float32 [B]."""
        found = tf.argmax(self._logits(encoded), axis=1, output_type=tf.int32)
        return tf.cast(found == encoded.truth("rgb", "subsequences")["odd"], tf.float32)
