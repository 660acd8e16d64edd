"""Distillation: layers of the flow, gray and audio networks are infused into the RGB one.

    L_d(L_i, M_i) = || L_i - M_i ||_2        (paper, the distillation loss; a norm, not its square)

M_i is an activation of the main (RGB) network, L_i the same site of another one, both averaged over
time and space. The paper's Figure 2 draws three blocks and the final feature for every source.
"""

import functools
from collections.abc import Callable

import gin
import tensorflow as tf

from elo_tf.tasks.task import (
    Encoded,
    Shapes,
    Task,
    TaskOutput,
    ViewKey,
    sum_over_replicas,
)

SOURCES = ("flow", "gray", "audio")
SITES = ("block1", "block2", "block3", "embedding")
EPSILON = 1e-6
LEAST_DEVIATION = 0.1  # as a share of the activation's length


@gin.register
class Distill(Task):
    """`distill/{source}/{site}`: RGB's activation towards the source's; gradient to RGB.

    Where widths differ, a 1x1 projection of RGB's activation to the source's width is learned too
    (the hints of Romero et al., "FitNets", ICLR 2015).
    """

    family = "distill"

    def __init__(self, source: str, site: str, *, stop_gradient: bool = True,
                 always_project: bool = False):
        """Makes the task.

        Args:
          source: the modality whose network teaches.
          site: the activation.
          stop_gradient: whether the source is left as it is; Figure 2's arrows point into RGB
            only (our reading).
          always_project: learn the projection also where widths agree, starting from the identity
            (our choice). RGB's activation then has to hold what the source's does. Without it, it
            has to be the same: it cannot come near several sources at once, and loses what none of
            them knows.
        """
        super().__init__(source, name=f"{self.family}/{source}/{site}")
        self.source = source
        self.site = site
        self._stop_gradient = stop_gradient
        self._always_project = always_project
        self.projection: tf.keras.layers.Layer | None = None

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
        if source != main or self._always_project:
            initial = "identity" if source == main else "glorot_uniform"
            self.projection = tf.keras.layers.Dense(
                source, use_bias=False, kernel_initializer=initial)
            self.projection.build((None, main))

    def call(self, encoded: Encoded) -> TaskOutput:
        """The distance of each example, against that of always answering the source's mean."""
        source = encoded.activation(self.source, "intact", self.site)
        if self._stop_gradient:
            source = tf.stop_gradient(source)
        main = encoded.activation("rgb", "intact", self.site)
        if self.projection is not None:
            main = self.projection(main)
        mask = self.mask(encoded)
        deviation = norm(source - mean_of_present(source, mask))
        # A source that says nearly the same of every clip would divide by nearly nothing.
        trivial = tf.maximum(deviation, LEAST_DEVIATION * norm(source))
        return TaskOutput(loss=norm(source - main), mask=mask, trivial=trivial)


def mean_of_present(activation: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """Mean float32 [C] of [B, C] over the examples of the global batch that are present [B]."""
    kept = tf.cast(present, tf.float32)[:, tf.newaxis]
    total = tf.reduce_sum(kept * tf.stop_gradient(activation), axis=0)
    count = tf.reduce_sum(kept, axis=0)
    total, count = tf.split(sum_over_replicas(tf.concat([total, count], axis=0)),
                            [activation.shape[-1], 1])
    return total / tf.maximum(count, 1.0)


def norm(vectors: tf.Tensor) -> tf.Tensor:
    """Euclidean length of [B, D], with a finite gradient at zero."""
    return tf.sqrt(tf.reduce_sum(tf.square(vectors), axis=-1) + EPSILON)
