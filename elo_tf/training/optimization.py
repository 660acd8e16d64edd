"""The optimiser and its learning rate: linear warm-up, then a cosine to zero."""

from collections.abc import Sequence

import gin
import tensorflow as tf

from elo_tf import model_garden


@gin.register
def make_optimizer(steps: int, *, learning_rate: float = 1e-3, warmup: float = 0.05,
                   clip_norm: float = 1.0) -> tf.keras.optimizers.legacy.Optimizer:
    """Adam with warm-up and cosine decay; the paper names no optimiser, so all is our choice.

    It is Keras's legacy Adam, whose update is one fused operation a variable: the step of forty
    losses compiles in two thirds of the time of the newer class.

    Args:
      steps: of the whole training.
      learning_rate: at the end of the warm-up, which rises to it in equal parts from the first
        step on.
      warmup: share of the steps.
      clip_norm: of the gradient of the weighted sum over all variables.
    """
    warmup_steps = max(round(steps * warmup), 1)
    decay = tf.keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    # From 0, the first step would be none: one in twenty of the demo's proxies.
    schedule = model_garden.schedules().LinearWarmup(
        decay, warmup_steps, warmup_learning_rate=learning_rate / (warmup_steps + 1))
    return tf.keras.optimizers.legacy.Adam(schedule, global_clipnorm=clip_norm)


def create_slots(optimizer: tf.keras.optimizers.legacy.Optimizer,
                 variables: Sequence[tf.Variable]) -> None:
    """Makes the optimiser's variables now, so that they can be restored or put back.

    Call it inside the strategy's scope. Keras makes them in the first step otherwise, and has no
    public way to ask for them earlier.
    """
    optimizer._create_all_weights(variables)
