"""The optimisers and their learning rate: linear warm-up, then a cosine to zero."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import gin
import tensorflow as tf

from elo_tf import model_garden
from elo_tf.errors import UserError

# Biases, scales and shifts of batch normalisation, and learned weights of losses, by the name of
# the variable; the copy on a second device is called "bias/replica_1:0".
NOT_DECAYED = r"(^|/)(bias|gamma|beta|log_variances)(/replica_\d+)?(:\d+)?$"


@gin.register(denylist=["steps", "batch_size"])
def make_optimizer(steps: int, batch_size: int | None = None, *,
                   name: Literal["adam", "adamw", "sgd", "lars"] = "adam",
                   learning_rate: float = 1e-3, reference_batch: int = 0, warmup: float = 0.05,
                   clip_norm: float = 1.0, momentum: float = 0.9, weight_decay: float = 0.0
                   ) -> tf.keras.optimizers.legacy.Optimizer:
    """An optimiser with warm-up and cosine decay; the paper names none, so all is our choice.

    They are Keras's legacy classes, whose update is one fused operation a variable (LARS has
    none): the step of forty losses compiles in two thirds of the time of the newer classes.

    Weight decay follows the schedule and leaves biases and batch normalisation alone. That of
    "adamw" and "sgd" is decoupled from the gradient (Loshchilov and Hutter, arXiv 1711.05101,
    algorithms 1 and 2): every step takes off the learning rate times `weight_decay` of the
    weights. That of "lars" is part of the gradient whose norm sets a layer's rate (You et al.,
    arXiv 1708.03888, algorithm 1, with the norm of the sum in place of the sum of the norms);
    biases and batch normalisation take the plain rate.

    Args:
      steps: of the whole training.
      batch_size: of the global batch, over all devices and accumulated gradients; needed where
        `reference_batch` is set.
      name: of the method.
      learning_rate: at the end of the warm-up, which rises to it in equal parts from the first
        step on.
      reference_batch: the global batch that `learning_rate` is meant for; it grows in proportion
        to the batch (Goyal et al., arXiv 1706.02677, section 2.1). 0: taken as it is.
      warmup: share of the steps.
      clip_norm: of the gradient of the weighted sum over all variables, summed over devices.
        0: not clipped.
      momentum: of "sgd" and "lars", in [0, 1).
      weight_decay: a step, in units of the learning rate; "adam" has none.

    Raises:
      UserError: for values out of range, or without the batch size that they need.
    """
    for parameter, value, wrong, wanted in (
            ("name", name, name not in ("adam", "adamw", "sgd", "lars"),
             "'adam', 'adamw', 'sgd' or 'lars'"),
            ("learning_rate", learning_rate, learning_rate <= 0, "more than 0"),
            ("reference_batch", reference_batch, reference_batch < 0, "0 or more"),
            ("warmup", warmup, not 0 <= warmup <= 1, "0 to 1"),
            ("clip_norm", clip_norm, clip_norm < 0, "0 (not clipped) or more"),
            ("momentum", momentum, not 0 <= momentum < 1, "0 or more, and less than 1"),
            ("weight_decay", weight_decay, weight_decay < 0, "0 or more"),
            ("weight_decay", weight_decay, weight_decay > 0 and name == "adam",
             "0 for 'adam'; make_optimizer.name = 'adamw' decays weights")):
        if wrong:
            raise UserError(f"make_optimizer.{parameter} is {value!r}; it must be {wanted}")
    if reference_batch:
        if batch_size is None:
            raise UserError(f"make_optimizer.reference_batch is {reference_batch}, but this "
                            "training says no batch size to scale the learning rate by; set it "
                            "to 0, and make_optimizer.learning_rate to the rate that you want")
        learning_rate *= batch_size / reference_batch

    schedule = _warmup_cosine(learning_rate, steps, warmup)
    settings = {"global_clipnorm": clip_norm or None}
    if name == "lars":
        return model_garden.lars().LARS(
            schedule, momentum=momentum, weight_decay_rate=weight_decay,
            exclude_from_weight_decay=[NOT_DECAYED], **settings)
    base = tf.keras.optimizers.legacy.SGD if name == "sgd" else tf.keras.optimizers.legacy.Adam
    if name == "sgd":
        settings["momentum"] = momentum
    if not weight_decay:
        return base(learning_rate=schedule, **settings)
    return _decaying(base)(weight_decay=_warmup_cosine(learning_rate * weight_decay, steps, warmup),
                           learning_rate=schedule, **settings)


def _warmup_cosine(peak: float, steps: int, warmup: float
                   ) -> tf.keras.optimizers.schedules.LearningRateSchedule:
    warmup_steps = max(round(steps * warmup), 1)
    decay = tf.keras.optimizers.schedules.CosineDecay(peak, steps)
    # From 0, the first step would be none: one in twenty of the demo's proxies.
    return model_garden.schedules().LinearWarmup(
        decay, warmup_steps, warmup_learning_rate=peak / (warmup_steps + 1))


def _decaying(base: type[tf.keras.optimizers.legacy.Optimizer]
              ) -> type[tf.keras.optimizers.legacy.Optimizer]:
    """The class with decoupled weight decay, by tensorflow-addons."""
    # Imported here: plain Adam has no use for it.
    from tensorflow_addons.optimizers import extend_with_decoupled_weight_decay

    extended: Any = extend_with_decoupled_weight_decay(base)

    class Decaying(extended):
        """Leaves out by name what is not decayed.

        The library's own list of exclusions looks each device's copy up among the mirrored
        variables, finds none, and so decays nothing on several devices.
        """

        def _do_use_weight_decay(self, var):
            return not re.search(NOT_DECAYED, var.name)

    return Decaying


def create_slots(optimizer: tf.keras.optimizers.legacy.Optimizer,
                 variables: Sequence[tf.Variable]) -> None:
    """Makes the optimiser's variables now, so that they can be restored or put back.

    Call it inside the strategy's scope. Keras makes them in the first step otherwise, and has no
    public way to ask for them earlier.
    """
    optimizer._create_all_weights(variables)
