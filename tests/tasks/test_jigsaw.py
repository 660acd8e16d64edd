"""Jigsaw against NumPy from given features; its heads, and how it is built."""

import math
import types

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError
from elo_tf.losses import LossSpace
from elo_tf.tasks.jigsaw import Jigsaw
from elo_tf.tasks.task import Shapes
from elo_tf.views.patch_sampling import JigsawTiles

SHAPES = Shapes(ClipSpec(frames=4, size=32), {"rgb": {"embedding": 6}})


def encoded(task, features, truth):
    """What a task sees: these features and this truth of its own view; all clips are there."""
    view = (task.modality, next(iter(task.samplers)))

    def of_own_view(value):
        def get(modality, name):
            assert (modality, name) == view
            return value
        return get

    return types.SimpleNamespace(
        activation=of_own_view(tf.constant(features, tf.float32)),
        truth=of_own_view({name: tf.constant(value) for name, value in truth.items()}),
        present=of_own_view(tf.ones(len(features), tf.bool)))


def expected_logits(task, features):
    hidden, classifier = ([w.numpy().astype(np.float64) for w in layer.weights]
                          for layer in (task.hidden, task.classifier))
    joined = features.reshape(len(features), -1).astype(np.float64)
    return np.maximum(joined @ hidden[0] + hidden[1], 0) @ classifier[0] + classifier[1]


def check_against_numpy(task, classes, answer):
    """Loss, trivial loss, mask and accuracy of a task whose pieces are to be placed."""
    generator = np.random.Generator(np.random.PCG64(7))
    task.build_heads(SHAPES)
    for layer in (task.hidden, task.classifier):
        layer.bias.assign(generator.normal(size=layer.bias.shape))
    items = task.hidden.kernel.shape[0] // 6
    features = generator.normal(size=(40, items, 6)).astype(np.float32)
    right = generator.integers(classes, size=40).astype(np.int32)
    given = encoded(task, features, {answer: right})
    logits = expected_logits(task, features)
    right[:20] = logits[:20].argmax(1)  # so that half of the answers are right, and others may be
    given = encoded(task, features, {answer: right})

    output = task(given)
    chosen = logits - logits.max(1, keepdims=True)
    loss = np.log(np.exp(chosen).sum(1)) - chosen[np.arange(40), right]
    np.testing.assert_allclose(output.loss, loss, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.trivial, math.log(classes), rtol=1e-6)
    assert output.mask.numpy().all()
    accuracy = task.accuracy(given).numpy()
    np.testing.assert_array_equal(accuracy, logits.argmax(1) == right)
    assert accuracy[:20].all() and not accuracy.all()
    assert task.chance == 1 / classes


def test_values():
    check_against_numpy(Jigsaw("rgb", sampler=JigsawTiles(permutations=11), hidden=5), 11, "order")


def test_the_features_are_concatenated_in_the_order_shown():
    task = Jigsaw("rgb", sampler=JigsawTiles(permutations=11), hidden=5)
    task.build_heads(SHAPES)
    assert task.hidden.kernel.shape == (9 * 6, 5) and task.classifier.kernel.shape == (5, 11)
    features = np.random.Generator(np.random.PCG64(1)).normal(size=(1, 9, 6)).astype(np.float32)
    features = np.concatenate([features, features[:, ::-1]])
    losses = task(encoded(task, features, {"order": np.int32([2, 2])})).loss.numpy()
    assert abs(losses[0] - losses[1]) > 1e-3


def test_the_default_is_one_loss_of_rgb_with_a_hundred_orders_of_nine_tiles():
    space = LossSpace((Jigsaw,))
    assert space.names == ("rgb/jigsaw",)
    (task,) = space.build_tasks(space.names, SHAPES)
    assert task.encodes == (("rgb", "tiles"),)
    assert task.samplers["tiles"].permutations.shape == (100, 9)
    assert task.hidden.kernel.shape == (54, 512) and task.classifier.kernel.shape == (512, 100)
    assert task.chance == 0.01


def test_frames_that_are_too_small_are_refused_when_the_heads_are_built():
    small = Shapes(ClipSpec(frames=4, size=14), {"rgb": {"embedding": 6}})
    with pytest.raises(UserError, match="JigsawTiles.tile is 0.5: in frames of 14 pixels"):
        Jigsaw("rgb", sampler=JigsawTiles(tile=0.5)).build_heads(small)
