"""The average of the weights over the last steps, which often serves better than the last weights.

The libraries' classes do not fit here: `tf.train.ExponentialMovingAverage` sums all weights over
the devices in every step, though they are equal there, and is no part of a checkpoint; those of
TensorFlow Addons and Model Garden swap by adding and subtracting, which rounds the weights.
"""

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from elo_tf.errors import UserError


class WeightAverages(tf.Module):
    """Exponential moving averages of variables (Polyak and Juditsky, 1992).

    After every step, average += (1 - d) (weight - average), with d = min(decay, (1 + n) / (10 + n))
    after n steps: the first weights, which are noise, are soon forgotten. It is a part of a
    `tf.train.Checkpoint` like any module.

    Attributes:
      averages: of the variables, in their order.
    """

    _TF_MODULE_IGNORED_PROPERTIES = tf.Module._TF_MODULE_IGNORED_PROPERTIES | {"_weights"}

    def __init__(self, variables: Sequence[tf.Variable], decay: float = 0.999):
        """Starts the averages at the variables' values; call it inside the strategy's scope.

        Args:
          variables: to average, of any floating type.
          decay: of a step, in [0, 1).

        Raises:
          UserError: if the decay is out of range.
        """
        super().__init__(name="averages")
        if not 0 <= decay < 1:
            raise UserError(f"the decay of the averaged weights is {decay}; it must be 0 or more, "
                            "and less than 1")
        self._decay = decay
        self._watch(variables)
        self.averages = [
            tf.Variable(v.read_value(), trainable=False, dtype=v.dtype,
                        name=f"{v.name.split(':')[0]}/average") for v in variables]

    @tf.__internal__.tracking.no_automatic_dependency_tracking
    def _watch(self, variables: Sequence[tf.Variable]) -> None:
        # The weights are another part of the checkpoint, and not this module's variables.
        self._weights = tuple(variables)

    def update(self, step: tf.Tensor) -> None:
        """Moves the averages; call it in `strategy.run`, at the end of a train step.

        Args:
          step: integer [], the steps done, this one among them: the optimiser's `iterations`.
        """
        done = tf.cast(step, tf.float32)
        rate = 1.0 - tf.minimum(self._decay, (1.0 + done) / (10.0 + done))
        # As Keras's optimisers do: every device updates its own copy.
        tf.__internal__.distribute.interim.maybe_merge_call(
            self._move, tf.distribute.get_strategy(), rate)

    def _move(self, strategy: tf.distribute.Strategy, rate: tf.Tensor) -> None:
        def move(average, weight, rate):
            return average.assign_add(tf.cast(rate, average.dtype) * (weight - average))

        for average, weight in zip(self.averages, self._weights, strict=True):
            strategy.extended.update(average, move, args=(weight, rate), group=False)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Puts the averages in the place of the weights, which return afterwards to the bit.

        Call it outside of `strategy.run`. The statistics of batch normalisation are not averaged:
        estimate them anew for the averaged weights.
        """
        kept = [tf.identity(v.read_value()) for v in self._weights]
        try:
            for weight, average in zip(self._weights, self.averages, strict=True):
                weight.assign(average.read_value())
            yield
        finally:
            for weight, value in zip(self._weights, kept, strict=True):
                weight.assign(value)
