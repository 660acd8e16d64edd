"""A network made of a 2-D one computes on a static video what that computes on the frame."""

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError
from elo_tf.models import inflation
from elo_tf.training import encoder_files
from elo_tf.views.clip_views import ClipViews

SITES = {"block1": "conv2_block3_out", "block2": "conv3_block4_out", "block3": "conv4_block6_out",
         "block4": "conv5_block3_out"}


@pytest.fixture(scope="module")
def image_network():
    """Drawn, with statistics, scales, offsets and biases that all matter."""
    tf.keras.utils.set_random_seed(3)
    network = tf.keras.applications.ResNet50(include_top=False, weights=None)
    generator = np.random.Generator(np.random.PCG64(4))
    for layer in network.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            size = layer.gamma.shape[0]
            layer.set_weights([generator.uniform(0.7, 1.3, size), generator.normal(size=size) / 3,
                               generator.normal(size=size) / 3, generator.uniform(0.5, 2, size)])
        elif isinstance(layer, tf.keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, generator.normal(size=bias.shape) / 3])
    # Its first convolution sees colours of up to 255.
    mean = network.get_layer("conv1_bn").moving_mean
    mean.assign(60 * mean)
    variance = network.get_layer("conv1_bn").moving_variance
    variance.assign(3600 * variance)
    return network


@pytest.fixture(scope="module")
def weights_file(image_network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet50_notop.h5"
    image_network.save_weights(path)
    return str(path)


@pytest.fixture(scope="module")
def inflated(weights_file):
    return inflation.inflated_resnet50(3, weights=weights_file)


@pytest.fixture(scope="module")
def images():
    """uint8 [3, 64, 64, 3]; noise reaches every border."""
    generator = np.random.Generator(np.random.PCG64(5))
    return generator.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def static_clips(images, frames):
    """What our networks are given: [B, T, H, W, 3] in our units."""
    rgb = tf.constant(np.repeat(images[:, np.newaxis], frames, axis=1))
    return ClipViews({"rgb": rgb}, ClipSpec(frames=frames, size=64)).view("rgb", "intact")


def image_outputs(network, images, training):
    """The 2-D network's activations after each stage, and their means."""
    taps = tf.keras.Model(network.input, {s: network.get_layer(n).output for s, n in SITES.items()})
    prepared = tf.keras.applications.resnet50.preprocess_input(images.astype(np.float32))
    found = taps(prepared, training=training)
    return {**found, "embedding": tf.reduce_mean(found["block4"], [1, 2])}


@pytest.mark.parametrize("frames, training, tolerance", [(5, False, 1e-4), (4, True, 1e-3)])
def test_a_static_video_gives_what_the_image_gives(
        image_network, inflated, images, frames, training, tolerance):
    wanted = image_outputs(image_network, images, training)
    found = inflated(static_clips(images, frames), training=training)
    assert set(found) == {*SITES, "embedding"}
    for site, expected in wanted.items():
        expected = expected.numpy()
        assert np.std(expected) > 0.05 * np.abs(expected).mean() > 0
        scale = np.abs(expected).max()
        frames_found = [found[site]] if site == "embedding" else tf.unstack(found[site], axis=1)
        assert len(frames_found) == {"block1": frames, "block2": -(-frames // 2),
                                     "block3": -(-frames // 4)}.get(site, 1)
        for frame in frames_found:
            np.testing.assert_allclose(frame.numpy() / scale, expected / scale, atol=tolerance,
                                       rtol=0, err_msg=site)


def test_time_counts_as_soon_as_a_temporal_kernel_leaves_its_middle(inflated, images):
    kernel = inflated.get_layer("block1_unit1_conv2_temporal").kernel
    still, before = static_clips(images[:1], 4), kernel.numpy()
    moving = tf.concat([still[:, 1:], static_clips(images[1:2], 1)], axis=1)
    first = inflated(still)["block1"][:, 1]
    assert np.array_equal(first, inflated(moving)["block1"][:, 1])
    changed = before.copy()
    changed[2] = changed[1]
    kernel.assign(changed)
    assert np.abs(inflated(moving)["block1"][:, 2] - inflated(still)["block1"][:, 2]).max() > 0.1
    kernel.assign(before)


def test_what_is_left_over_of_a_middle_can_learn(inflated, images):
    # Drawn before, and of weight zero after: the gradient of those weights is not.
    kernel = inflated.get_layer("block2_unit1_conv2_temporal").kernel
    signed = 2 * kernel.shape[-1]
    assert not np.any(kernel[:, :, :, signed:]) and kernel.shape[-2] == 288 > signed
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(inflated(static_clips(images[:1], 2))["block2"] ** 2)
    assert np.any(tape.gradient(value, kernel)[:, :, :, signed:])


def test_it_loads_as_keras_alone(inflated, images):
    # As `save_encoder` saves it, without writing its 185 MB.
    plain = tf.keras.models.clone_model(inflated, clone_function=encoder_files._as_in_keras)
    loaded = tf.keras.models.model_from_json(plain.to_json())
    assert {type(x).__module__.split(".")[0] for x in loaded.layers} == {"keras"}
    loaded.set_weights(inflated.get_weights())
    clip = static_clips(images[:1], 2)
    np.testing.assert_allclose(loaded(clip)["embedding"], inflated(clip)["embedding"], rtol=1e-5,
                               atol=1e-6)


def test_every_layer_that_learns_is_of_a_stage(inflated):
    # By these names fine-tuning tells early layers from late ones.
    learning = [layer.name for layer in inflated.layers if layer.trainable_variables]
    stages = [name.split("_")[0] for name in learning]
    assert set(stages) == {"stem", "block1", "block2", "block3", "block4"}
    assert len(learning) == 2 * (2 + 16 * 4 + 4)


def test_weights_that_are_not_there_or_of_another_network(tmp_path):
    with pytest.raises(UserError, match="no file .*nowhere.h5"):
        inflation.inflated_resnet50(3, weights=str(tmp_path / "nowhere.h5"))
    other = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(2,))])
    other.save_weights(tmp_path / "other.h5")
    with pytest.raises(UserError, match=r"other.h5 does not hold the weights of keras.applica"):
        inflation.load_resnet50(str(tmp_path / "other.h5"))
    with pytest.raises(UserError, match="for RGB, of 3 channels, not for 2"):
        inflation.inflated_resnet50(2)
