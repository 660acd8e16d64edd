"""The controls of the fitness: sets of a known law, intervals, a table of simulated networks."""

import sys

import numpy as np
import pytest
from scipy import stats

from benchmarks import fitness_controls
from elo_tf.features import Features
from elo_tf.search import kept_features

CLASSES, CLIPS, WIDTH = 4, 24, 8


@pytest.mark.parametrize("law", fitness_controls.LAWS)
def test_a_set_has_its_law(law):
    labels = np.repeat(np.arange(6), 60)
    rows = fitness_controls.composed(labels, law)
    assert len(set(rows)) == len(rows)
    counts = sorted(np.bincount(labels[rows]), reverse=True)
    np.testing.assert_allclose(counts, 60 * np.arange(1.0, 7.0) ** -law, atol=0.5)


def test_the_interval_is_about_that_of_fisher():
    rng = np.random.Generator(np.random.PCG64(0))
    x = rng.normal(size=200)
    y = 0.6 * x + 0.8 * rng.normal(size=200)
    [rho], (low, high) = fitness_controls.correlations(x[None], y)
    assert rho == pytest.approx(stats.spearmanr(x, y).statistic)
    fisher = np.tanh(np.arctanh(rho) + np.array([-1.96, 1.96]) / np.sqrt(197))
    np.testing.assert_allclose([low, high], fisher, atol=0.05)


def test_the_mean_over_sets_is_less_uncertain_than_one():
    rng = np.random.Generator(np.random.PCG64(0))
    truth = rng.normal(size=100)
    sets = truth + 2 * rng.normal(size=(4, 100))
    rhos, (low, high) = fitness_controls.correlations(sets, truth)
    np.testing.assert_allclose(rhos, [stats.spearmanr(x, truth).statistic for x in sets])
    assert low < rhos.mean() < high
    _, one = fitness_controls.correlations(sets[:1], truth)
    assert high - low < 0.8 * (one[1] - one[0])


def test_the_table_of_networks_that_get_better(tmp_path, monkeypatch, capsys):
    rng = np.random.Generator(np.random.PCG64(1))
    labels = np.tile(np.arange(CLASSES), CLIPS)
    means = rng.normal(size=(CLASSES, WIDTH))
    ids = [f"clip{i}" for i in range(len(labels))]
    for index, strength in enumerate([0.0, 0.0, 0.5, 1.0, 1.5, 2.0]):
        values = strength * means[labels] + rng.normal(size=(len(labels), WIDTH))
        features = Features(values.astype(np.float32), ids, labels)
        weights = {"rgb/predict": index / 10} if index else None
        kept_features.write(tmp_path / "kept", kept_features.Kept(
            weights, 0, 40 if index else 0, features, features))
    monkeypatch.setattr(sys, "argv", ["fitness_controls", f"--features={tmp_path}/kept",
                                      f"--output={tmp_path}/out", "--workers=1"])
    fitness_controls.main()
    text = capsys.readouterr().out
    assert "## After 40 steps: 5 networks" in text
    assert (tmp_path / "out" / fitness_controls.TABLE).read_text() == text[:-1]  # print adds one
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 16][2:]
    assert len(rows) == 5 * 5 * 2 * 3
    # Ordered: what ranks them as the labels do comes first.
    rhos = [float(row[5]) for row in rows]
    assert rhos == sorted(rhos) and rhos[0] < -0.7 and float(rows[0][11]) < -0.7
    figure = (tmp_path / "out" / fitness_controls.FIGURE).read_text()
    assert "/".join(x.strip() for x in rows[0][1:5]) in figure
    assert figure.startswith("<svg") and "40 steps, rho -" in figure and "untrained" in figure

    def times():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "out/networks").iterdir()}

    first = times()
    assert len(first) == 6
    fitness_controls.main()
    assert times() == first
