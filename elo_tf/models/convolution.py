"""3-D convolutions over space alone or time alone, with a faster gradient of their weights.

On a CPU oneDNN computes such convolutions, and their gradient in respect of the input, at the rate
of large matrix products. The gradient in respect of the weights it computes at half of that for
kernels of t x 1 x 1, on images of few cells, and in bfloat16. There we take a product of matrices,
or the 2-D convolution's gradient over [B * T, H, W, C]. On a GPU the 3-D convolution is kept.
"""

import tensorflow as tf

# Up to so many cells H * W a product with unfolded neighbourhoods is faster than a convolution's
# gradient (measured with AVX-512: 7 x 7 gains up to 2x, 14 x 14 little, 28 x 28 loses).
FEW_CELLS = 100


class FactorisedConv3D(tf.keras.layers.Conv3D):
    """Keras's Conv3D, faster in training on CPUs if its kernel spans space alone or time alone.

    It has Keras's variables and configuration: encoders are saved with the plain layer.
    """

    @tf.autograph.experimental.do_not_convert
    def convolution_op(self, inputs, kernel):
        """The convolution alone, without bias; called by Keras."""
        gradient = None if self._is_general(inputs) else _filter_gradient(
            inputs, self.kernel_size, self.strides)
        if gradient is None:
            return super().convolution_op(inputs, kernel)
        strides = [1, *self.strides, 1]

        @tf.custom_gradient
        def convolve(x, kernel):
            def gradients(upstream):
                sizes = x.shape if x.shape.is_fully_defined() else tf.shape(x)
                to_inputs = tf.raw_ops.Conv3DBackpropInputV2(
                    input_sizes=sizes, filter=kernel, out_backprop=upstream, strides=strides,
                    padding="SAME")
                # What is made of x alone would else be made, and kept, in the forward pass.
                with tf.control_dependencies([upstream]):
                    return to_inputs, tf.reshape(gradient(x, upstream), kernel.shape)

            return tf.nn.conv3d(x, kernel, strides, "SAME"), gradients

        return convolve(inputs, tf.convert_to_tensor(kernel))

    def _is_general(self, inputs) -> bool:
        return (self.padding != "same" or self.groups > 1 or self.dilation_rate != (1, 1, 1)
                or self.data_format != "channels_last" or None in inputs.shape[1:]
                or bool(tf.config.list_physical_devices("GPU")))


def _filter_gradient(x: tf.Tensor, kernel_size, strides):
    """The fastest way to the weights' gradient that we know of; None where it is TensorFlow's own.

    Args:
        x: the convolution's input, [B, T, H, W, C].
        kernel_size: (t, h, w).
        strides: over T, H and W.

    Returns:
        None or a function from x and the gradient of the output to that of the kernel, in any
        shape with the kernel's order.
    """
    time, *space = kernel_size
    if time > 1:
        if space == [1, 1] and strides == (1, 1, 1):
            return lambda x, upstream: _product_over_time(x, upstream, time)
        return None
    if space == [1, 1]:
        if strides == (1, 1, 1) and x.dtype == tf.float32:
            return lambda x, upstream: _product(x, upstream)
        return None
    if strides[0] > 1:
        return None
    if strides == (1, 1, 1) and x.shape[2] * x.shape[3] <= FEW_CELLS:
        return lambda x, upstream: _product_over_neighbourhoods(x, upstream, space)
    return lambda x, upstream: _gradient_2d(x, upstream, space, strides[1:])


def _product(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """The sum of x' y over all positions, [C, D], of [..., C] and [..., D]."""
    return tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), tf.reshape(y, [-1, y.shape[-1]]),
                     transpose_a=True)


def _product_over_time(x: tf.Tensor, upstream: tf.Tensor, steps: int) -> tf.Tensor:
    """A gradient over time: one side times shifted copies, side by side, of the narrower other.

    With b = (steps - 1) // 2 frames of padding before the clip, dK[j] = sum_i x[i + j - b]' dy[i].

    Args:
        x: [B, T, H, W, C].
        upstream: dy, [B, T, H, W, D].
        steps: frames of the kernel.

    Returns:
        [steps, C, D].
    """
    channels, filters = x.shape[-1], upstream.shape[-1]
    before = (steps - 1) // 2
    after = steps - 1 - before
    if channels < filters:
        return _product(_shifted(x, before, after), upstream)
    product = _product(x, _shifted(upstream, after, before, backwards=True))
    return tf.transpose(tf.reshape(product, [channels, steps, filters]), [1, 0, 2])


def _shifted(x: tf.Tensor, before: int, after: int, backwards: bool = False) -> tf.Tensor:
    """Copies of x that begin `before` frames early to `after` frames late, [B, T, H, W, n C]."""
    frames = x.shape[1]
    padded = tf.pad(x, [[0, 0], [before, after], [0, 0], [0, 0], [0, 0]])
    copies = [padded[:, start:start + frames] for start in range(before + after + 1)]
    return tf.concat(copies[::-1] if backwards else copies, -1)


def _product_over_neighbourhoods(
    x: tf.Tensor, upstream: tf.Tensor, space: list[int]
) -> tf.Tensor:
    """A gradient over space: all neighbourhoods, unfolded, times the outputs' gradients.

    Args:
        x: [B, T, H, W, C].
        upstream: [B, T, H, W, D].
        space: rows and columns of the kernel.

    Returns:
        [rows * columns * C, D].
    """
    unfolded = tf.image.extract_patches(
        tf.reshape(x, [-1, *x.shape[2:]]), [1, *space, 1], [1] * 4, [1] * 4, "SAME")
    return _product(unfolded, upstream)


def _gradient_2d(
    x: tf.Tensor, upstream: tf.Tensor, space: list[int], strides: tuple[int, int]
) -> tf.Tensor:
    """A gradient over space, of the 2-D convolution of all frames.

    Args:
        x: [B, T, H, W, C].
        upstream: [B, T, h, w, D].
        space: rows and columns of the kernel.
        strides: over H and W.

    Returns:
        [rows, columns, C, D].
    """
    x, upstream = (tf.reshape(v, [-1, *v.shape[2:]]) for v in (x, upstream))
    return tf.raw_ops.Conv2DBackpropFilter(
        input=x, filter_sizes=[*space, x.shape[-1], upstream.shape[-1]], out_backprop=upstream,
        strides=[1, *strides, 1], padding="SAME")
