"""Losses beside each other: what the flags say, and the accuracy of planted clusters."""

import numpy as np
import pytest

from benchmarks import compare_losses
from elo_tf.errors import UserError
from elo_tf.features import Features


def test_losses_are_names_with_weights():
    assert compare_losses.parse("rgb/predict audio/align=0.3") == {
        "rgb/predict": 1.0, "audio/align": 0.3}
    with pytest.raises(UserError, match="'much' is not a number"):
        compare_losses.parse("rgb/predict=much")


def test_kmeans_accuracy_is_the_share_that_the_best_naming_gets_right():
    rng = np.random.Generator(np.random.PCG64(0))
    clusters = np.repeat(np.arange(3), 40)
    points = 10.0 * np.eye(3)[clusters] + rng.normal(0.0, 0.1, (120, 3))
    labels = (clusters + 1) % 3 + 7
    labels[:10] = 7  # of the 40 clips that were 8
    features = Features(points, [str(i) for i in range(120)], labels)
    assert compare_losses.kmeans_accuracy(features) == pytest.approx(110 / 120)
