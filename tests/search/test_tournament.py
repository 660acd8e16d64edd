"""Tournament selection: its pressure, its mutations, its elites, and what it finds."""

import numpy as np
import pytest

from elo_tf.errors import UserError
from elo_tf.search.strategies import RandomSearch, Tournament
from elo_tf.search.strategies.tournament import reflect

STILL = 1e-9  # A mutation that leaves the parent recognisable.


def names(dimension):
    return [f"loss{i}" for i in range(dimension)]


def tell(strategy, vectors, fitness):
    strategy.tell(list(zip(vectors, fitness, strict=True)))


def optimise(strategy, fitness, generations):
    best = np.inf
    for _ in range(generations):
        vectors = strategy.ask()
        values = [fitness(v) for v in vectors]
        tell(strategy, vectors, values)
        best = min(best, *values)
    return best


def parents_of(children, pool):
    """Which of the pool each child is nearest to: float64 [n, D], [m, D] -> int64 [n]."""
    distance = np.abs(children[:, None] - pool[None]).max(-1)
    assert distance.min(1).max() < 1e-6
    return distance.argmin(1)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_selects_with_the_pressure_that_goldberg_and_deb_give(size):
    n, seeds = 10, 400
    chosen = np.zeros(n)
    for seed in range(seeds):
        strategy = Tournament(names(6), n, seed, size, elites=0, mutation_sigma=STILL)
        pool = strategy.ask()
        tell(strategy, pool, np.arange(n))
        chosen += np.bincount(parents_of(strategy.ask(), pool), minlength=n)
    # The best of a tournament is no better than the one at place i with ((n - i) / n)^size.
    at_least = (1 - np.arange(n + 1) / n) ** size
    expected = at_least[:-1] - at_least[1:]
    np.testing.assert_allclose(expected[0], 1 - (1 - 1 / n) ** size)
    error = np.sqrt(expected * (1 - expected) / (n * seeds))
    assert np.all(np.abs(chosen / (n * seeds) - expected) < 4 * error + 1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_mutates_at_least_one_weight_by_a_normal(rate):
    dimension, n = 20, 500
    strategy = Tournament(names(dimension), n, 3, tournament_size=20 * n, elites=0,
                          mutation_rate=rate, mutation_sigma=0.05)
    pool = strategy.ask()
    tell(strategy, pool, np.arange(n))
    # So large a tournament has the best in it, which is the parent of all.
    step = strategy.ask() - pool[0]
    counts = (step != 0).sum(1)
    assert counts.min() >= 1
    expected = dimension * rate + (1 - rate) ** dimension  # One, where none was drawn.
    error = np.sqrt(dimension * rate * (1 - rate) / n)
    assert abs(counts.mean() - expected) <= 4 * error + 1e-12
    assert (step != 0).any(0).all()
    inside = (pool[0] > 0.25) & (pool[0] < 0.75)
    moves = step[:, inside][step[:, inside] != 0]
    assert len(moves) > 100
    assert abs(moves.std() / 0.05 - 1) < 4 / np.sqrt(2 * len(moves))
    assert abs(moves.mean()) < 4 * 0.05 / np.sqrt(len(moves))


def test_reflects_at_the_bounds():
    values = np.array([-0.2, 0.0, 0.3, 1.0, 1.2, 2.0, 2.3, -1.3])
    np.testing.assert_allclose(reflect(values), [0.2, 0.0, 0.3, 1.0, 0.8, 0.0, 0.3, 0.7])
    inside = np.random.Generator(np.random.PCG64(0)).random(1000)
    assert np.array_equal(reflect(inside), inside)
    # A normal around a bound becomes its absolute value.
    drawn = np.random.Generator(np.random.PCG64(1)).normal(0, 0.2, 20_000)
    np.testing.assert_allclose(reflect(drawn), np.abs(drawn))
    np.testing.assert_allclose(reflect(1 + drawn), 1 - np.abs(drawn))


@pytest.mark.parametrize("elites", [0, 1, 3])
def test_elites_stay_in_the_pool_until_they_are_beaten(elites):
    n = 5
    strategy = Tournament(names(30), n, 2, tournament_size=100, elites=elites, mutation_rate=0.0)
    np.testing.assert_array_equal(strategy.mean, 0.5)
    pool, fitness = np.empty((0, 30)), np.empty(0)
    generator = np.random.Generator(np.random.PCG64(9))
    for generation in range(8):
        vectors = strategy.ask()
        assert vectors.shape == (n, 30)
        if generation:
            # A tournament of 100 has all of the pool in it; one weight differs from the parent's.
            assert np.all((vectors != pool[fitness.argmin()]).sum(1) == 1)
        told = generator.permutation(n) + generator.random()
        tell(strategy, vectors, told)
        kept = np.argsort(fitness, kind="stable")[:elites]
        pool = np.concatenate([pool[kept], vectors])
        fitness = np.concatenate([fitness[kept], told])
        np.testing.assert_allclose(strategy.mean, pool.mean(0))


def test_the_first_generation_is_uniform_and_sigma_that_of_mutations():
    drawn = np.concatenate([Tournament(names(10), 20, seed).ask() for seed in range(50)])
    counts, _ = np.histogram(drawn, bins=10, range=(0, 1))
    assert np.all(np.abs(counts - 1000) < 4 * np.sqrt(1000 * 0.9))
    assert Tournament(names(3), mutation_sigma=0.3).sigma == 0.3


def test_optimises_a_shifted_sphere_far_better_than_random():
    def sphere(vector):
        return float(np.sum((vector - np.linspace(0, 1, len(vector))) ** 2))

    for seed in range(1, 4):
        found = optimise(Tournament(names(40), seed=seed), sphere, 60)
        drawn = optimise(RandomSearch(names(40), seed=seed), sphere, 60)
        assert found < 0.25 * drawn


@pytest.mark.parametrize(("settings", "message"), [
    ({"population": 1}, "Tournament.population is 1"),
    ({"tournament_size": 0}, "Tournament.tournament_size is 0"),
    ({"population": 4, "elites": 5}, r"Tournament.elites is 5; it must lie in \[0, 4\]"),
    ({"elites": -1}, "Tournament.elites is -1"),
    ({"mutation_rate": 1.5}, "Tournament.mutation_rate is 1.5"),
    ({"mutation_sigma": 0.0}, "Tournament.mutation_sigma is 0.0"),
])
def test_says_which_setting_is_wrong(settings, message):
    with pytest.raises(UserError, match=message):
        Tournament(names(5), **settings)
