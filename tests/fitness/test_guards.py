"""Guards: what they measure, whom they fail, and why KL would not do."""

import numpy as np
import pytest
from scipy import stats

from elo_tf.fitness import clustering, guards, zipf


def normal(n, d, seed=0):
    return np.random.Generator(np.random.PCG64(seed)).normal(size=(n, d))


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (20, 20)])
def test_effective_rank_is_the_entropy_of_the_singular_values(shape):
    features = normal(*shape) * np.logspace(0, -2, shape[1]) + 5
    values = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
    assert guards.effective_rank(features) == pytest.approx(
        np.exp(stats.entropy(values)), rel=1e-5)


def test_effective_rank_of_equal_directions_is_their_number():
    # An orthogonal design: 5 centred directions of equal length.
    basis = np.linalg.qr(np.column_stack([np.ones(40), normal(40, 5)]))[0][:, 1:]
    rotation = np.linalg.qr(normal(64, 64, seed=1))[0][:5]
    assert guards.effective_rank(basis @ rotation * 1e-7 + 3) == pytest.approx(5, abs=1e-4)


def test_spread_is_the_root_mean_squared_distance_from_the_mean():
    features = normal(50, 7) * 3 + 100
    distances = np.linalg.norm(features - features.mean(axis=0), axis=1)
    assert guards.spread(features) == pytest.approx(np.sqrt(np.mean(distances**2)))


def test_healthy_features_pass_at_any_usual_scale():
    for scale in (1e-3, 1.0, 30.0):
        verdict = guards.check_features(scale * np.maximum(normal(60, 32), 0))
        assert verdict.status == "ok"
        assert verdict.effective_rank > 10


@pytest.mark.parametrize(("features", "reason"), [
    (np.full((50, 16), 0.7, np.float32), "constant"),
    (np.zeros((50, 16)), "constant"),
    (1e-9 * normal(50, 16), "constant"),
    ((1e3 + 1e-3 * normal(50, 16)).astype(np.float32), "constant"),
    (1e6 * normal(50, 16), "exploding"),
    (1e200 * normal(50, 16), "exploding"),
    (np.where(np.arange(50)[:, None] == 3, np.nan, normal(50, 16)), "exploding"),
    (np.where(np.arange(50)[:, None] == 3, np.inf, normal(50, 16)), "exploding"),
    (normal(50, 1) @ normal(1, 16), "low-rank"),
    ((normal(50, 1) @ normal(1, 16) + 5).astype(np.float32), "low-rank"),
])
def test_collapsed_encoders_are_failed_with_their_reason(features, reason):
    status = guards.check_features(features).status
    assert status.startswith(f"failed: {reason} encoder")


def test_one_direction_and_a_rectifier_are_of_low_rank():
    # Two places on one line, of either sign: rectified and pooled they are two directions.
    places = np.abs(normal(4000, 2)).astype(np.float32) * [1, -1]
    directions = np.repeat([1, -1], 16)
    features = np.maximum(places[:, :, None] * directions, 0).mean(axis=1)
    verdict = guards.check_features(features)
    assert 1.99 < verdict.effective_rank < 2.01
    assert verdict.status.startswith("failed: low-rank encoder")


def test_divergence_alone_would_not_have_caught_a_constant_encoder():
    k = 12
    constant = np.full((100, 16), 0.7)
    centroids = np.repeat(constant[:1], k, axis=0)
    uniform = stats.entropy(np.full(k, 1 / k), zipf.zipf_law(k))
    assert zipf.zipf_fitness(constant, centroids) == pytest.approx(uniform)
    # Spread-out features without any clusters, in whose midst KL ranks it: some are worse.
    hard = 1e3 * np.repeat(np.eye(k), [89] + [1] * (k - 1), axis=0)
    assert zipf.zipf_fitness(hard, clustering.kmeans(hard, k).centroids) > uniform
