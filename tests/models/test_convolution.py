import numpy as np
import pytest
import tensorflow as tf

from elo_tf.models import convolution, video_resnet
from elo_tf.training import encoder_files


def pair(filters, kernel, strides, channels, **settings):
    """Our layer and Keras's own with the same weights."""
    ours = convolution.FactorisedConv3D(filters, kernel, strides, padding="same", **settings)
    keras = tf.keras.layers.Conv3D(filters, kernel, strides, padding="same", **settings)
    for layer in (ours, keras):
        layer.build((None, None, None, None, channels))
    assert [x.name for x in ours.weights] == [x.name for x in keras.weights]
    ours.set_weights(keras.get_weights())
    return ours, keras


def values_and_gradients(layer, x, upstream):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    return y, *tape.gradient(y, [x, *layer.trainable_variables], upstream)


def assert_equal(ours, keras, relative):
    for mine, theirs in zip(ours, keras, strict=True):
        assert mine.shape == theirs.shape and mine.dtype == theirs.dtype
        mine, theirs = (np.asarray(tf.cast(v, tf.float32)) for v in (mine, theirs))
        assert np.abs(mine - theirs).max() <= relative * np.abs(theirs).max()


SHAPES = [
    # kernel, strides, [T, H, W], channels, filters
    ((3, 1, 1), 1, (4, 5, 3), 6, 4),  # time, shifts of the gradient
    ((3, 1, 1), 1, (5, 2, 3), 3, 7),  # time, shifts of the input
    ((3, 1, 1), 1, (1, 2, 2), 3, 2),
    ((3, 1, 1), (2, 1, 1), (7, 3, 2), 3, 4),
    ((3, 1, 1), (2, 1, 1), (8, 3, 2), 3, 4),
    ((2, 1, 1), 1, (4, 3, 3), 4, 2),  # an even kernel has more padding after than before
    ((4, 1, 1), 1, (5, 3, 3), 2, 4),
    ((1, 3, 3), 1, (2, 7, 5), 3, 4),  # space, few cells
    ((1, 2, 4), 1, (2, 5, 6), 3, 4),
    ((1, 3, 3), 1, (2, 11, 13), 3, 4),
    ((1, 3, 3), (1, 2, 2), (3, 9, 8), 3, 4),
    ((1, 7, 7), (1, 2, 3), (2, 20, 21), 2, 3),
    ((1, 3, 1), 1, (2, 6, 5), 3, 4),
    (1, 1, (2, 3, 5), 4, 3),
    (1, 2, (5, 4, 7), 4, 3),
    ((2, 3, 3), (1, 2, 2), (3, 5, 5), 2, 3),  # both: Keras's own
    ((3, 1, 1), (1, 2, 2), (3, 5, 5), 2, 3),  # does not fit its kernel: Keras's own
]


@pytest.mark.parametrize("kernel, strides, size, channels, filters", SHAPES)
def test_values_and_gradients_are_those_of_keras(kernel, strides, size, channels, filters):
    ours, keras = pair(filters, kernel, strides, channels, use_bias=False)
    x = tf.random.stateless_normal([2, *size, channels], [1, 2])
    y = tf.random.stateless_normal(keras(x).shape, [3, 4])
    expected = values_and_gradients(keras, x, y)
    assert_equal(values_and_gradients(ours, x, y), expected, 1e-5)

    # Once more as in training on batches of any size: no static shape but the channels'.
    unknown = [tf.TensorSpec([None] * 4 + [channels]), tf.TensorSpec([None] * 4 + [filters])]
    step = tf.function(lambda a, b: values_and_gradients(ours, a, b), input_signature=unknown)
    assert_equal(step(x, y), expected, 1e-5)


@pytest.mark.parametrize("kernel", [(3, 1, 1), (1, 3, 3)])
def test_bias_and_activation(kernel):
    ours, keras = pair(
        3, kernel, 1, 4, activation="relu", bias_initializer=tf.keras.initializers.Constant(0.1))
    x = tf.random.stateless_normal([2, 3, 5, 4, 4], [1, 2])
    y = tf.random.stateless_normal([2, 3, 5, 4, 3], [3, 4])
    assert_equal(values_and_gradients(ours, x, y), values_and_gradients(keras, x, y), 1e-5)


@pytest.mark.parametrize("kernel", [(3, 1, 1), (1, 3, 3)])
def test_mixed_precision_rounds_as_bfloat16_does(kernel):
    ours, keras = pair(8, kernel, 1, 16, use_bias=False, dtype="mixed_bfloat16")
    x = tf.cast(tf.random.stateless_normal([2, 4, 6, 6, 16], [1, 2]), tf.bfloat16)
    y = tf.cast(tf.random.stateless_normal([2, 4, 6, 6, 8], [3, 4]), tf.bfloat16)
    got = values_and_gradients(ours, x, y)
    assert got[0].dtype == tf.bfloat16 and got[-1].dtype == tf.float32
    exact, _ = pair(8, kernel, 1, 16, use_bias=False)
    exact.set_weights([np.asarray(tf.cast(tf.cast(ours.kernel, tf.bfloat16), tf.float32))])
    expected = values_and_gradients(exact, tf.cast(x, tf.float32), tf.cast(y, tf.float32))
    for mine, theirs in zip(got, expected, strict=True):
        mine = np.asarray(tf.cast(mine, tf.float32))
        assert np.abs(mine - theirs).max() <= 2**-7 * np.abs(theirs).max()


def test_an_encoder_is_saved_with_the_layers_of_keras(tmp_path):
    model = video_resnet.video_encoder(3, depth=10, width=0.0625)
    assert any(type(x) is convolution.FactorisedConv3D for x in model.layers)
    encoder_files.save_encoder(model, tmp_path)
    loaded = encoder_files.load_encoder(tmp_path)
    assert [x.name for x in loaded.layers] == [x.name for x in model.layers]
    assert {type(x).__module__.partition(".")[0] for x in loaded.layers} == {"keras"}
