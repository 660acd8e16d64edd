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

    It has Keras's variables and configuration: encoders are saved with the plain layer. On CPUs
    it takes videos to oneDNN's kernel (four times as fast as TensorFlow's own), which is for four
    dimensions only.
    """

    _data_format: str

    def build(self, input_shape):
        """Makes the variables."""
        super().build(input_shape)
        self._flattens = (self.fused and self._data_format == "NDHWC"
                          and not tf.config.list_physical_devices("GPU"))
        if self._flattens:
            self._data_format = "NHWC"

    def call(self, inputs, training=None, mask=None):
        """Normalises [B, ..., C]."""
        counted = examples_counted()
        if counted is not None and self.synchronized:
            mask = tf.reshape(counted, [-1] + [1] * (inputs.shape.rank - 2))
        return super().call(inputs, training=training, mask=mask)

    @tf.autograph.experimental.do_not_convert
    def _fused_batch_norm(self, inputs, mask, training):
        if not self._flattens:
            return super()._fused_batch_norm(inputs, mask, training)
        flat = tf.reshape(inputs, [-1, 1, 1, inputs.shape[-1]])
        flat = super()._fused_batch_norm(flat, mask, training)
        known = None not in inputs.shape[1:]
        return tf.reshape(flat, [-1, *inputs.shape[1:]] if known else tf.shape(inputs))

    def _support_zero_size_input(self):
        # Encoders never see an empty batch. Under a strategy Keras would put each layer of a batch
        # of unknown size into a condition, which takes long to trace.
        return False

    # Keras moves its averages by the first of these, the fused kernel's by the second.
    def _assign_moving_average(self, variable, value, momentum, inputs_size):
        if not getattr(_state, "frozen", False):
            super()._assign_moving_average(variable, value, momentum, inputs_size)

    def _assign_new_value(self, variable, value):
        if not getattr(_state, "frozen", False):
            super()._assign_new_value(variable, value)

    def _sync_calculate_mean_and_var(self, x, reduction_axes, keep_dims, mask=None):
        # Keras's own reduces three times over the devices, each time in the precision of x, and
        # counts the elements one by one.
        y = tf.cast(x, tf.float32)
        count = tf.cast(tf.size(x) / x.shape[-1], tf.float32)
        if mask is not None:
            weights = tf.cast(mask, tf.float32)[..., tf.newaxis]
            count *= tf.reduce_mean(weights)
            y *= weights
        sums = [tf.reduce_sum(values, reduction_axes) for values in (y, tf.square(y))]
        context = tf.distribute.get_replica_context()
        total, squares, count = tf.split(
            context.all_reduce(tf.distribute.ReduceOp.SUM, tf.concat([*sums, [count]], 0)),
            [x.shape[-1], x.shape[-1], 1])
        mean = total / count
        variance = squares / count - tf.square(mean)
        if keep_dims:
            shape = [1] * (x.shape.rank - 1) + [x.shape[-1]]
            mean, variance = tf.reshape(mean, shape), tf.reshape(variance, shape)
        return mean, variance
