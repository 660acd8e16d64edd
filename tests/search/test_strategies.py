"""What every strategy owes the search: repeatable, resumable, within bounds, no side effects."""

import zlib

import gin
import numpy as np
import pytest

from elo_tf.search.strategies import CMAES, Grid, RandomSearch, Tournament

NAMES = tuple(f"loss{i}" for i in range(8))
GROUPS = (("loss[01]",), ("loss[23]",), ("loss[45]",), ("loss[67]",))
MAKERS = {
    "cma_es": lambda seed=1: CMAES(NAMES, 6, seed),
    "cma_es, restarting": lambda seed=1: CMAES(NAMES, 4, seed, restarts=5, tolfunhist=1e4),
    "cma_es, noise": lambda seed=1: CMAES(NAMES, 7, seed, reevaluations=3),
    "tournament": lambda seed=1: Tournament(NAMES, 6, seed),
    "random": lambda seed=1: RandomSearch(NAMES, 6, seed),
    "grid": lambda seed=1: Grid(NAMES, 7, seed, GROUPS),
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def noisy_sphere(vector, repeat=0):
    """Of a vector and a seed, as a proxy's fitness is; where one weight is high it fails."""
    if vector[0] > 0.9:
        return 1e3
    generator = np.random.Generator(np.random.PCG64([zlib.crc32(vector.tobytes()), repeat]))
    return float(np.sum((vector - np.linspace(0, 1, len(vector))) ** 2)) + 0.2 * generator.normal()


def one_generation(strategy, fitness=noisy_sphere):
    """Asks and tells once; returns what was asked and what was told."""
    vectors = strategy.ask()
    results = [(v, fitness(v)) for v in vectors]
    again = {i: fitness(vectors[i], 1) for i in strategy.recheck([f for _, f in results])}
    told = (results, again)
    strategy.tell(*told)
    return vectors, told


def run(strategy, generations=14, disturb=False):
    asked, told = [], []
    for generation in range(generations):
        if strategy.stop():
            break
        if disturb:
            np.random.seed(generation)
        vectors, results = one_generation(strategy)
        asked.append(vectors)
        told.append(results)
    return asked, told


def same(first, second):
    return len(first) == len(second) and all(map(np.array_equal, first, second))


@every
def test_same_seed_asks_the_same_whatever_numpy_does(make):
    first, _ = run(make(7))
    second, _ = run(make(7), disturb=True)
    other, _ = run(make(8))
    assert same(first, second)
    assert not same(first, other)


@every
def test_is_resumed_by_telling_it_again_what_it_was_told(make):
    asked, told = run(make())
    for cut in (1, 4, 11):
        resumed = make()
        for vectors, results in zip(asked[:cut], told[:cut], strict=True):
            assert np.array_equal(resumed.ask(), vectors)
            # Values read back from a file: equal numbers, other objects.
            resumed.tell([(np.array(v.tolist()), float(repr(f))) for v, f in results[0]],
                         dict(results[1]))
        later, _ = run(resumed, 14 - cut)
        assert same(later, asked[cut:])
    finished, again = make(), make()
    run(finished), run(again)
    assert np.array_equal(finished.mean, again.mean)
    assert finished.sigma == again.sigma
    assert finished.stop() == again.stop()
    assert repr(finished.axes()) == repr(again.axes())


def test_the_cases_are_what_they_are_called():
    asked, _ = run(MAKERS["cma_es, restarting"]())
    assert {len(x) for x in asked[:9]} == {4} and {len(x) for x in asked[11:]} == {8}
    _, told = run(MAKERS["cma_es, noise"]())
    assert {len(again) for _, again in told} == {3}
    asked, _ = run(MAKERS["grid"](), 12)
    assert [len(x) for x in asked] == [7] * 11 + [3]


@every
def test_looking_at_it_changes_nothing(make):
    plain, watched = make(), make()
    for _ in range(9):
        vectors, _ = one_generation(plain)
        asked = watched.ask()
        assert np.array_equal(asked, vectors)
        asked[:] = 0.5  # What was handed out is the caller's.
        results = [(v, noisy_sphere(v)) for v in vectors]
        for _ in range(2):
            again = watched.recheck([f for _, f in results])
            watched.mean[:] = 0.1
            watched.axes(2), watched.sigma, watched.stop()
        watched.tell(results, {i: noisy_sphere(vectors[i], 1) for i in again})


@every
def test_leaves_numpys_global_state_and_the_folder_alone(
        make, tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.chdir(tmp_path)
    np.random.seed(5)
    before = np.random.get_state()
    strategy = make()
    run(strategy)
    strategy.axes()
    after = np.random.get_state()
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")
    assert not [w for w in recwarn if "elo_tf" in str(w.filename) or "cma" in str(w.filename)]


@every
def test_vectors_and_mean_stay_in_the_unit_cube(make):
    strategy = make()
    assert (strategy.dimension, strategy.seed) == (8, 1)
    assert strategy.stop() == ""
    for generation in range(11):
        # What pulls all weights out of the cube.
        vectors, _ = one_generation(strategy, lambda v, repeat=0: float(-np.sum(v)))
        assert vectors.dtype == np.float64
        assert vectors.shape[1] == 8
        assert generation > 0 or len(vectors) == strategy.population
        assert vectors.min() >= 0 and vectors.max() <= 1
        assert strategy.mean.shape == (8,)
        assert strategy.mean.min() >= 0 and strategy.mean.max() <= 1
        assert isinstance(strategy.sigma, float) and np.isfinite(strategy.sigma)


@every
def test_refuses_what_does_not_belong_to_what_it_asked(make):
    strategy = make()
    vectors = strategy.ask()
    results = [(v, float(i)) for i, v in enumerate(vectors)]
    again = dict.fromkeys(strategy.recheck([f for _, f in results]), 1.0)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            strategy.tell([(v, bad if i == 2 else f) for i, (v, f) in enumerate(results)])
    for wrong in (results[::-1], results[:3], [*results, results[0]], []):
        with pytest.raises(ValueError, match="last ask"):
            strategy.tell(wrong, again)
    with pytest.raises(ValueError, match=r"as recheck\(\) named them"):
        strategy.tell(results, {**again, len(vectors) - 1: 1.0, 0: 1.0})
    strategy.tell(results, again)
    with pytest.raises(ValueError, match="last ask"):
        strategy.tell(results, again)


@pytest.mark.parametrize("name", ["CMAES", "Tournament", "RandomSearch", "Grid"])
def test_is_configured_by_gin(name):
    gin.parse_config(f"{name}.population = 9\n{name}.seed = 4")
    strategy = gin.get_configurable(name)(NAMES)
    assert (strategy.population, strategy.seed, strategy.dimension) == (9, 4, 8)
    assert type(strategy).__name__ == name
    with pytest.raises(ValueError, match="denylist"):
        gin.parse_config(f"{name}.names = ('rgb/align',)")


def test_all_take_as_many_vectors_for_forty_weights():
    names = [f"*/{i}" for i in range(40)]
    for make in (CMAES, Tournament, RandomSearch, Grid):
        assert make(names).population == 4 + int(3 * np.log(40)) == 15
