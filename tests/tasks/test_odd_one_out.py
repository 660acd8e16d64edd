"""O3N's loss and decisions against NumPy, from features that are given."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError
from elo_tf.tasks.odd_one_out import OddOneOut
from elo_tf.tasks.task import Shapes
from elo_tf.views.frame_sampling import OddSubsequences

SHAPES = Shapes(clip=ClipSpec(frames=8), widths={"rgb": {"embedding": 3}})
ODD = np.array([2, 0, 3, 1])
PRESENT = [True, True, False, True]
RNG = np.random.Generator(np.random.PCG64(1))


class Given:
    """Features of four sub-sequences, given."""

    def __init__(self, features):
        self.features = tf.constant(features, tf.float32)

    def activation(self, modality, view, site="embedding"):
        assert (modality, view, site) == ("rgb", "subsequences", "embedding")
        return self.features

    def truth(self, modality, view):
        assert (modality, view) == ("rgb", "subsequences")
        return {"odd": tf.constant(ODD, tf.int32)}

    def present(self, modality, view="intact"):
        assert (modality, view) == ("rgb", "subsequences")
        return tf.constant(PRESENT)


def built(**options):
    task = OddOneOut(sampler=OddSubsequences(items=4), width=5, **options)
    task.build_heads(SHAPES)
    for layer in (task.hidden, task.classifier):
        layer.set_weights([RNG.normal(size=w.shape) for w in layer.get_weights()])
    return task


@pytest.mark.parametrize("fusion", ("concatenation", "differences"))
def test_loss_and_accuracy(fusion):
    task = built(fusion=fusion)
    features = RNG.normal(size=(4, 4, 3))
    output = task.call(Given(features))
    accuracy = task.accuracy(Given(features))
    for i, items in enumerate(features):
        if fusion == "concatenation":
            fused = np.concatenate(items)
        else:
            fused = sum(items[j] - items[k] for j in range(4) for k in range(j))
        for layer, last in ((task.hidden, False), (task.classifier, True)):
            kernel, bias = layer.get_weights()
            fused = fused @ kernel + bias
            fused = fused if last else np.maximum(fused, 0)
        np.testing.assert_allclose(output.loss[i], -log_softmax(fused)[ODD[i]],
                                   rtol=1e-4, atol=1e-6)
        assert accuracy[i] == (np.argmax(fused) == ODD[i])
    np.testing.assert_array_equal(output.mask, PRESENT)


def test_guessing_gives_the_trivial_loss():
    task = built()
    task.classifier.set_weights([np.zeros((5, 4)), np.zeros(4)])
    output = task.call(Given(RNG.normal(size=(4, 4, 3))))
    np.testing.assert_allclose(output.loss, output.trivial, rtol=1e-6)
    np.testing.assert_allclose(output.trivial, math.log(4), rtol=1e-6)
    assert task.chance == 1 / 4 and OddOneOut().chance == 1 / 6


def test_it_is_one_loss_of_rgb_with_its_sampler():
    (name, make), = OddOneOut.members().items()
    task = make()
    assert name == task.name == "rgb/odd_one_out"
    assert task.encodes == (("rgb", "subsequences"),)
    assert task.samplers["subsequences"].sources == (("rgb", "intact"),)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UserError, match="fusion is 'sum'"):
        OddOneOut(fusion="sum")
    short = Shapes(clip=ClipSpec(frames=5), widths=SHAPES.widths)
    with pytest.raises(UserError, match="ClipSpec.frames is 5"):
        OddOneOut().build_heads(short)
