"""CMA-ES: repeatable, within its bounds, without side effects, and better than chance."""

import gin
import numpy as np
import pytest

from elo_tf.errors import UserError
from elo_tf.search.strategies import CMAES


def optimise(strategy, fitness, generations, disturb=False):
    asked = []
    for generation in range(generations):
        if disturb:
            np.random.seed(generation)
        vectors = strategy.ask()
        asked.append(vectors)
        strategy.tell([(v, fitness(v)) for v in vectors])
    return np.array(asked)


def shifted_sphere(vector):
    target = np.linspace(0.0, 1.0, len(vector))
    return float(np.sum((vector - target) ** 2))


@pytest.mark.parametrize("population", [4, 5, 6, None])
def test_same_seed_asks_the_same_whatever_numpy_does(population):
    first = optimise(CMAES(12, population, seed=7), shifted_sphere, 12)
    second = optimise(CMAES(12, population, seed=7), shifted_sphere, 12, disturb=True)
    other = optimise(CMAES(12, population, seed=8), shifted_sphere, 12)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_leaves_numpys_global_state_and_the_folder_alone(tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.chdir(tmp_path)
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    strategy = CMAES(8, 6)
    optimise(strategy, shifted_sphere, 5)
    assert strategy.stop() == ""
    assert np.array_equal(np.random.get_state()[1], before)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")
    assert not [w for w in recwarn if "cma" in str(w.filename)]


def test_stays_within_bounds_even_when_pulled_out():
    asked = optimise(CMAES(6, 8), lambda v: float(-np.sum(v)), 60)
    assert asked.min() >= 0
    assert asked.max() <= 1
    assert asked[-1].mean() > 0.95


def test_optimises_a_shifted_sphere_far_better_than_random():
    dimension, generations, population = 10, 60, 10
    found, drawn = [], []
    for seed in range(3):
        asked = optimise(CMAES(dimension, population, seed=seed + 1), shifted_sphere, generations)
        found.append(min(shifted_sphere(v) for v in asked.reshape(-1, dimension)))
        generator = np.random.Generator(np.random.PCG64(seed))
        drawn.append(min(
            shifted_sphere(v)
            for v in generator.uniform(size=(generations * population, dimension))))
    assert max(found) < 0.05 * min(drawn)


def test_starts_in_the_middle_and_reports_its_state():
    strategy = CMAES(40, 6, sigma0=0.3)
    np.testing.assert_allclose(strategy.mean, 0.5)
    assert strategy.sigma == 0.3
    vectors = np.concatenate([CMAES(40, 6, seed=s).ask() for s in range(20)])
    assert vectors.shape == (120, 40)
    np.testing.assert_allclose(vectors.mean(), 0.5, atol=0.02)
    # A normal of deviation 0.3, folded at the bounds.
    assert 0.2 < vectors.std() < 0.3


def test_population_of_40_weights_is_pycmas_default():
    assert CMAES(40).population == 4 + int(3 * np.log(40))


def test_refuses_what_pycma_would_paper_over():
    strategy = CMAES(3, 4)
    vectors = strategy.ask()
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            strategy.tell([(v, bad if i == 2 else 1.0) for i, v in enumerate(vectors)])
    with pytest.raises(ValueError, match="last ask"):
        strategy.tell([(v, 1.0) for v in vectors[::-1]])
    with pytest.raises(ValueError, match="last ask"):
        strategy.tell([(v, 1.0) for v in vectors[:3]])
    strategy.tell([(v, 1.0) for v in vectors])
    with pytest.raises(ValueError, match="last ask"):
        strategy.tell([(v, 1.0) for v in vectors])
    with pytest.raises(ValueError, match="at least"):
        CMAES(1)
    with pytest.raises(UserError, match="CMAES.population is 3"):
        CMAES(5, 3)


def test_flat_generations_do_not_stop_it():
    strategy = CMAES(5, 6)
    optimise(strategy, lambda v: 1e3, 20)
    assert strategy.stop() == ""


def test_is_configured_by_gin():
    gin.clear_config()
    gin.parse_config("CMAES.population = 9\nCMAES.sigma0 = 0.2")
    try:
        strategy = gin.get_configurable("CMAES")(4)
    finally:
        gin.clear_config()
    assert (strategy.population, strategy.sigma) == (9, 0.2)
