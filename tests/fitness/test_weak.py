"""Weak fitness against scikit-learn's and SciPy's parts, and the choice of the guide."""

import logging
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import cluster, metrics, neighbors

from elo_tf.errors import UserError
from elo_tf.fitness.fitness import ZipfFitness
from elo_tf.fitness.guide import Fitness
from elo_tf.fitness.weak import WeakFitness, name_clusters, stratified_halves

MAKE = {"k": 5, "nearest": 2}


def encoder(classes=6, clips=150, strength=1.5, width=12, seed=0):
    """Features [N, D] whose classes overlap, and labels, some of them -1."""
    generator = np.random.Generator(np.random.PCG64(seed))
    labels = generator.integers(-1, classes, clips)
    signal = strength * generator.normal(size=(classes + 1, width))[labels]
    return (signal + generator.normal(size=(clips, width))).astype(np.float32), labels


def standardise_l2(features):
    points = stats.zscore(features.astype(np.float64), axis=0)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def reference_accuracy(features, labels, clustered, scored, k, seed):
    """The same by scikit-learn's k-means and classifier and SciPy's mode."""
    model = cluster.KMeans(k, n_init=4, max_iter=100, random_state=seed).fit(features[clustered])
    names = np.array([stats.mode(labels[clustered][model.labels_ == c]).mode for c in range(k)])
    classifier = neighbors.KNeighborsClassifier(1).fit(model.cluster_centers_, names)
    return metrics.accuracy_score(labels[scored], classifier.predict(features[scored]))


@pytest.mark.parametrize("k", [None, 4, 15])
@pytest.mark.parametrize("seed", [0, 3])
def test_equals_scikit_learn_exactly(k, seed):
    features, labels = encoder(strength=0.7, seed=seed)
    known = labels >= 0
    points, classes = standardise_l2(features[known]), labels[known]
    halves = stratified_halves(classes, seed)
    forth = reference_accuracy(points, classes, *halves, k or 6, seed)
    back = reference_accuracy(points, classes, *halves[::-1], k or 6, seed)
    assert 0.2 < forth < 1 and forth != back
    assert WeakFitness(k, folds=1, seed=seed)(features, labels) == forth
    assert WeakFitness(k, folds=2, seed=seed)(features, labels) == (forth + back) / 2


def test_the_names_are_those_of_a_confusion_matrix():
    generator = np.random.Generator(np.random.PCG64(1))
    assignments, labels = generator.integers(0, 7, 60), generator.integers(0, 3, 60)
    counts = metrics.confusion_matrix(assignments, labels, labels=range(7))
    named, names = name_clusters(assignments, labels, 7)
    assert named.tolist() == list(range(7))
    assert names.tolist() == counts.argmax(axis=1).tolist()


def test_ties_go_to_the_smaller_label_and_empty_clusters_get_no_name():
    named, names = name_clusters(np.array([4, 4, 0, 0, 0]), np.array([9, 2, 7, 5, 7]), 6)
    assert named.tolist() == [0, 4]
    assert names.tolist() == [7, 2]


def test_clips_go_to_clusters_that_have_a_name():
    # Three kinds of clips for five clusters: two clusters are empty and must win no clip.
    kinds = np.repeat(np.arange(3), 8)
    with pytest.warns(match="distinct clusters"):
        assert WeakFitness(k=5)(np.eye(3)[kinds], kinds + 10) == 1


@pytest.mark.parametrize("seed", range(3))
def test_halves_hold_every_class_alike(seed):
    labels = np.random.Generator(np.random.PCG64(seed)).choice(9, 101, p=stats.zipfian.pmf(
        np.arange(1, 10), 1, 9))
    first, second = stratified_halves(labels, seed)
    assert sorted([*first, *second]) == list(range(101))
    assert (len(first), len(second)) == (51, 50)
    difference = np.bincount(labels[first], minlength=9) - np.bincount(labels[second], minlength=9)
    assert np.abs(difference).max() <= 1


def test_halves_are_drawn_by_the_seed():
    labels = np.repeat(np.arange(4), 20)
    draws = [tuple(stratified_halves(labels, seed)[0]) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    # Any two clips are together in some draw: the order of the records decides nothing.
    first = [half for half, _ in (stratified_halves(labels, seed) for seed in range(40))]
    assert set(np.concatenate([half for half in first if 0 in half])) == set(range(80))


def test_unlabelled_clips_change_nothing():
    features, labels = encoder()
    known = labels >= 0
    spoilt = np.where(known[:, None], features, np.nan)
    weak = WeakFitness()
    assert weak(spoilt, labels) == weak(features[known], labels[known])


def test_better_features_are_more_accurate_and_noise_is_chance():
    accuracies = [WeakFitness()(*encoder(clips=1200, strength=s)) for s in (0, 0.5, 1, 3)]
    assert accuracies == sorted(accuracies)
    assert accuracies[0] == pytest.approx(1 / 6, abs=0.05)
    assert accuracies[-1] > 0.95


@pytest.mark.parametrize(("labels", "message"), [
    (np.full(30, -1), "of 30 clips 0 are labelled, with 0 classes"),
    (np.where(np.arange(30) < 20, 3, -1), "20 are labelled, with 1 classes"),
    (np.where(np.arange(30) < 7, np.arange(30), -1), "7 clusters of half .* give 14 labelled"),
])
def test_too_few_labels_are_told_to_the_user(labels, message):
    features, _ = encoder(clips=30)
    with pytest.raises(UserError, match=message):
        WeakFitness()(features, labels)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: WeakFitness(folds=3), "folds is 3"),
    (lambda: WeakFitness(k=0), "k is 0"),
    (lambda: Fitness(ZipfFitness(), WeakFitness(), "kl"), "guide is 'kl'; it must be 'zipf' or"),
])
def test_settings_out_of_range(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(("features", "labels"), [
    (np.zeros((4, 2)), np.zeros(5, int)), (np.zeros(4), np.zeros(4, int)),
    (np.full((8, 2), np.inf), np.arange(8) % 2)])
def test_what_is_not_a_labelled_set_of_features_is_refused(features, labels):
    with pytest.raises(ValueError, match=r"finite|\[N, D\]"):
        WeakFitness()(features, labels)


@pytest.mark.parametrize("guide", ["zipf", "weak"])
def test_both_are_measured_whichever_guides(guide):
    features, _ = encoder(seed=4)
    labelled, labels = encoder(seed=5)
    report = Fitness(ZipfFitness(**MAKE), WeakFitness(), guide)(features, labelled, labels)
    alone = ZipfFitness(**MAKE)(features)
    assert report.zipf == alone.fitness
    assert report.weak == WeakFitness()(labelled, labels)
    assert report.fitness == (report.zipf if guide == "zipf" else 1 - report.weak)
    assert (report.status, report.spread, report.effective_rank) == (
        alone.status, alone.spread, alone.effective_rank)
    assert np.array_equal(report.histogram, alone.histogram)
    assert np.array_equal(report.nearest, alone.nearest)
    assert report.seconds.keys() == {"cluster", "weak"} and min(report.seconds.values()) > 0


def test_without_labels_zipf_guides_and_weak_cannot():
    features, _ = encoder()
    report = Fitness(ZipfFitness(**MAKE), WeakFitness())(features)
    assert report.weak is None and report.fitness == report.zipf > 0
    with pytest.raises(UserError, match="guide is 'weak', but there are no labelled clips: give"):
        Fitness(ZipfFitness(**MAKE), WeakFitness(), "weak")(features)


def test_labels_that_do_not_suffice_are_said_once_or_refused(caplog):
    features, _ = encoder()
    labels = np.zeros(len(features), int)
    fitness = Fitness(ZipfFitness(**MAKE), WeakFitness())
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert [fitness(features, features, labels).weak for _ in range(2)] == [None, None]
    assert [x.message for x in caplog.records if "with 1 classes" in x.message]
    assert len(caplog.records) == 1
    with pytest.raises(UserError, match="guide is 'weak', but .* with 1 classes"):
        Fitness(ZipfFitness(**MAKE), WeakFitness(), "weak").check_labels(labels)


def test_labels_move_nothing_where_zipf_guides():
    features, _ = encoder()
    labelled, labels = encoder(seed=1)
    broken = np.where(np.arange(len(labelled))[:, None] == np.argmax(labels >= 0), np.nan, labelled)
    zipf = Fitness(ZipfFitness(**MAKE), WeakFitness(), "zipf")
    with_labels, without = zipf(features, broken, labels), zipf(features)
    assert with_labels.weak is None
    assert with_labels.status == "ok" and with_labels.fitness == without.fitness
    weak = Fitness(ZipfFitness(**MAKE), WeakFitness(), "weak")(features, broken, labels)
    assert weak.fitness == math.inf and weak.weak is None
    assert weak.status.startswith("failed: exploding") and weak.status.endswith("(labelled clips)")
    assert weak.zipf == with_labels.zipf
