"""Learning rates that fall from the classifier to the stem, for any optimiser.

A step of an optimiser is taken as it is, and each variable then keeps the share of it that its
layer's rate says. All of ours move a variable in proportion to the learning rate, momentum and
weight decay included, so that this is the same as a learning rate of its own.
"""

import re
from collections.abc import Sequence

import tensorflow as tf

HEAD = 5  # above the stem, 0, and the four blocks
_STAGE = re.compile(r"stem_|block([1-4])_")


def layer_rates(encoder: tf.keras.Model, decay: float) -> list[float]:
    """What share of the classifier's learning rate each variable of an encoder gets.

    Args:
      encoder: of `models.video_resnet`, or with layers named as there.
      decay: from a stage to the one below; 1 gives all the same. Of the five stages, the stem gets
        decay^5 and the fourth block decay.

    Returns:
      Shares in the order of `encoder.trainable_variables`.

    Raises:
      ValueError: for a layer of no stage.
    """
    found = {}
    for layer in encoder.layers:
        for variable in layer.trainable_variables:
            stage = _STAGE.match(layer.name)
            if stage is None:
                raise ValueError(f"the layer {layer.name!r} is of no stage: stem_..., block1_... "
                                 "to block4_...")
            found[variable.ref()] = decay ** (HEAD - int(stage[1] or 0))
    return [found[variable.ref()] for variable in encoder.trainable_variables]


def apply_gradients(optimizer: tf.keras.optimizers.legacy.Optimizer,
                    gradients: Sequence[tf.Tensor], variables: Sequence[tf.Variable],
                    rates: Sequence[float]) -> None:
    """Takes a step; call it in `strategy.run`.

    Args:
      optimizer: with one of `training.optimization`.
      gradients: summed over the devices.
      variables: of the same shapes.
      rates: shares of the optimiser's learning rate, in (0, 1].
    """
    slowed = [(v, rate) for v, rate in zip(variables, rates, strict=True) if rate != 1.0]
    before = [v.read_value() for v, _ in slowed]
    optimizer.apply_gradients(zip(gradients, variables, strict=True),
                              experimental_aggregate_gradients=False)

    def shorten(strategy: tf.distribute.Strategy, before: Sequence[tf.Tensor]) -> None:
        def shortened(variable, old, rate):
            return variable.assign(old + rate * (variable - old))

        for (variable, rate), old in zip(slowed, before, strict=True):
            strategy.extended.update(variable, shortened, args=(old, rate), group=False)

    # As Keras's optimisers do: every device updates its own copy.
    tf.__internal__.distribute.interim.maybe_merge_call(
        shorten, tf.distribute.get_strategy(), before)
