"""The loss space: names of losses <-> vector of weights, and the weighted sum.

    L = sum_{m,t} lambda_{m,t} L_{m,t} + sum_d lambda_d L_d        every lambda in [0, 1]

Weights are keyed by name everywhere; the order of the vector is stored with every result.
"""

from collections.abc import Mapping, Sequence

import gin
import numpy as np
import tensorflow as tf

from elo_tf.data.clip_spec import MODALITIES
from elo_tf.errors import UserError
from elo_tf.tasks.alignment import Align
from elo_tf.tasks.contrastive import Contrast
from elo_tf.tasks.distillation import Distill
from elo_tf.tasks.ordering import Reverse, Shuffle
from elo_tf.tasks.prediction import Predict
from elo_tf.tasks.reconstruction import Reconstruct
from elo_tf.tasks.task import Shapes, Task, TaskOutput, sum_over_replicas
from elo_tf.tasks.transfer import Transfer

FAMILIES = (Reconstruct, Predict, Transfer, Shuffle, Reverse, Contrast, Align, Distill)


@gin.register
class LossSpace:
    """The losses that a weight vector weighs: by default the paper's 28 + 12 = 40.

    The paper does not state the number; seven tasks for each of four modalities and distillation
    at four sites from three networks is our reading of its Figure 2.

    Attributes:
      names: tuple of the losses' names, in the order of the vector: by modality, then by family;
        distillation last.
    """

    def __init__(self, families: Sequence[type[Task]] = FAMILIES, *, dead_zone: float = 0.02,
                 normalise: bool = True, floor: float = 1e-3):
        """Makes the space.

        Args:
          families: task classes; to add one is to name it here.
          dead_zone: weights below it count as 0, since a search under bounds never proposes an
            exact 0 (our choice).
          normalise: divide every loss by that of a trivial predictor, so that weights weigh tasks
            and not units (our choice; the paper says nothing of it).
          floor: the least such divisor.
        """
        members = [(name, make) for family in families for name, make in family.members().items()]
        rank = {modality: i for i, modality in enumerate(MODALITIES)}
        members.sort(key=lambda member: rank.get(member[0].split("/")[0], len(rank)))
        self._constructors = dict(members)
        if len(self._constructors) != len(members):
            raise UserError("LossSpace.families names a family twice")
        self.names = tuple(self._constructors)
        self.dead_zone = dead_zone
        self.normalise = normalise
        self.floor = floor

    def to_vector(self, weights: Mapping[str, float]) -> np.ndarray:
        """Weights by name -> float64 [len(names)].

        Raises:
          UserError: naming what is unknown, missing, or outside [0, 1].
        """
        self._check(weights)
        missing = [name for name in self.names if name not in weights]
        if missing:
            raise UserError(f"loss weights lack {', '.join(missing)}")
        return np.array([float(weights[name]) for name in self.names])

    def to_dict(self, vector: Sequence[float]) -> dict[str, float]:
        """A vector [len(names)] -> weights by name.

        Raises:
          UserError: if its length is another.
        """
        if len(vector) != len(self.names):
            raise UserError(f"{len(vector)} loss weights were given for {len(self.names)} losses")
        return {name: float(value) for name, value in zip(self.names, vector, strict=True)}

    def effective(self, weights: Mapping[str, float]) -> dict[str, float]:
        """The weights that training uses: those in the dead zone are exactly 0."""
        self._check(weights)
        return {name: weight if weight >= self.dead_zone else 0.0
                for name, weight in weights.items()}

    def active(self, weights: Mapping[str, float]) -> tuple[str, ...]:
        """Names of the losses whose weight is not 0, in the order of `names`.

        Raises:
          UserError: if there is none.
        """
        effective = self.effective(weights)
        active = tuple(name for name in self.names if effective.get(name, 0.0) > 0)
        if not active:
            raise UserError(f"no loss weight reaches {self.dead_zone}: nothing would be trained")
        return active

    def build_tasks(self, names: Sequence[str], shapes: Shapes) -> list[Task]:
        """Constructs the tasks of these names, with their heads."""
        tasks = [self._constructors[name]() for name in names]
        for task in tasks:
            task.build_heads(shapes)
        return tasks

    def task(self, name: str) -> Task:
        """Constructs one task, without heads."""
        return self._constructors[name]()

    def _check(self, weights: Mapping[str, float]) -> None:
        unknown = [name for name in weights if name not in self._constructors]
        if unknown:
            raise UserError(
                f"unknown loss {unknown[0]!r}; the losses are: {', '.join(self.names)}")
        for name, weight in weights.items():
            if not 0.0 <= weight <= 1.0:
                raise UserError(f"the weight of {name} is {weight}; weights lie in [0, 1]")


def global_shares(outputs: Sequence[TaskOutput], counts: tf.Tensor, *, normalise: bool = True,
                  floor: float = 1e-3) -> tf.Tensor:
    """This replica's share of every loss's mean over the global batch.

    The shares of all replicas sum to the mean over the valid examples, divided by the trivial
    predictor's mean; so do their gradients.

    Args:
      outputs: of n tasks.
      counts: float32 [n], valid examples of the global batch, of which this may be a part.
      normalise: whether to divide by the trivial predictor's loss, on the examples that are here.
      floor: the least divisor.

    Returns:
      float32 [n]; exactly 0, with zero gradient, where no example is valid.
    """
    zero = tf.zeros([])
    sums = tf.stack([tf.reduce_sum(tf.where(o.mask, o.loss, zero)) for o in outputs])
    divisor = tf.maximum(counts, 1.0)
    if normalise:
        here = tf.stack([tf.reduce_sum(tf.cast(o.mask, tf.float32)) for o in outputs])
        trivial = tf.stack([tf.reduce_sum(tf.where(o.mask, o.trivial, zero)) for o in outputs])
        here, trivial = tf.unstack(
            sum_over_replicas(tf.stop_gradient(tf.stack([here, trivial]))))
        divisor *= tf.maximum(trivial / tf.maximum(here, 1.0), floor)
    return sums / divisor
