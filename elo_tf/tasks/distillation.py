"""Distillation: layers of the flow, gray and audio networks are infused into the RGB one.

    L_d(L_i, M_i) = || L_i - M_i ||_2        (paper, the distillation loss; a norm, not its square)

M_i is an activation of the main (RGB) network, L_i the same site of another one, both averaged over
time and space. The paper's Figure 2 draws three blocks and the final feature for every source.
"""

import functools
from collections.abc import Callable

import gin
import tensorflow as tf

from elo_tf.tasks.task import Encoded, Shapes, Task, TaskOutput, ViewKey

SOURCES = ("flow", "gray", "audio")
SITES = ("block1", "block2", "block3", "embedding")
EPSILON = 1e-6


@gin.register
class Distill(Task):
    """`distill/{source}/{site}`: RGB's activation towards the source's; gradient to RGB.

    Where widths differ, a 1x1 projection of the source is learned too.
    """

    family = "distill"

    def __init__(self, source: str, site: str, *, stop_gradient: bool = True):
        """Makes the task.

        Args:
          source: the modality whose network teaches.
          site: the activation.
          stop_gradient: whether the source is left as it is; Figure 2's arrows point into RGB
            only (our reading).
        """
        super().__init__(source, name=f"{self.family}/{source}/{site}")
        self.source = source
        self.site = site
        self._stop_gradient = stop_gradient
        self.projection = None

    @classmethod
    def members(cls) -> dict[str, Callable[[], Task]]:
        """Twelve losses: three sources at four sites."""
        return {f"{cls.family}/{source}/{site}": functools.partial(cls, source, site)
                for source in SOURCES for site in SITES}

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """Both intact clips."""
        return (("rgb", "intact"), (self.source, "intact"))

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the projection, where one is needed."""
        source, main = (shapes.widths[m][self.site] for m in (self.source, "rgb"))
        if source != main:
            self.projection = tf.keras.layers.Dense(main, use_bias=False)
            self.projection.build((None, source))

    def call(self, encoded: Encoded) -> TaskOutput:
        """The distance of each example, against the source's own length (RGB silent)."""
        source = encoded.activation(self.source, "intact", self.site)
        if self._stop_gradient:
            source = tf.stop_gradient(source)
        if self.projection is not None:
            source = self.projection(source)
        main = encoded.activation("rgb", "intact", self.site)
        return TaskOutput(
            loss=norm(source - main),
            mask=encoded.present(self.source),
            trivial=norm(source))


def norm(vectors: tf.Tensor) -> tf.Tensor:
    """Euclidean length of [B, D], with a finite gradient at zero."""
    return tf.sqrt(tf.reduce_sum(tf.square(vectors), axis=-1) + EPSILON)
