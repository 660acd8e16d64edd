"""Batch normalisation as all networks here use it: one place for its settings."""

import gin
import tensorflow as tf


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
        An unbuilt layer, serialisable without this package.
    """
    return tf.keras.layers.BatchNormalization(
        momentum=momentum,
        epsilon=epsilon,
        synchronized=tf.distribute.get_strategy().num_replicas_in_sync > 1,
        name=name,
    )
