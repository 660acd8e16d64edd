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
) -> tf.keras.layers.BatchNormalization:
    """A Keras batch normalisation layer that fits the current distribution strategy.

    With more than one replica the statistics are those of the whole batch of the step, so that N
    devices compute what one would. With one replica the layer keeps the fused kernel, which
    Keras leaves out for synchronised layers.

    Args:
        name: of the layer.
        momentum: of the moving averages; 0.9 (our choice) follows trainings of a few hundred
            steps, where Keras's 0.99 would still remember the first.
        epsilon: added to the variance.

    Returns:
        An unbuilt layer; with one replica, serialisable without this package.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return SynchronisedBatchNorm(
            momentum=momentum, epsilon=epsilon, synchronized=True, name=name
        )
    return tf.keras.layers.BatchNormalization(momentum=momentum, epsilon=epsilon, name=name)


@contextlib.contextmanager
def counted_examples(counted: tf.Tensor) -> Iterator[None]:
    """Leaves examples out of the statistics of the synchronised layers that are called inside.

    A replica without an example of its own must still call its network, on one that stands in.
    This keeps the stand-in from the statistics of the others.

    Args:
        counted: bool [B], the examples that count; at least one on some replica.
    """
    _state.counted = counted
    try:
        yield
    finally:
        _state.counted = None


class SynchronisedBatchNorm(tf.keras.layers.BatchNormalization):
    """Keras's layer, with statistics of the counted examples of all replicas.

    It has Keras's variables and configuration: encoders are saved with the plain layer.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalises [B, ..., C]."""
        counted = getattr(_state, "counted", None)
        if counted is not None:
            mask = tf.reshape(counted, [-1] + [1] * (inputs.shape.rank - 2))
        return super().call(inputs, training=training, mask=mask)
