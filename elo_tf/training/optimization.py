"""The optimiser and its learning rate: linear warm-up, then a cosine to zero."""

import gin
import tensorflow as tf

from elo_tf import model_garden


@gin.register
def make_optimizer(steps: int, *, learning_rate: float = 1e-3, warmup: float = 0.05,
                   weight_decay: float = 1e-4, clip_norm: float = 1.0,
                   ) -> tf.keras.optimizers.Optimizer:
    """AdamW with warm-up and cosine decay; the paper names no optimiser, so all is our choice.

    Args:
      steps: of the whole training.
      learning_rate: at the end of the warm-up.
      warmup: share of the steps.
      weight_decay: decoupled, on all variables.
      clip_norm: of the gradient of the weighted sum over all variables.
    """
    warmup_steps = max(round(steps * warmup), 1)
    decay = tf.keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    schedule = model_garden.schedules().LinearWarmup(decay, warmup_steps, warmup_learning_rate=0.0)
    return tf.keras.optimizers.AdamW(schedule, weight_decay=weight_decay,
                                     global_clipnorm=clip_norm)
