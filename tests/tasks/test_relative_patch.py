"""Relative patch position against NumPy from given features; its heads, and how it is built."""

import numpy as np
import pytest

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError
from elo_tf.losses import LossSpace
from elo_tf.tasks.relative_patch import RelativePatch
from elo_tf.tasks.task import Shapes
from elo_tf.views.patch_sampling import NeighbourPatches
from tests.tasks.test_jigsaw import SHAPES, check_against_numpy, encoded


def test_values():
    check_against_numpy(RelativePatch("rgb", hidden=5), 8, "direction")


def test_the_centre_and_the_neighbour_are_told_apart():
    task = RelativePatch("rgb", hidden=5)
    task.build_heads(SHAPES)
    features = np.random.Generator(np.random.PCG64(1)).normal(size=(1, 2, 6)).astype(np.float32)
    features = np.concatenate([features, features[:, ::-1]])
    losses = task(encoded(task, features, {"direction": np.int32([2, 2])})).loss.numpy()
    assert abs(losses[0] - losses[1]) > 1e-3


def test_it_is_one_loss_of_rgb_with_eight_answers():
    space = LossSpace((RelativePatch,))
    assert space.names == ("rgb/relative_patch",)
    (task,) = space.build_tasks(space.names, SHAPES)
    assert task.encodes == (("rgb", "neighbours"),)
    assert task.hidden.kernel.shape == (12, 512) and task.classifier.kernel.shape == (512, 8)
    assert task.chance == 0.125


def test_frames_that_are_too_small_are_refused_when_the_heads_are_built():
    small = Shapes(ClipSpec(frames=4, size=16), {"rgb": {"embedding": 6}})
    with pytest.raises(UserError, match="NeighbourPatches.patch is 0.2: .* would have 3; 4 to 16"):
        RelativePatch("rgb", sampler=NeighbourPatches(patch=0.2)).build_heads(small)
