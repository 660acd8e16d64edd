"""Batch-norm statistics for the features that are kept ("precise BN").

In training, batches hold shuffled and reversed clips too, and the weights move on under the moving
averages. Features are taken with statistics of intact clips under the final weights.
"""

from collections.abc import Iterable

import tensorflow as tf

from elo_tf.models.normalization import frozen_averages


class BatchStatistics:
    """Re-estimates an encoder's moving averages over batches; compiled once."""

    def __init__(self, encoder: tf.keras.Model):
        """Wraps an encoder; nothing is traced yet."""
        self._layers = [layer for layer in encoder.layers
                        if isinstance(layer, tf.keras.layers.BatchNormalization)]
        probe = tf.keras.Model(encoder.input, [layer.input for layer in self._layers])

        @tf.function(reduce_retracing=True)
        def batch_moments(inputs: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
            # Of what the layers are given: the moving variances have Bessel's correction on one
            # device and none on several.
            with frozen_averages():
                return [tf.nn.moments(tf.cast(x, tf.float32), list(range(x.shape.rank - 1)))
                        for x in probe(inputs, training=True)]

        self._batch_moments = batch_moments

    def estimate(self, batches: Iterable[tf.Tensor]) -> None:
        """Sets the moving averages to the moments of all batches together.

        Args:
          batches: the encoder's input, float32 [B, ...] each; all of one size.

        Raises:
          ValueError: if there is no batch.
        """
        count = 0
        totals = None
        for batch in batches:
            moments = [(mean, variance + tf.square(mean))
                       for mean, variance in self._batch_moments(batch)]
            count += 1
            totals = moments if totals is None else [
                (a + c, b + d) for (a, b), (c, d) in zip(totals, moments, strict=True)]
        if totals is None:
            raise ValueError("no batch to estimate batch-norm statistics from")
        for layer, (mean, square) in zip(self._layers, totals, strict=True):
            mean = mean / count
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(tf.maximum(square / count - tf.square(mean), 0.0))
