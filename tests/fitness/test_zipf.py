"""Zipf fitness against its closed form, and as a ranking of feature sets."""

import numpy as np
import pytest
from scipy import special, stats

from elo_tf.fitness import clustering, zipf


def naive_fitness(features, centroids, s, two_sigma_squared):
    """The equations as written, with plain exponentials."""
    rows = []
    for x in features:
        likelihood = [np.exp(-np.sum((x - c) ** 2) / two_sigma_squared) for c in centroids]
        rows.append(np.array(likelihood) / np.sum(likelihood))
    p = np.sort(np.mean(rows, axis=0))[::-1]
    q = np.array([1 / i**s for i in range(1, len(p) + 1)])
    return stats.entropy(p, q / q.sum())


def blobs(sizes, distance=50.0, seed=0):
    """Well-separated clusters of the given sizes, and their centres."""
    generator = np.random.Generator(np.random.PCG64(seed))
    centres = distance * np.eye(len(sizes))
    features = np.repeat(centres, sizes, axis=0)
    return features + 0.01 * generator.normal(size=features.shape), centres


@pytest.mark.parametrize("s", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("two_sigma_squared", [0.5, 1.0, 3.0])
def test_equals_the_equations_as_written(s, two_sigma_squared):
    generator = np.random.Generator(np.random.PCG64(1))
    features = generator.normal(size=(50, 6))
    centroids = generator.normal(size=(7, 6))
    assert zipf.zipf_fitness(features, centroids, s, two_sigma_squared) == pytest.approx(
        naive_fitness(features, centroids, s, two_sigma_squared), rel=1e-10)


def test_closed_form_of_hard_clusters():
    sizes = [60, 30, 10]
    features, centres = blobs(sizes)
    p = np.array(sizes) / 100
    q = np.array([6, 3, 2]) / 11
    assert zipf.zipf_fitness(features, centres) == pytest.approx(np.sum(p * np.log(p / q)))
    np.testing.assert_allclose(zipf.cluster_mass(features, centres), p, rtol=1e-9)


def test_law_is_a_distribution_with_the_harmonic_number():
    harmonic = sum(1 / n**1.5 for n in range(1, 21))
    law = zipf.zipf_law(20, 1.5)
    assert law.sum() == pytest.approx(1)
    np.testing.assert_allclose(law, [1 / i**1.5 / harmonic for i in range(1, 21)])


def test_zero_for_the_law_itself_and_bounded_for_one_cluster():
    assert zipf.divergence(zipf.log_zipf_law(30)[::-1]) == pytest.approx(0, abs=1e-12)
    # All mass on the first rank: log H; all mass on the last is excluded by sorting.
    one = np.full(30, -np.inf)
    one[4] = 0.0
    harmonic = sum(1 / n for n in range(1, 31))
    assert zipf.divergence(one) == pytest.approx(np.log(harmonic))


@pytest.mark.parametrize("distance", [1e4, 1e8, 1e30])
def test_far_features_neither_overflow_nor_vanish(distance):
    features, centres = blobs([8, 4, 2, 1], distance=distance)
    with np.errstate(all="raise", under="ignore"):
        fitness = zipf.zipf_fitness(features.astype(np.float32), centres)
    p = np.array([8, 4, 2, 1]) / 15
    assert fitness == pytest.approx(stats.entropy(p, zipf.zipf_law(4)), rel=1e-6)


def test_far_from_the_origin_changes_nothing():
    generator = np.random.Generator(np.random.PCG64(2))
    features = generator.normal(size=(40, 5))
    centroids = generator.normal(size=(6, 5))
    assert zipf.zipf_fitness(features + 1e6, centroids + 1e6) == pytest.approx(
        zipf.zipf_fitness(features, centroids), rel=1e-6)


def test_order_of_clips_clusters_and_dimensions_does_not_matter():
    generator = np.random.Generator(np.random.PCG64(3))
    features = generator.normal(size=(60, 4))
    centroids = generator.normal(size=(9, 4))
    expected = zipf.zipf_fitness(features, centroids)
    dimensions = generator.permutation(4)
    assert zipf.zipf_fitness(generator.permutation(features), centroids) == pytest.approx(expected)
    assert zipf.zipf_fitness(features, generator.permutation(centroids)) == pytest.approx(expected)
    assert zipf.zipf_fitness(
        features[:, dimensions], centroids[:, dimensions]) == pytest.approx(expected)


def test_zipfian_sizes_score_better_than_uniform_ones():
    zipfian, _ = blobs([60, 30, 20, 15, 12, 10])
    uniform, _ = blobs([25] * 6)
    scores = [
        zipf.zipf_fitness(x, clustering.kmeans(x, 6).centroids) for x in (zipfian, uniform)]
    assert scores[0] < 1e-3
    assert scores[1] == pytest.approx(stats.entropy(np.full(6, 1 / 6), zipf.zipf_law(6)))


def test_is_never_above_its_bound():
    generator = np.random.Generator(np.random.PCG64(4))
    for k in (2, 10, 50):
        bound = np.log(k) + special.logsumexp(-np.log(np.arange(1, k + 1)))
        for scale in (1e-3, 1.0, 1e3):
            features = scale * generator.standard_t(1, size=(100, 3))
            fitness = zipf.zipf_fitness(features, features[:k])
            assert 0 <= fitness <= bound


@pytest.mark.parametrize(("features", "centroids"), [
    (np.full((3, 2), np.nan), np.zeros((2, 2))),
    (np.zeros((3, 2)), np.full((2, 2), np.inf)),
    (np.zeros((3, 2)), np.zeros((2, 3))),
    (np.zeros((0, 2)), np.zeros((2, 2))),
    (np.zeros(3), np.zeros((2, 2))),
])
def test_what_is_not_a_set_of_features_is_refused(features, centroids):
    with pytest.raises(ValueError, match=r"finite|\[N, D\]"):
        zipf.zipf_fitness(features, centroids)


def test_two_sigma_squared_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        zipf.zipf_fitness(np.zeros((3, 2)), np.zeros((2, 2)), two_sigma_squared=0.0)
