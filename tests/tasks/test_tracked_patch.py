"""Tracked patches: the ranking loss against loops in NumPy, on one replica and on two."""

import types

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError
from elo_tf.losses import LossSpace
from elo_tf.tasks.task import Shapes
from elo_tf.tasks.tracked_patch import TrackedPatch

SHAPES = Shapes(ClipSpec(frames=4, size=32), {"rgb": {"embedding": 6}})
PRESENT = np.array([1, 1, 0, 1, 1, 1, 1, 1], bool)
USABLE = np.array([1, 0, 1, 1, 1, 1, 1, 1], np.int32)
POSITION = np.array([0, 99, 100, 101, 99, 100, 5000, 3], np.int64)
MARGIN = 0.3
FEATURES = np.random.Generator(np.random.PCG64(3)).normal(0.4, 1, (8, 2, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def task():
    made = TrackedPatch("rgb", width=5, margin=MARGIN, hard_from=100, hardest=2)
    made.build_heads(SHAPES)
    made.projection.bias.assign([0.1, -0.2, 0.3, 0.0, 0.2])
    return made


def encoded(features, present=PRESENT, usable=USABLE, position=POSITION):
    return types.SimpleNamespace(
        activation=lambda *view: {("rgb", "tracked"): tf.convert_to_tensor(features)}[view],
        truth=lambda *view: {("rgb", "tracked"): {"usable": tf.convert_to_tensor(usable)}}[view],
        present=lambda *view: {("rgb", "tracked"): tf.convert_to_tensor(present)}[view],
        position=lambda: tf.convert_to_tensor(position))


def expected(task):
    kernel, bias = (w.numpy().astype(np.float64) for w in task.projection.weights)
    x = FEATURES.astype(np.float64) @ kernel + bias
    x /= np.sqrt((x ** 2).sum(-1, keepdims=True) + 1e-6)
    loss, accuracy = np.zeros(8), np.zeros(8)
    for i in range(8):
        near = 1 - x[i, 0] @ x[i, 1]
        far = np.array([1 - x[i, 0] @ x[j, 1] for j in range(8) if j != i and PRESENT[j]])
        hinge = np.maximum(0, near - far + MARGIN)
        if POSITION[i] >= 100:
            hinge = np.sort(hinge)[-2:]
        loss[i] = hinge.mean() * USABLE[i]
        accuracy[i] = (far > near).mean()
    return loss, accuracy


def check(loss, mask, accuracy, task):
    wanted_loss, wanted_accuracy = expected(task)
    np.testing.assert_array_equal(mask, PRESENT)
    np.testing.assert_allclose(loss[PRESENT], wanted_loss[PRESENT], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(accuracy[PRESENT], wanted_accuracy[PRESENT], atol=1e-6)
    assert loss[1] == 0 and (loss[PRESENT & (USABLE > 0)] > 0).sum() >= 5
    assert len(set(wanted_accuracy)) > 2


def test_values(task):
    given = encoded(FEATURES)
    output = task(given)
    check(output.loss.numpy(), output.mask, task.accuracy(given).numpy(), task)
    np.testing.assert_allclose(output.trivial, MARGIN)
    assert task.chance == 0.5
    # Hard negatives alone weigh more than all of them.
    easy = task(encoded(FEATURES, position=np.zeros(8, np.int64))).loss.numpy()
    assert (output.loss.numpy()[[3, 5, 6]] > easy[[3, 5, 6]]).all()
    np.testing.assert_array_equal(output.loss.numpy()[[0, 4, 7]], easy[[0, 4, 7]])


def test_negatives_come_from_the_batch_of_all_replicas(task, two_replicas):
    def part(value):
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.constant(np.split(value, 2)[context.replica_id_in_sync_group]))

    @tf.function
    def step(*parts):
        def own(*values):
            given = encoded(*values)
            output = task(given)
            return output.loss, output.mask, task.accuracy(given)
        return two_replicas.run(own, args=parts)

    found = step(*map(part, (FEATURES, PRESENT, USABLE, POSITION)))
    check(*(np.concatenate(two_replicas.experimental_local_results(x)) for x in found), task)


def test_features_that_are_all_the_same_have_the_trivial_loss_with_a_finite_gradient(task):
    for features in (np.ones((8, 2, 6), np.float32), np.zeros((8, 2, 6), np.float32)):
        features = tf.constant(features)
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = task(encoded(features, usable=np.ones(8, np.int32)))
            total = tf.reduce_sum(output.loss)
        np.testing.assert_allclose(output.loss, MARGIN, rtol=1e-5)
        assert np.isfinite(tape.gradient(total, features)).all()


def test_a_clip_alone_has_no_negative_and_does_not_count(task):
    output = task(encoded(FEATURES, present=np.arange(8) == 3))
    assert not output.mask.numpy().any()
    np.testing.assert_array_equal(output.loss.numpy()[3], 0)


def test_it_is_one_loss_of_rgb_that_needs_flow():
    space = LossSpace((TrackedPatch,))
    assert space.names == ("rgb/tracked_patch",)
    (task,) = space.build_tasks(space.names, SHAPES)
    assert task.encodes == (("rgb", "tracked"),)
    assert task.samplers["tracked"].sources == (("rgb", "intact"), ("flow", "intact"))
    assert task.projection.kernel.shape == (6, 1024)


@pytest.mark.parametrize(("clip", "message"), [
    (ClipSpec(frames=4, size=6), "patches would have 3"),
    (ClipSpec(frames=1, size=32), "ClipSpec.frames is 1")])
def test_clips_that_cannot_be_tracked_are_refused_when_the_head_is_built(clip, message):
    with pytest.raises(UserError, match=message):
        TrackedPatch("rgb").build_heads(Shapes(clip, {"rgb": {"embedding": 6}}))
