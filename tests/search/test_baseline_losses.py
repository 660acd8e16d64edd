"""Losses without a search: what is drawn and what is equal."""

import gin
import numpy as np
import pytest

from elo_tf.bin import configuration, gin_checks
from elo_tf.errors import UserError
from elo_tf.losses import LossSpace
from elo_tf.search.baseline_losses import equal_weights, random_weights
from elo_tf.search.space import SearchSpace


def test_random_weights_are_drawn_uniformly_by_numpy():
    space = SearchSpace(LossSpace())
    drawn = random_weights(space, seed=7)
    expected = np.random.Generator(np.random.PCG64(7)).uniform(size=40)
    assert list(drawn) == list(space.names)
    assert list(drawn.values()) == expected.tolist()
    many = np.array([list(random_weights(space, seed=i).values()) for i in range(200)])
    # The mean of 8,000 draws is off by 4 standard errors in one of 16,000 cases.
    assert abs(many.mean() - 0.5) < 4 / np.sqrt(12 * many.size)
    assert 0 <= many.min() < 0.01 and 0.99 < many.max() < 1


def test_what_the_space_fixes_stays():
    space = SearchSpace(LossSpace(), fixed={"distill/*": 0.0, "rgb/shuffle": 0.25}, scale="log")
    drawn, equal = random_weights(space, seed=3), equal_weights(space, weight=0.5)
    uniform = np.random.Generator(np.random.PCG64(3)).uniform(size=27)
    searched = [name for name in space.names if name != "rgb/shuffle" and name[:8] != "distill/"]
    np.testing.assert_allclose([drawn[name] for name in searched], 0.01 ** (1 - uniform))
    for name in space.names:
        fixed = {"rgb/shuffle": 0.25}.get(name, 0.0)
        assert drawn[name] == fixed or name in searched
        assert equal[name] == (0.5 if name in searched else fixed)


@gin.configurable("trained", denylist=["run_dir"])
def trained(run_dir, loss_weights=gin.REQUIRED):
    return loss_weights


@pytest.mark.parametrize("call, expected", [
    ("@random_weights()", np.random.Generator(np.random.PCG64(11)).uniform(size=40).tolist()),
    ("@equal_weights()", [0.75] * 40)])
def test_they_take_the_place_of_a_searched_loss_in_gin(call, expected):
    # As pretrain does, whose parameter counts as given.
    configuration.parse([], [f"pretrain.loss_weights = {call}", f"trained.loss_weights = {call}",
                             "random_weights.seed = 11", "equal_weights.weight = 0.75"])
    assert gin_checks.is_bound("pretrain.loss_weights")
    weights = trained("x")
    assert list(weights) == list(LossSpace().names) and list(weights.values()) == expected
    assert LossSpace().active(weights)


def test_a_weight_outside_of_the_space_is_refused_by_the_training():
    space = SearchSpace(LossSpace())
    with pytest.raises(UserError, match="the weight of rgb/reconstruct is 1.5; weights lie in"):
        space.losses.active(equal_weights(space, weight=1.5))
