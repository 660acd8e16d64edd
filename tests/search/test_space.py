"""The search space: what is searched, what is fixed, and what a vector stands for."""

import gin
import numpy as np
import pytest

from elo_tf.bin import configuration
from elo_tf.errors import UserError
from elo_tf.losses import LossSpace
from elo_tf.search.space import SearchSpace
from elo_tf.search.strategies import CMAES
from elo_tf.tasks.alignment import Align
from elo_tf.tasks.task import Task

LOSSES = LossSpace()


class Surprise(Task):
    """A user's own task; the space needs its name alone."""

    @classmethod
    def members(cls):
        return {"rgb/surprise": cls}


def test_by_default_all_losses_are_searched_as_they_are():
    space = SearchSpace(LOSSES)
    assert space.losses is LOSSES
    assert space.searched == space.names == LOSSES.names
    assert space.fixed == {}
    vector = np.random.Generator(np.random.PCG64(1)).random(40)
    weights = space.weights(vector)
    assert list(weights) == list(LOSSES.names)
    assert np.array_equal(list(weights.values()), vector)
    assert all(type(x) is float for x in weights.values())


def test_a_subset_is_searched_and_the_others_keep_their_weights():
    space = SearchSpace(
        LOSSES, searched=("audio/*", "rgb/align"),
        fixed={"*": 0.0, "distill/*": 0.25, "rgb/shuffle": 1})
    # In the order of the losses, not of the patterns.
    assert space.searched == (
        "rgb/align", *(n for n in LOSSES.names if n.startswith("audio/")))
    weights = space.weights(np.linspace(0.1, 0.8, 8))
    assert list(weights) == list(LOSSES.names)
    for name, weight in weights.items():
        if name in space.searched:
            assert weight == np.linspace(0.1, 0.8, 8)[space.searched.index(name)]
        else:
            expected = {"rgb/shuffle": 1.0}.get(name, 0.25 if name.startswith("distill") else 0.0)
            assert weight == space.fixed[name] == expected
    assert set(space.fixed) | set(space.searched) == set(space.names)
    assert len(LOSSES.effective(weights)) == 40


def test_what_is_fixed_is_not_searched_by_the_star():
    space = SearchSpace(LOSSES, fixed={"distill/*": 0.5, "gray/shuffle": 0.0})
    assert len(space.searched) == 40 - 13
    assert "gray/shuffle" not in space.searched
    both = SearchSpace(LOSSES, searched=("*", "rgb/*"), fixed={"distill/*": 0.5})
    assert len(both.searched) == 28


def test_any_task_of_the_project_can_be_searched():
    losses = LossSpace([Align, Surprise])
    space = SearchSpace(losses, searched=("rgb/*",), fixed={"*": 0.1})
    assert space.searched == ("rgb/align", "rgb/surprise")
    assert space.weights([0.5, 0.75])["rgb/surprise"] == 0.75
    strategy = CMAES(space.searched)
    assert set(space.weights(strategy.ask()[0])) == set(losses.names)


def test_the_log_scale_has_equal_factors_for_equal_steps():
    space = SearchSpace(LOSSES, searched=("rgb/*",), fixed={"*": 0.3}, scale="log", smallest=1e-2)
    weights = space.weights([0.0, 0.15, 0.25, 0.5, 0.75, 0.86, 1.0])
    found = [weights[name] for name in space.searched]
    np.testing.assert_allclose(
        found, 10.0 ** np.array([-2, -1.7, -1.5, -1, -0.5, -0.28, 0]), rtol=1e-12)
    assert found[0] == 0.01 and found[-1] == 1.0
    # Fixed weights are weights: no scale is theirs.
    assert weights["audio/align"] == 0.3
    # The lowest 15% are what the dead zone kills.
    effective = list(LOSSES.effective(weights).values())[:7]
    assert effective[:2] == [0.0, 0.0] and min(effective[2:]) > 0.02


@pytest.mark.parametrize(("settings", "message"), [
    ({"searched": ("rgb/shufle",)},
     "SearchSpace.searched: 'rgb/shufle' matches no loss; did you mean 'rgb/shuffle'"),
    ({"searched": ("rbg/*",)}, r"'rbg/\*' matches no loss; did you mean .*'rgb/\*'"),
    ({"fixed": {"*/alignn": 0.0}},
     r"SearchSpace.fixed: '\*/alignn' matches no loss; did you mean '\*/align'"),
    ({"searched": ("zzz",)}, "'zzz' matches no loss; the losses are: rgb/reconstruct, "),
    ({"searched": ("rgb/*",), "fixed": {"*": 0.0, "*/align": 0.5}},
     "rgb/align is named in SearchSpace.searched and in SearchSpace.fixed"),
    ({"searched": ("rgb/*",)},
     r"33 of 40 losses are neither .*: flow/reconstruct, .*\. SearchSpace.fixed = \{'\*': 0.0\}"),
    ({"fixed": {"*": 0.0}}, r"'\*' is in SearchSpace.searched and in SearchSpace.fixed"),
    ({"searched": (), "fixed": {"*": 0.0}}, "leaves no loss to search"),
    ({"fixed": {"rgb/*": 0.5, "flow/*": 0.5, "gray/*": 0.5, "audio/*": 0, "distill/*": 1}},
     "leaves no loss to search"),
    ({"fixed": {"rgb/align": 1.5}}, "gives 'rgb/align' the weight 1.5; weights lie in"),
    ({"fixed": {"rgb/align": -0.1}}, "gives 'rgb/align' the weight -0.1"),
    ({"fixed": {"rgb/align": float("nan")}}, "gives 'rgb/align' the weight nan"),
    ({"fixed": {"rgb/align": "off"}}, "gives 'rgb/align' the weight 'off'"),
    ({"fixed": {"rgb/align": 0.5, "*/align": 0.2}},
     r"gives rgb/align two weights, by 'rgb/align' and by '\*/align'"),
    ({"scale": "logarithmic"}, "SearchSpace.scale is 'logarithmic'"),
    ({"smallest": 0.0}, "SearchSpace.smallest is 0.0"),
    ({"smallest": 1.0}, "SearchSpace.smallest is 1.0"),
])
def test_says_what_is_wrong_with_the_space(settings, message):
    with pytest.raises(UserError, match=message):
        SearchSpace(LOSSES, **settings)


def test_the_mend_that_it_names_works():
    assert len(SearchSpace(LOSSES, searched=("rgb/*",), fixed={"*": 0.0}).searched) == 7
    # Equal weights by two patterns are no contradiction.
    assert SearchSpace(LOSSES, fixed={"rgb/align": 0.5, "*/align": 0.5}).fixed["rgb/align"] == 0.5


@pytest.mark.parametrize("vector", [[0.5] * 39, [0.5] * 39 + [1.01], [0.5] * 39 + [np.nan]])
def test_refuses_a_vector_of_another_space(vector):
    with pytest.raises(ValueError, match=r"40 numbers in \[0, 1\]"):
        SearchSpace(LOSSES).weights(vector)


@pytest.mark.parametrize("name", ["cma_es", "tournament", "random", "grid"])
def test_the_shipped_choices_search_the_default_space_and_a_part_of_it(name):
    for bindings in ([], ["SearchSpace.searched = ('rgb/*', 'distill/*')",
                          "SearchSpace.fixed = {'*': 0.0}", "SearchSpace.scale = 'log'"]):
        gin.clear_config()
        configuration.parse([f"search/{name}.gin"], bindings)
        space = gin.get_configurable("SearchSpace")()
        strategy = gin.query_parameter("search.make_strategy").scoped_configurable_fn(
            space.searched)
        # All that the file sets is a setting of the strategy it chooses.
        kind = type(strategy).__name__
        assert kind == {"cma_es": "CMAES", "tournament": "Tournament", "random": "RandomSearch",
                        "grid": "Grid"}[name]
        vectors = strategy.ask()
        assert vectors.shape == (4 + int(3 * np.log(len(space.searched))), len(space.searched))
        strategy.tell([(v, sum(space.weights(v).values())) for v in vectors])
        assert strategy.mean.shape == (len(space.searched),)
