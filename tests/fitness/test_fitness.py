"""ZipfFitness, k-means and normalisation."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance
from sklearn import metrics

from elo_tf.errors import UserError
from elo_tf.fitness import clustering, zipf
from elo_tf.fitness.fitness import ZipfFitness
from elo_tf.fitness.normalisation import normalise


def blobs(sizes, width=16, seed=0):
    generator = np.random.Generator(np.random.PCG64(seed))
    centres = 10 * generator.normal(size=(len(sizes), width))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return centres[labels] + 0.1 * generator.normal(size=(len(labels), width)), labels


def test_kmeans_finds_clear_clusters_and_their_means():
    features, labels = blobs([30, 20, 10])
    found = clustering.kmeans(features, 3, seed=1)
    assert metrics.adjusted_rand_score(labels, found.assignments) == 1
    for c in range(3):
        np.testing.assert_allclose(
            found.centroids[c], features[found.assignments == c].mean(axis=0), atol=1e-9)


def test_kmeans_is_the_same_to_the_last_bit():
    features = np.random.Generator(np.random.PCG64(0)).normal(size=(2000, 24)).astype(np.float32)
    first = clustering.kmeans(features, 20, seed=3)
    np.random.seed(99)
    second = clustering.kmeans(features, 20, seed=3)
    assert np.array_equal(first.centroids, second.centroids)
    assert np.array_equal(first.assignments, second.assignments)


def test_fewer_clips_than_clusters_is_told_to_the_user():
    features = np.random.Generator(np.random.PCG64(0)).normal(size=(5, 8))
    with pytest.raises(UserError, match="6 clusters of 5 clips"):
        ZipfFitness(k=6)(features)


def test_standardise_gives_unit_mean_square_and_drops_dead_dimensions():
    features = np.random.Generator(np.random.PCG64(0)).normal(size=(200, 6)) * [1, 10, 0, 3, 0, 1]
    features = (features + 7).astype(np.float32)
    points = normalise(features, "standardise")
    alive = [0, 1, 3, 5]
    np.testing.assert_allclose(
        points[:, alive], stats.zscore(features.astype(np.float64)[:, alive], axis=0) / 2)
    assert not points[:, [2, 4]].any()
    assert np.mean(np.sum(points**2, axis=1)) == pytest.approx(1)


def test_l2_and_none():
    features = np.array([[3.0, 4.0], [0.0, 0.0], [-5.0, 0.0]])
    np.testing.assert_allclose(normalise(features, "l2"), [[0.6, 0.8], [0, 0], [-1, 0]])
    assert np.array_equal(normalise(features, "none"), features)
    with pytest.raises(ValueError, match="standardize"):
        normalise(features, "standardize")


def test_scale_keeps_directions_and_is_blind_to_place_and_size():
    features = np.random.default_rng(5).gamma(2.0, [1.0, 5.0, 0.1, 3.0], (50, 4))
    points = normalise(features, "scale")
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=1e-12)
    assert np.trace(np.cov(points.T, ddof=0)) == pytest.approx(1.0)
    np.testing.assert_allclose(points, (features - features.mean(0)) / np.sqrt(
        np.trace(np.cov(features.T, ddof=0))))
    np.testing.assert_allclose(points, normalise(7.0 * features - 3.0, "scale"))
    np.testing.assert_array_equal(normalise(np.ones((5, 3)), "scale"), np.zeros((5, 3)))


def test_standardise_l2_is_blind_to_the_scale_of_dimensions_and_of_clips():
    features = np.random.Generator(np.random.PCG64(0)).normal(size=(50, 4))
    points = normalise(features, "standardise_l2")
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)
    expected = stats.zscore(features, axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(points, expected)
    np.testing.assert_allclose(points, normalise(features * [1, 9, 2, 5] + 3, "standardise_l2"))


def test_report_is_what_its_parts_give():
    features, _ = blobs([40, 20, 13, 10])
    report = ZipfFitness(k=4, s=1.0, two_sigma_squared=0.5, normalisation="standardise", seed=2)(
        features)
    points = normalise(features, "standardise")
    centroids = clustering.kmeans(points, 4, seed=2).centroids
    assert report.status == "ok"
    assert report.fitness == zipf.zipf_fitness(points, centroids, 1.0, 0.5)
    assert report.histogram.sum() == pytest.approx(1)
    assert np.all(np.diff(report.histogram) <= 0)
    assert report.fitness == pytest.approx(stats.entropy(report.histogram, zipf.zipf_law(4)))
    assert report.spread > 1
    assert 1 < report.effective_rank <= 16
    assert report.seconds > 0


def test_nearest_are_the_clips_of_each_cluster_by_distance_largest_cluster_first():
    features, labels = blobs([4, 20, 2, 14, 9])
    count = 5
    report = ZipfFitness(
        k=5, two_sigma_squared=1e-2, normalisation="standardise", nearest=count)(features)
    assert report.nearest.dtype == np.int64 and report.nearest.shape == (5, count)
    points = normalise(features, "standardise")
    for cluster, row in zip([1, 3, 4, 0, 2], report.nearest, strict=True):
        members = np.flatnonzero(labels == cluster)
        far = distance.cdist(points[members], points[members].mean(axis=0, keepdims=True))[:, 0]
        expected = list(members[np.argsort(far)])[:count]
        assert row.tolist() == expected + [-1] * (count - len(expected))
    np.testing.assert_allclose(report.histogram, np.array([20, 14, 9, 4, 2]) / 49, atol=1e-6)


@pytest.mark.parametrize("normalisation", ["none", "l2", "scale", "standardise", "standardise_l2"])
def test_zipfian_encoders_beat_uniform_ones(normalisation):
    # Distances in units of sigma, so that every normalisation sees hard clusters.
    fitness = ZipfFitness(k=6, s=1.0, two_sigma_squared=1e-2, normalisation=normalisation)
    zipfian, _ = blobs([60, 30, 20, 15, 12, 10])
    uniform, _ = blobs([25] * 6)
    assert fitness(zipfian).fitness < 0.5 * fitness(uniform).fitness


def test_a_collapsed_encoder_has_no_fitness_but_a_reason():
    report = ZipfFitness(k=5)(np.ones((50, 8), np.float32))
    assert report.fitness == math.inf
    assert report.status.startswith("failed: constant encoder")
    assert len(report.histogram) == 0
