"""Learning rates by layer, against optimisers that have them and against a step by hand."""

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.evaluation.classifier import Classifier
from elo_tf.evaluation.layerwise import apply_gradients, layer_rates
from elo_tf.models.video_resnet import video_encoder
from elo_tf.training.devices import distribute, make_strategy
from elo_tf.training.optimization import create_slots, make_optimizer

CLIP = ClipSpec(frames=2, next_frames=1, size=16)
EXPECTED = {"stem": 0.5 ** 5, "block1": 0.5 ** 4, "block2": 0.5 ** 3, "block3": 0.25, "block4": 0.5}


@pytest.fixture(scope="module")
def encoder():
    return video_encoder(3, depth=10, width=0.0625, name="rgb")


def test_the_rates_fall_from_the_fourth_block_to_the_stem(encoder):
    rates = layer_rates(encoder, 0.5)
    for variable, rate in zip(encoder.trainable_variables, rates, strict=True):
        assert rate == EXPECTED[variable.name.split("_")[0]]
    assert sorted(set(rates)) == sorted(EXPECTED.values())
    assert set(layer_rates(encoder, 1.0)) == {1.0}


def test_a_network_of_other_layers_is_refused():
    inputs = tf.keras.Input([4])
    network = tf.keras.Model(inputs, tf.keras.layers.Dense(2, name="dense")(inputs))
    with pytest.raises(ValueError, match="the layer 'dense' is of no stage"):
        layer_rates(network, 0.5)


@pytest.mark.parametrize("settings", [
    {"name": "adam"}, {"name": "adamw", "weight_decay": 0.1},
    {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}, {"name": "lars", "peak": 100.0}],
    ids=lambda settings: settings["name"])
@pytest.mark.parametrize("devices", [1, 2])
def test_a_rate_is_a_learning_rate_of_its_own(settings, devices, two_replicas):
    rates = (0.25, 1.0, 0.7)
    strategy = two_replicas if devices == 2 else tf.distribute.OneDeviceStrategy("CPU:0")
    draws = np.random.Generator(np.random.PCG64(0))
    starts = [draws.normal(size=shape).astype("f") for shape in ([3, 2], [4], [2, 2])]
    steps = [[draws.normal(size=x.shape).astype("f") for x in starts] for _ in range(3)]
    settings = {"warmup": 0.5, "clip_norm": 0.0} | settings
    peak = settings.pop("peak", 0.1)
    with strategy.scope():
        mine = [tf.Variable(x, name=f"kernel{i}") for i, x in enumerate(starts)]
        optimizer = make_optimizer(3, learning_rate=peak, **settings)
        create_slots(optimizer, mine)

    @tf.function
    def step(gradients):
        strategy.run(lambda g: apply_gradients(optimizer, g, mine, rates), args=(gradients,))

    others = [tf.Variable(x, name=f"kernel{i}") for i, x in enumerate(starts)]
    own = [make_optimizer(3, learning_rate=peak * rate, **settings) for rate in rates]
    for gradients in steps:
        step([tf.constant(x) for x in gradients])
        for single, gradient, variable in zip(own, gradients, others, strict=True):
            single.apply_gradients([(tf.constant(gradient), variable)])
    for variable, other, start in zip(mine, others, starts, strict=True):
        for copy in strategy.experimental_local_results(variable):
            np.testing.assert_allclose(copy.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)
        assert np.abs(other.numpy() - start).max() > 1e-3


@pytest.mark.parametrize("devices", [1, 2])
def test_a_step_of_the_whole_network_by_hand(encoder, devices, two_replicas):
    """SGD: every variable moves by minus its rate times its gradient, as Keras's layers give it."""
    draws = np.random.Generator(np.random.PCG64(1))
    labels = draws.integers(0, 3, 6)
    rgb = draws.integers(0, 256, [6, 3, 16, 16, 3]).astype(np.uint8)
    batch = {"rgb": tf.constant(rgb), "label": tf.constant(labels),
             "index": tf.range(6, dtype=tf.int64), "key": tf.range(6, dtype=tf.int64)}
    strategy = two_replicas if devices == 2 else make_strategy()
    classifier = Classifier(
        encoder, CLIP, 3, strategy=strategy, layer_decay=0.5,
        label_smoothing=0.3, make_optimizers=lambda: tuple(make_optimizer(
            1, name="sgd", learning_rate=0.2, warmup=0.0, momentum=0.0, clip_norm=0.0)
            for _ in range(2)))
    classifier.reset(encoder, seed=4)
    kernel, bias = classifier.head.get_weights()
    rate = float(classifier.optimizers["all"].learning_rate(0))
    kernel_variable, bias_variable = tf.Variable(kernel), tf.Variable(bias)
    with tf.GradientTape() as tape:
        frames = (tf.constant(rgb[:, :2], tf.float32) / 255.0 - 0.45) / 0.225
        logits = encoder(frames, training=True)["embedding"] @ kernel_variable + bias_variable
        target = 0.7 * np.eye(3, dtype="f")[labels] + 0.1
        loss = -tf.reduce_mean(tf.reduce_sum(target * tf.nn.log_softmax(logits), axis=1))
    variables = [*encoder.trainable_variables, kernel_variable, bias_variable]
    before = [v.numpy() for v in variables]
    report = classifier.full_step(iter(distribute(strategy, tf.data.Dataset.from_tensors(batch))))
    gradients = tape.gradient(loss, variables)
    np.testing.assert_allclose(report["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(report["gradient_norm"], tf.linalg.global_norm(gradients), rtol=1e-3)
    moved = [*classifier.encoder.trainable_variables, *classifier.head.trainable_variables]
    for variable, start, gradient, after in zip(variables, before, gradients, moved, strict=True):
        share = EXPECTED.get(variable.name.split("_")[0], 1.0)
        expected = -rate * share * gradient.numpy()
        np.testing.assert_allclose(after.numpy() - start, expected, rtol=1e-2,
                                   atol=1e-6 + 1e-3 * np.abs(expected).max())
