"""Batch normalisation as all networks here use it: one place for its settings."""

import contextlib
import threading
from collections.abc import Iterator

import gin
import tensorflow as tf

_state = threading.local()  # a strategy traces each of its replicas in a thread of its own


@gin.configurable
def batch_norm(
    name: str | None = None, *, momentum: float = 0.9, epsilon: float = 1e-5
) -> "BatchNorm":
    """A batch normalisation layer that fits the current distribution strategy.

    With more than one replica the statistics are those of the whole batch of the step, so that N
    devices compute what one would. With one replica the layer keeps the fused kernel, which
    Keras leaves out for synchronised layers.

    Args:
        name: of the layer.
        momentum: of the moving averages; 0.9 (our choice) follows trainings of a few hundred
            steps, where Keras's 0.99 would still remember the first.
        epsilon: added to the variance.

    Returns:
        An unbuilt layer.
    """
    synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return BatchNorm(momentum=momentum, epsilon=epsilon, synchronized=synchronized, name=name)


@contextlib.contextmanager
def counted_examples(counted: tf.Tensor | None) -> Iterator[None]:
    """Leaves examples out of the statistics of the synchronised layers that are called inside.

    A replica without an example of its own must still call its network, on one that stands in.
    This keeps the stand-in from the statistics of the others.

    Args:
        counted: bool [B], the examples that count, at least one on some replica; None for all.
    """
    before = examples_counted()
    _state.counted = counted
    try:
        yield
    finally:
        _state.counted = before


def examples_counted() -> tf.Tensor | None:
    """What the `counted_examples` around the caller were given; None outside."""
    return getattr(_state, "counted", None)


@contextlib.contextmanager
def frozen_averages() -> Iterator[None]:
    """Layers called inside, in training mode too, leave their moving averages as they are.

    They still normalise with the statistics of the batch. For a second forward pass over the
    same batch, as recomputing activations makes, so that the averages move once a step.
    """
    before = getattr(_state, "frozen", False)
    _state.frozen = True
    try:
        yield
    finally:
        _state.frozen = before


class BatchNorm(tf.keras.layers.BatchNormalization):
    """Keras's layer; with several replicas, its statistics are of all their counted examples.

    It has Keras's variables and configuration: encoders are saved with the plain layer.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalises [B, ..., C]."""
        counted = examples_counted()
        if counted is not None and self.synchronized:
            mask = tf.reshape(counted, [-1] + [1] * (inputs.shape.rank - 2))
        return super().call(inputs, training=training, mask=mask)

    # Keras moves its averages by the first of these, the fused kernel's by the second.
    def _assign_moving_average(self, variable, value, momentum, inputs_size):
        if not getattr(_state, "frozen", False):
            super()._assign_moving_average(variable, value, momentum, inputs_size)

    def _assign_new_value(self, variable, value):
        if not getattr(_state, "frozen", False):
            super()._assign_new_value(variable, value)
