"""OPN's loss and decisions against NumPy, from features that are given."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError
from elo_tf.tasks.order_prediction import OrderPrediction
from elo_tf.tasks.task import Shapes

SHAPES = Shapes(clip=ClipSpec(frames=8), widths={"rgb": {"embedding": 3}})
ORDER = np.array([11, 0, 4, 7])
PRESENT = [False, True, True, True]
RNG = np.random.Generator(np.random.PCG64(1))


class Given:
    """Features of four patches, given."""

    def __init__(self, features):
        self.features = tf.constant(features, tf.float32)

    def activation(self, modality, view, site="embedding"):
        assert (modality, view, site) == ("rgb", "shuffled_patches", "embedding")
        return self.features

    def truth(self, modality, view):
        assert (modality, view) == ("rgb", "shuffled_patches")
        return {"order": tf.constant(ORDER, tf.int32)}

    def present(self, modality, view="intact"):
        assert (modality, view) == ("rgb", "shuffled_patches")
        return tf.constant(PRESENT)


def built():
    task = OrderPrediction(width=5)
    task.build_heads(SHAPES)
    for layer in (task.pair, task.classifier):
        layer.set_weights([RNG.normal(size=w.shape) for w in layer.get_weights()])
    return task


def test_loss_and_accuracy():
    task = built()
    features = RNG.normal(size=(4, 4, 3))
    output = task.call(Given(features))
    accuracy = task.accuracy(Given(features))
    kernel, bias = task.pair.get_weights()
    last_kernel, last_bias = task.classifier.get_weights()
    assert kernel.shape == (6, 5) and last_kernel.shape == (30, 12)
    for i, (a, b, c, d) in enumerate(features):
        pairs = [(a, b), (a, c), (a, d), (b, c), (b, d), (c, d)]
        compared = [np.maximum(np.concatenate(pair) @ kernel + bias, 0) for pair in pairs]
        logits = np.concatenate(compared) @ last_kernel + last_bias
        np.testing.assert_allclose(output.loss[i], -log_softmax(logits)[ORDER[i]],
                                   rtol=1e-4, atol=1e-6)
        assert accuracy[i] == (np.argmax(logits) == ORDER[i])
    np.testing.assert_array_equal(output.mask, PRESENT)


def test_guessing_gives_the_trivial_loss():
    task = built()
    task.classifier.set_weights([np.zeros((30, 12)), np.zeros(12)])
    output = task.call(Given(RNG.normal(size=(4, 4, 3))))
    np.testing.assert_allclose(output.loss, output.trivial, rtol=1e-6)
    np.testing.assert_allclose(output.trivial, math.log(12), rtol=1e-6)
    assert task.chance == 1 / 12


def test_the_right_class_is_found():
    task = built()
    for kind in range(12):
        task.classifier.set_weights([np.zeros((30, 12)), np.eye(12)[kind]])
        found = task.accuracy(Given(RNG.normal(size=(4, 4, 3))))
        np.testing.assert_array_equal(found, kind == ORDER)


def test_it_is_one_loss_of_rgb_with_its_sampler():
    (name, make), = OrderPrediction.members().items()
    task = make()
    assert name == task.name == "rgb/order"
    assert task.encodes == (("rgb", "shuffled_patches"),)
    assert task.samplers["shuffled_patches"].sources == (("rgb", "intact"), ("flow", "intact"))


def test_clips_that_are_too_short_are_refused():
    short = Shapes(clip=ClipSpec(frames=7), widths=SHAPES.widths)
    with pytest.raises(UserError, match="ClipSpec.frames is 7"):
        OrderPrediction().build_heads(short)
