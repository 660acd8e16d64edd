"""Shuffle and Learn's loss and decisions against NumPy, from features that are given."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError
from elo_tf.tasks.shuffle_and_learn import ShuffleAndLearn
from elo_tf.tasks.task import Shapes

SHAPES = Shapes(clip=ClipSpec(frames=8), widths={"rgb": {"embedding": 3}})
PRESENT = [True, False, True, True]
RNG = np.random.Generator(np.random.PCG64(1))


class Given:
    """Features of the five frames, given."""

    def __init__(self, features):
        self.features = tf.constant(features, tf.float32)

    def activation(self, modality, view, site="embedding"):
        assert (modality, view, site) == ("rgb", "tuples", "embedding")
        return self.features

    def present(self, modality, view="intact"):
        assert (modality, view) == ("rgb", "tuples")
        return tf.constant(PRESENT)


def built(**options):
    task = ShuffleAndLearn(**options)
    task.build_heads(SHAPES)
    return task


@pytest.mark.parametrize("negatives", (0.75, 0.5))
def test_loss_and_accuracy(negatives):
    task = built(negatives=negatives)
    task.classifier.set_weights([RNG.normal(size=(9, 2)), RNG.normal(size=2)])
    kernel, bias = task.classifier.get_weights()
    features = RNG.normal(size=(4, 5, 3))
    output = task.call(Given(features))
    losses, decisions = [], []
    for a, b, c, d, e in features:
        scores = [np.concatenate(three) @ kernel + bias
                  for three in ((b, c, d), (b, a, d), (b, e, d))]
        right, early, late = (-log_softmax(s)[label]
                              for s, label in zip(scores, (1, 0, 0), strict=True))
        losses.append((1 - negatives) * right + negatives * (early + late) / 2)
        # Bayes' rule with a half of the tuples in order, in place of the share in the loss.
        odds = [np.exp(s[1] - s[0]) * negatives / (1 - negatives) for s in scores]
        decisions.append(0.5 * (odds[0] > 1) + 0.25 * (odds[1] <= 1) + 0.25 * (odds[2] <= 1))
    np.testing.assert_allclose(output.loss, losses, rtol=1e-5)
    np.testing.assert_array_equal(output.mask, PRESENT)
    np.testing.assert_allclose(task.accuracy(Given(features)), decisions)


def test_a_constant_answer_gives_the_trivial_loss_and_chance():
    task = built()
    task.classifier.set_weights([np.zeros((9, 2)), np.log([0.75, 0.25])])
    output = task.call(Given(RNG.normal(size=(4, 5, 3))))
    np.testing.assert_allclose(output.loss, output.trivial, rtol=1e-5)
    for bias in ([0, 5], [5, 0]):
        task.classifier.set_weights([np.zeros((9, 2)), np.array(bias)])
        np.testing.assert_allclose(
            task.accuracy(Given(RNG.normal(size=(4, 5, 3)))), task.chance)


def test_features_that_tell_the_time_solve_it():
    # The middle frame alone: one hot in time, c is the third.
    task = built()
    features = np.zeros((4, 5, 3))
    features[:, [0, 4], 0] = 1
    features[:, 2, 2] = 1
    kernel = np.zeros((9, 2))
    kernel[3 + 0, 0] = kernel[3 + 2, 1] = 20
    task.classifier.set_weights([kernel, np.zeros(2)])
    np.testing.assert_allclose(task.call(Given(features)).loss, 0, atol=1e-6)
    np.testing.assert_allclose(task.accuracy(Given(features)), 1)


def test_it_is_one_loss_of_rgb_with_its_sampler():
    (name, make), = ShuffleAndLearn.members().items()
    task = make()
    assert name == task.name == "rgb/shuffle_and_learn"
    assert task.encodes == (("rgb", "tuples"),)
    assert task.samplers["tuples"].sources == (("rgb", "intact"), ("flow", "intact"))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UserError, match="negatives is 1"):
        ShuffleAndLearn(negatives=1)
    short = Shapes(clip=ClipSpec(frames=7), widths=SHAPES.widths)
    with pytest.raises(UserError, match="ClipSpec.frames is 7"):
        ShuffleAndLearn().build_heads(short)
