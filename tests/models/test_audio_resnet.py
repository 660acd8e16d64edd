import numpy as np
import pytest
import tensorflow as tf

from elo_tf import errors
from elo_tf.models import audio_resnet


@pytest.fixture(scope="module")
def small():
    return audio_resnet.audio_encoder(40, filters=(64, 16, 24, 32), blocks=(1, 1, 1, 1))


def parameters(filters, blocks):
    """Closed form for a ResNet of basic blocks on one channel, trainable ones."""
    total, inputs = 49 * 64 + 2 * 64, 64
    for stage, (outputs, count) in enumerate(zip(filters, blocks, strict=True)):
        for block in range(count):
            total += 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs
            if stage > 0 and block == 0:
                total += inputs * outputs + 2 * outputs
            inputs = outputs
    return total


def test_parameters(small):
    model = audio_resnet.audio_encoder(64)
    for network, expected in (
        (model, parameters((64, 128, 256, 512), (2, 2, 2, 2))),
        (small, parameters((64, 16, 24, 32), (1, 1, 1, 1))),
    ):
        assert sum(int(np.prod(x.shape)) for x in network.trainable_variables) == expected
    assert expected < 200_000
    assert model.output["embedding"].shape == (None, 512)


@pytest.mark.parametrize("frames", [1, 25, 100, 101])
def test_any_length(small, frames):
    outputs = small(tf.random.stateless_normal([2, frames, 40, 1], [1, 2]))
    assert list(outputs) == ["block1", "block2", "block3", "block4", "embedding"]
    for stage, width in enumerate((64, 16, 24, 32), start=1):
        rows, bins = (-(-x // 2 ** (stage + 1)) for x in (frames, 40))
        assert outputs[f"block{stage}"].shape == (2, rows, bins, width)
    pooled = outputs["block4"].numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(outputs["embedding"], pooled, atol=1e-5)


def test_gradients_are_finite_and_reach_every_variable(small):
    with tf.GradientTape() as tape:
        outputs = small(tf.random.stateless_normal([3, 50, 40, 1], [3, 4]), training=True)
        loss = tf.reduce_sum(outputs["embedding"] ** 2)
    for gradient in tape.gradient(loss, small.trainable_variables):
        assert np.isfinite(gradient).all()


def norms(model):
    return [x for x in model.layers if isinstance(x, tf.keras.layers.BatchNormalization)]


def test_batch_norm_is_ours(small):
    assert len(norms(small)) == 1 + 2 * 4 + 3
    assert all(x.momentum == 0.9 and not x.synchronized for x in norms(small))
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = audio_resnet.audio_encoder(40, filters=(64, 8, 8, 8), blocks=(1, 1, 1, 1))
    assert all(x.synchronized for x in norms(model))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"filters": (32, 64, 128, 256)}, "the first width must be 64"),
        ({"blocks": (2, 2, 2)}, "four counts"),
        ({"blocks": (1, 0, 1, 1)}, "at least 1"),
    ],
)
def test_what_cannot_be_built_is_refused(settings, message):
    with pytest.raises(errors.UserError, match=message):
        audio_resnet.audio_encoder(64, **settings)
