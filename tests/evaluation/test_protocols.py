"""Evaluation protocols against brute force and against scikit-learn used directly."""

import itertools

import numpy as np
import pytest
from sklearn import linear_model

from elo_tf.errors import UserError
from elo_tf.evaluation import kmeans, protocols
from elo_tf.evaluation.linear import linear_accuracy


def labelled(n, classes=4, width=10, strength=1.0, seed=0):
    generator = np.random.Generator(np.random.PCG64(seed))
    centres = np.random.Generator(np.random.PCG64(42)).normal(size=(classes, width))
    labels = np.arange(n) % classes
    features = strength * centres[labels] + generator.normal(size=(n, width))
    return features.astype(np.float32), labels


@pytest.mark.parametrize(("clusters", "classes"), [(4, 4), (6, 3), (2, 5)])
def test_matching_equals_the_best_of_all_namings(clusters, classes):
    generator = np.random.Generator(np.random.PCG64(5))
    found = generator.permutation(np.arange(60) % clusters)
    labels = 10 * generator.permutation(np.arange(60) % classes)
    names = [*np.unique(labels), *[-1] * clusters]
    best = max(
        np.mean(np.array(naming)[found] == labels)
        for naming in set(itertools.permutations(names, clusters)))
    assert kmeans.matched_accuracy(found, labels) == pytest.approx(best)


def test_renamed_clusters_are_a_perfect_match():
    labels = np.arange(30) % 5
    assert kmeans.matched_accuracy((labels * 3 + 1) % 5 + 7, labels) == 1


def test_kmeans_accuracy_of_clear_and_of_no_clusters():
    features, labels = labelled(200, strength=20)
    assert kmeans.kmeans_accuracy(features, labels) == 1
    noise = np.random.Generator(np.random.PCG64(0)).normal(size=(400, 10))
    assert kmeans.kmeans_accuracy(noise, np.arange(400) % 4) < 0.4


def test_kmeans_number_of_clusters():
    features, labels = labelled(200, strength=20)
    assert kmeans.kmeans_accuracy(features, labels, k=2) == pytest.approx(0.5)
    with pytest.raises(UserError, match="300 clusters of 200"):
        kmeans.kmeans_accuracy(features, labels, k=300)


def test_linear_accuracy_equals_logistic_regression_by_hand():
    train, train_labels = labelled(300, seed=1)
    test, test_labels = labelled(200, seed=2)
    train = train * [1, 100, *[1] * 8]
    test = test * [1, 100, *[1] * 8]
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    model = linear_model.LogisticRegression(C=0.3, max_iter=5000, tol=1e-8)
    model.fit((train - mean) / deviation, train_labels)
    expected = np.mean(model.predict((test - mean) / deviation) == test_labels)
    found = linear_accuracy(train, train_labels, test, test_labels, C=0.3)
    assert 0.5 < expected < 1
    assert found == pytest.approx(expected, abs=0.0051)


def test_linear_accuracy_counts_an_unseen_class_as_wrong():
    train, train_labels = labelled(200, strength=20, seed=1)
    test, test_labels = labelled(100, strength=20, seed=2)
    seen = train_labels < 3
    assert linear_accuracy(train[seen], train_labels[seen], test, test_labels) == 0.75


@pytest.mark.parametrize("broken", ["nan", "labels", "one class"])
def test_bad_input_is_told_to_the_user(broken):
    train, train_labels = labelled(40)
    test, test_labels = labelled(40)
    if broken == "nan":
        train[3, 4] = np.nan
    elif broken == "labels":
        test_labels = test_labels[:-1]
    else:
        train_labels = np.zeros(40, np.int64)
    with pytest.raises(UserError):
        linear_accuracy(train, train_labels, test, test_labels)


def test_stratified_subset_keeps_the_share_of_every_class():
    labels = np.repeat([3, 7, 9], [50, 20, 1])
    chosen = protocols.stratified_subset(labels, 0.5, seed=4)
    assert list(np.unique(labels[chosen], return_counts=True)[1]) == [25, 10, 1]
    assert len(set(chosen)) == len(chosen)
    assert not np.array_equal(chosen, protocols.stratified_subset(labels, 0.5, seed=5))
    assert np.array_equal(protocols.stratified_subset(labels, 1.0, seed=6), np.arange(71))


def test_rows_are_mean_and_deviation_over_seeds():
    train, train_labels = labelled(200, seed=1)
    test, test_labels = labelled(120, seed=2)
    seeds = (3, 4, 5)
    rows = protocols.run_protocols(
        train, train_labels, test, test_labels, network="trained", seeds=seeds)
    scores = {
        "kmeans": [kmeans.kmeans_accuracy(test, test_labels, seed=s) for s in seeds],
        "linear": [protocols.LinearProtocol()(train, train_labels, test, test_labels, s)
                   for s in seeds]}
    assert rows == [
        {"network": "trained", "protocol": name, "mean": pytest.approx(np.mean(values)),
         "std": pytest.approx(np.std(values, ddof=1))} for name, values in scores.items()]
    assert rows[1]["std"] > 0


def test_one_seed_has_no_deviation():
    features, labels = labelled(80)
    rows = protocols.run_protocols(
        features, labels, features, labels, network="untrained", seeds=(0,),
        protocols=(protocols.KMeansProtocol(k=4),))
    assert [row["std"] for row in rows] == [0.0]
