"""Random search and grid search: what they cover, and in which order."""

import itertools

import numpy as np
import pytest

from elo_tf.errors import UserError
from elo_tf.losses import LossSpace
from elo_tf.search.strategies import Grid, RandomSearch

NAMES = LossSpace().names


def everything(strategy, generations=1000, fitness=lambda v: 0.0):
    """All vectors that it asks for, and how many at a time."""
    asked = []
    while not strategy.stop() and len(asked) < generations:
        asked.append(strategy.ask())
        strategy.tell([(v, fitness(v)) for v in asked[-1]])
    return np.concatenate(asked), [len(x) for x in asked]


def test_random_vectors_are_one_stream_however_they_are_cut():
    whole, _ = everything(RandomSearch(NAMES, 60, seed=4), 1)
    assert whole.shape == (60, 40)
    for population in (1, 7, 15):
        part, _ = everything(RandomSearch(NAMES, population, seed=4), 60 // population)
        assert np.array_equal(part, whole[:len(part)])
    other, _ = everything(RandomSearch(NAMES, 60, seed=5), 1)
    assert not np.array_equal(other, whole)


def test_random_vectors_are_uniform_whatever_was_told():
    strategy = RandomSearch(NAMES, 50, seed=2)
    drawn, _ = everything(strategy, 20, lambda v: float(v[0]))
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert np.all(np.abs(counts - 2000) < 4 * np.sqrt(2000 * 0.95))
    # No weight follows another: correlations are those of 1000 independent draws.
    correlation = np.corrcoef(drawn.T)[np.triu_indices(40, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(1000)
    np.testing.assert_allclose(strategy.sigma, drawn.std(), rtol=0.01)
    np.testing.assert_allclose(strategy.mean, drawn.mean(0), atol=0.05)
    assert strategy.stop() == ""


def test_the_grid_is_every_combination_but_the_one_without_losses():
    strategy = Grid(NAMES, 15, seed=1)
    vectors, sizes = everything(strategy)
    assert sizes == [15] * 5 + [5]
    assert strategy.points == len(vectors) == 3**4 - 1
    assert strategy.stop() == "every point of the grid was tried"
    with pytest.raises(ValueError, match="every point"):
        strategy.ask()
    # Which group a loss is in, from its name.
    tasks = [n.split("/")[0] if n.startswith("distill") else n.split("/")[1] for n in NAMES]
    groups = {"reconstruct": 0, "predict": 0, "transfer": 0, "shuffle": 1, "reverse": 1,
              "contrast": 2, "align": 2, "distill": 3}
    expected = {tuple(levels[groups[task]] for task in tasks)
                for levels in itertools.product((0.0, 0.5, 1.0), repeat=4) if any(levels)}
    assert {tuple(v) for v in vectors.tolist()} == expected


def test_the_order_of_the_grid_is_that_of_the_seed_and_not_of_the_population():
    first, _ = everything(Grid(NAMES, 15, seed=1))
    cut, sizes = everything(Grid(NAMES, 7, seed=1))
    other, _ = everything(Grid(NAMES, 15, seed=2))
    assert sizes == [7] * 11 + [3]
    assert np.array_equal(first, cut)
    assert not np.array_equal(first, other)
    assert {tuple(v) for v in first} == {tuple(v) for v in other}
    # The first quarter is no corner: over seeds it has the mean level of all points, 27 of 80
    # points being at each of 0.5 and 1.
    level = np.mean([everything(Grid(NAMES, 20, seed=s), 1)[0].mean() for s in range(40)])
    assert abs(level - 1.5 * 27 / 80) < 0.03


def test_names_without_a_group_are_one_more_and_groups_without_names_none():
    names = ["rgb/align", "mine/odd", "rgb/shuffle", "mine/other"]
    strategy = Grid(names, levels=(0.0, 1.0))
    assert strategy.groups == [("rgb/shuffle",), ("rgb/align",), ("mine/odd", "mine/other")]
    vectors, _ = everything(strategy)
    assert len(vectors) == 7
    assert np.array_equal(vectors[:, 1], vectors[:, 3])
    assert {tuple(v) for v in vectors[:, :3]} == set(itertools.product((0, 1), repeat=3)) - {
        (0, 0, 0)}


def test_a_grid_without_the_level_zero_leaves_out_nothing():
    vectors, _ = everything(Grid(NAMES, groups=(("rgb/*",), ("audio/*",)), levels=(0.25, 1.0)))
    assert len(vectors) == 8
    assert vectors.min() == 0.25


def test_the_mean_of_a_grid_is_the_best_so_far():
    strategy = Grid(NAMES, 15, seed=3)
    np.testing.assert_array_equal(strategy.mean, 0.5)
    assert strategy.sigma == 0.0
    target = np.random.Generator(np.random.PCG64(0)).random(40)
    seen = np.empty((0, 40))
    while not strategy.stop():
        vectors = strategy.ask()
        distances = ((vectors - target) ** 2).sum(1)
        strategy.tell(list(zip(vectors, distances, strict=True)))
        seen = np.concatenate([seen, vectors])
        assert np.array_equal(strategy.mean, seen[((seen - target) ** 2).sum(1).argmin()])


@pytest.mark.parametrize(("settings", "message"), [
    ({"population": 0}, "Grid.population is 0"),
    ({"levels": (0.5,)}, r"Grid.levels is \(0.5,\)"),
    ({"levels": (0.5, 0.5)}, "two or more different"),
    ({"levels": (0.0, 2.0)}, r"Grid.levels is \(0.0, 2.0\)"),
    ({"groups": (("rbg/*",),)}, "Grid.groups: 'rbg/\\*' matches none of the searched losses"),
    ({"groups": (("rgb/*",), ("*/align",))}, "Grid.groups: rgb/align is in both"),
    ({"groups": tuple((name,) for name in NAMES)}, "3 levels of 40 groups"),
])
def test_says_which_setting_of_the_grid_is_wrong(settings, message):
    with pytest.raises(UserError, match=message):
        Grid(NAMES, **settings)


def test_says_which_setting_of_random_search_is_wrong():
    with pytest.raises(UserError, match="RandomSearch.population is 0; it must be at least 1"):
        RandomSearch(NAMES, 0)
