import gin
import numpy as np
import pytest
import tensorflow as tf

from elo_tf.models import normalization, video_resnet


def norms(model):
    return [x for x in model.layers if isinstance(x, tf.keras.layers.BatchNormalization)]


def test_synchronised_only_with_more_than_one_replica(two_replicas):
    assert not normalization.batch_norm("n").synchronized
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        assert not normalization.batch_norm("n").synchronized
    with two_replicas.scope():
        model = video_resnet.video_encoder(1, depth=10, width=0.0625)
    assert all(x.synchronized for x in norms(model))
    model = video_resnet.video_encoder(1, depth=10, width=0.0625)
    assert not any(x.synchronized for x in norms(model))


def test_settings_come_from_gin():
    gin.parse_config(["batch_norm.momentum = 0.5", "batch_norm.epsilon = 0.01"])
    layer = normalization.batch_norm("n")
    assert (layer.momentum, layer.epsilon, layer.name) == (0.5, 0.01, "n")


def test_two_replicas_normalise_as_one_over_the_whole_batch(two_replicas):
    data = np.random.Generator(np.random.PCG64(1)).normal(3.0, 2.0, (4, 2, 3, 3, 5))
    data[2:] += 10.0  # the halves differ: their own statistics would show
    data = data.astype(np.float32)
    strategy = two_replicas
    with strategy.scope():
        layer = normalization.batch_norm("n")
        layer.build(data.shape)

    @tf.function
    def step(batch):
        return strategy.experimental_local_results(
            strategy.run(lambda x: layer(x, training=True), (batch,))
        )

    dataset = tf.data.Dataset.from_tensor_slices(data).batch(4)
    (parts,) = [step(x) for x in strategy.experimental_distribute_dataset(dataset)]
    axes = (0, 1, 2, 3)
    expected = (data - data.mean(axes)) / np.sqrt(data.var(axes) + 1e-5)
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * data.mean(axes), rtol=1e-4)


def test_examples_that_do_not_count_are_normalised_by_the_others(two_replicas):
    data = np.random.Generator(np.random.PCG64(2)).normal(3.0, 2.0, (4, 3, 5)).astype(np.float32)
    counted = np.array([True, True, False, False])  # the second replica has none
    with two_replicas.scope():
        layer = normalization.batch_norm("n")
        layer.build(data.shape)

    def call(batch):
        with normalization.counted_examples(batch[1]):
            return layer(batch[0], training=True)

    step = tf.function(lambda batch: two_replicas.experimental_local_results(
        two_replicas.run(call, (batch,))))
    dataset = tf.data.Dataset.from_tensor_slices((data, counted)).batch(4)
    (parts,) = [step(x) for x in two_replicas.experimental_distribute_dataset(dataset)]
    mean, variance = data[:2].mean((0, 1)), data[:2].var((0, 1))
    np.testing.assert_allclose(
        np.concatenate(parts), (data - mean) / np.sqrt(variance + 1e-5), atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-4)


@pytest.mark.parametrize("replicas", [1, 2])
def test_frozen_averages_stay_while_the_batch_is_normalised(two_replicas, replicas):
    data = np.random.Generator(np.random.PCG64(3)).normal(3.0, 2.0, (4, 2, 3, 3, 5)).astype("f")
    strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        layer = normalization.batch_norm("n")
        layer.build(data.shape)

    def twice(batch):
        with normalization.frozen_averages():
            frozen = layer(batch, training=True)
        return frozen, layer(batch, training=True)

    if replicas == 2:
        step = tf.function(lambda x: [
            tf.concat(strategy.experimental_local_results(y), 0)
            for y in strategy.run(twice, (x,))])
        (batch,) = strategy.experimental_distribute_dataset(
            tf.data.Dataset.from_tensor_slices(data).batch(4))
    else:
        step, batch = tf.function(twice), data
    frozen, moved = step(batch)
    expected = (data - data.mean((0, 1, 2, 3))) / np.sqrt(data.var((0, 1, 2, 3)) + 1e-5)
    np.testing.assert_allclose(frozen, expected, atol=1e-4)
    np.testing.assert_allclose(frozen, moved, atol=1e-5)
    # Moved once from 0, not twice.
    np.testing.assert_allclose(layer.moving_mean, 0.1 * data.mean((0, 1, 2, 3)), rtol=1e-4)


def test_averages_frozen_inside_move_again_outside():
    layer = normalization.batch_norm("n")
    data = tf.random.stateless_normal([8, 3], [1, 2], mean=2.0)
    with normalization.frozen_averages():
        with normalization.frozen_averages():
            layer(data, training=True)
        layer(data, training=True)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))
    np.testing.assert_array_equal(layer.moving_variance, np.ones(3))
    layer(data, training=True)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * data.numpy().mean(0), rtol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("mixed_bfloat16", 2**-7)])
def test_a_video_is_normalised_as_keras_does(dtype, tolerance):
    ours = normalization.BatchNorm(dtype=dtype)
    keras = tf.keras.layers.BatchNormalization(dtype=dtype)
    x = tf.random.stateless_normal([3, 4, 5, 6, 7], [1, 2], mean=1.0)
    upstream = tf.random.stateless_normal(x.shape, [3, 4])

    def step(layer, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        gradients = tape.gradient(y, [x, *layer.trainable_variables], tf.cast(upstream, y.dtype))
        return [y, *gradients]

    any_size = [tf.TensorSpec([None] * 4 + [7])]
    unknown = tf.function(lambda x: step(ours, x), input_signature=any_size)
    ours.build(x.shape)
    expected = step(keras, x)
    averages = keras.get_weights()[2:]
    for call in (lambda x: step(ours, x), unknown):
        ours.set_weights([*keras.get_weights()[:2], np.zeros(7), np.ones(7)])
        for mine, theirs in zip(call(x), expected, strict=True):
            assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
            mine, theirs = (np.asarray(tf.cast(v, tf.float32)) for v in (mine, theirs))
            assert np.abs(mine - theirs).max() <= tolerance * np.abs(theirs).max()
        for mine, theirs in zip(ours.get_weights()[2:], averages, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4)
    ours.set_weights(keras.get_weights())
    mine, theirs = (np.asarray(tf.cast(layer(x), tf.float32)) for layer in (ours, keras))
    np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)
