"""Evaluation protocols against brute force, closed forms, and scikit-learn used directly."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn import linear_model, neighbors

from elo_tf.errors import UserError
from elo_tf.evaluation import kmeans, neighbours, paper, protocols, statistics, subsets
from elo_tf.evaluation.label_curve import LabelCurve
from elo_tf.evaluation.linear import choose_regulariser, fit_linear, folded, linear_accuracy
from elo_tf.fitness import clustering
from elo_tf.fitness.normalisation import normalise


def labelled(n, classes=4, width=10, strength=1.0, seed=0):
    generator = np.random.Generator(np.random.PCG64(seed))
    centres = np.random.Generator(np.random.PCG64(42)).normal(size=(classes, width))
    labels = np.arange(n) % classes
    features = strength * centres[labels] + generator.normal(size=(n, width))
    return features.astype(np.float32), labels


@pytest.mark.parametrize(("clusters", "classes"), [(4, 4), (6, 3), (2, 5)])
def test_matching_and_majority_equal_the_best_of_all_namings(clusters, classes):
    generator = np.random.Generator(np.random.PCG64(5))
    found = generator.permutation(np.arange(60) % clusters)
    labels = 10 * generator.permutation(np.arange(60) % classes)
    names = [*np.unique(labels), *[-1] * clusters]
    best = max(
        np.mean(np.array(naming)[found] == labels)
        for naming in set(itertools.permutations(names, clusters)))
    assert kmeans.matched_accuracy(found, labels) == pytest.approx(best)
    free = max(np.mean(np.array(naming)[found] == labels)
               for naming in itertools.product(np.unique(labels), repeat=clusters))
    assert kmeans.majority_accuracy(found, labels) == pytest.approx(free)
    assert free > best or clusters == 2


def test_renamed_clusters_are_a_perfect_match():
    labels = np.arange(30) % 5
    assert kmeans.matched_accuracy((labels * 3 + 1) % 5 + 7, labels) == 1


def mutual_information_by_hand(clusters, labels):
    """NMI and ARI from counts, by their definitions."""
    joint = np.array([[np.sum((clusters == c) & (labels == y)) for y in np.unique(labels)]
                      for c in np.unique(clusters)], float)
    share = joint / joint.sum()
    rows, columns = share.sum(axis=1), share.sum(axis=0)
    nonzero = share > 0
    information = np.sum(share[nonzero] * np.log((share / np.outer(rows, columns))[nonzero]))

    def pairs(counts):
        return np.sum(counts * (counts - 1) / 2)

    chance = pairs(joint.sum(axis=1)) * pairs(joint.sum(axis=0)) / pairs(joint.sum())
    most = (pairs(joint.sum(axis=1)) + pairs(joint.sum(axis=0))) / 2
    return (information / np.mean([stats.entropy(rows), stats.entropy(columns)]),
            (pairs(joint) - chance) / (most - chance))


def test_kmeans_scores_are_those_of_its_clusters():
    features, labels = labelled(160, strength=0.8)
    scores = kmeans.kmeans_scores(features, labels, k=6, seed=3)
    clusters = clustering.kmeans(normalise(features, "standardise"), 6, seed=3).assignments
    nmi, ari = mutual_information_by_hand(clusters, labels)
    assert scores == {
        "kmeans": pytest.approx(kmeans.matched_accuracy(clusters, labels)),
        "kmeans_majority": pytest.approx(kmeans.majority_accuracy(clusters, labels)),
        "kmeans_nmi": pytest.approx(nmi), "kmeans_ari": pytest.approx(ari)}
    assert 0 < ari < nmi < 1 and scores["kmeans"] < scores["kmeans_majority"] < 1


def test_kmeans_of_clear_and_of_no_clusters():
    features, labels = labelled(200, strength=20)
    assert kmeans.kmeans_scores(features, labels) == dict.fromkeys(
        ("kmeans", "kmeans_majority", "kmeans_nmi", "kmeans_ari"), pytest.approx(1))
    noise = np.random.Generator(np.random.PCG64(0)).normal(size=(400, 10))
    scores = kmeans.kmeans_scores(noise, np.arange(400) % 4)
    assert scores["kmeans"] < 0.4 and abs(scores["kmeans_ari"]) < 0.05
    assert kmeans.kmeans_scores(features, labels, k=2)["kmeans"] == pytest.approx(0.5)
    with pytest.raises(UserError, match="300 clusters of 200"):
        kmeans.kmeans_scores(features, labels, k=300)


def test_few_test_clips_are_clustered_with_those_of_train():
    features, labels = labelled(160, strength=0.8)
    test = [np.flatnonzero(labels == c)[0] for c in np.unique(labels)]
    train = np.setdiff1d(np.arange(160), test)
    sides = features[train], labels[train], features[test], labels[test]
    # Each a cluster of its own, whatever the features are.
    assert protocols.KMeansProtocol()(*sides, 3).values["kmeans"] == 1
    order = np.concatenate([train, test])
    assert protocols.KMeansProtocol(clips="both")(*sides, 3).values == kmeans.kmeans_scores(
        features[order], labels[order], seed=3)
    with pytest.raises(UserError, match="KMeansProtocol.clips is 'all'"):
        protocols.KMeansProtocol(clips="all")


def scaled(seed):
    """Features of which one dimension is a hundred times the others."""
    features, labels = labelled(200, seed=seed)
    return features * [1, 100, *[1] * 8], labels


def test_logistic_regression_equals_that_by_hand():
    (train, train_labels), (test, test_labels) = scaled(1), scaled(2)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    model = linear_model.LogisticRegression(C=0.3, max_iter=5000, tol=1e-8)
    model.fit((train - mean) / deviation, train_labels)
    expected = np.mean(model.predict((test - mean) / deviation) == test_labels)
    found = linear_accuracy(train, train_labels, test, test_labels, C=0.3)
    assert 0.5 < expected < 1
    assert found == pytest.approx(expected, abs=0.0051)


@pytest.mark.parametrize("classes", [2, 4])
def test_one_affine_map_gives_the_probabilities_of_the_standardised_layer(classes):
    features, labels = labelled(60, classes=classes, seed=6)
    features = features * [1, 100, *[1] * 8] + 3
    features[:, 4] = 5  # a dimension that never changes
    classifier = fit_linear(features, labels, C=0.3)
    kernel, bias = folded(classifier)
    assert kernel.shape == (10, classes) and bias.shape == (classes,)
    odds = np.exp(features @ kernel + bias)
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True),
                               classifier.predict_proba(features), atol=1e-12)


@pytest.mark.parametrize(("classes", "C"), [(4, 0.02), (4, 5.0), (2, 0.02)])
def test_ridge_equals_the_closed_form(classes, C):
    train, train_labels = labelled(24, classes=classes, seed=1)
    test, test_labels = labelled(300, classes=classes, seed=2)
    mean, deviation = train.mean(axis=0, dtype=float), train.std(axis=0, dtype=float)
    inputs = (train - mean) / deviation  # of mean 0: the intercept is the mean of the targets
    targets = 2.0 * (train_labels[:, np.newaxis] == np.arange(classes)) - 1
    weights = np.linalg.solve(inputs.T @ inputs + np.eye(10) / C,
                              inputs.T @ (targets - targets.mean(axis=0)))
    outputs = (test - mean) / deviation @ weights + targets.mean(axis=0)
    expected = np.mean(outputs.argmax(axis=1) == test_labels)
    found = linear_accuracy(train, train_labels, test, test_labels, C=C, solver="ridge")
    assert 1 / classes < expected < 1
    assert found == expected


def test_an_unseen_class_counts_as_wrong():
    train, train_labels = labelled(200, strength=20, seed=1)
    test, test_labels = labelled(100, strength=20, seed=2)
    seen = train_labels < 3
    assert linear_accuracy(train[seen], train_labels[seen], test, test_labels) == 0.75
    assert neighbours.knn_accuracy(train[seen], train_labels[seen], test, test_labels) == 0.75
    assert neighbours.few_shot_accuracy(
        train[seen], train_labels[seen], test, test_labels, shots=5, seed=0) == 0.75


@pytest.mark.parametrize("solver", ["logistic", "ridge"])
def test_the_regulariser_is_chosen_on_a_part_of_train_alone(solver):
    features, labels = labelled(48, width=60, strength=0.5, seed=4)
    grid = (1e-5, 1e-2, 10.0)
    fit, validation = subsets.validation_part(labels, 0.25, seed=9)
    scores = [linear_accuracy(features[fit], labels[fit], features[validation],
                              labels[validation], C=C, solver=solver) for C in grid]
    assert len(set(scores)) > 1
    chosen, note = choose_regulariser(features, labels, grid[::-1], fraction=0.25, solver=solver,
                                      seed=9)
    assert (chosen, note) == (grid[int(np.argmax(scores))], "")
    # Then the layer is trained on all of the drawn clips.
    test, test_labels = labelled(100, width=60, strength=0.5, seed=5)
    protocol = protocols.LinearProtocol(solver=solver, C=grid, validation_fraction=0.25,
                                        train_fraction=0.75)
    drawn = subsets.stratified_subset(labels, 0.75, seed=2)
    C, _ = choose_regulariser(features[drawn], labels[drawn], grid, fraction=0.25, solver=solver,
                              seed=2)
    assert protocol(features, labels, test, test_labels, 2).values == {"linear": linear_accuracy(
        features[drawn], labels[drawn], test, test_labels, C=C, solver=solver)}


def test_too_few_clips_to_choose_by_take_the_middle_of_the_grid():
    features, labels = labelled(4, strength=20)
    protocol = protocols.LinearProtocol()
    values, note = protocol(features, labels, features, labels, 0)
    assert values == {"linear": 1.0}
    assert note == ("linear: 4 clips are too few for a validation part: the regulariser is not "
                    "chosen but C = 0.1")


def test_the_validation_part_is_stratified_and_leaves_every_class():
    labels = np.repeat([3, 7, 9], [50, 3, 1])
    fit, validation = subsets.validation_part(labels, 0.2, seed=0)
    assert np.array_equal(np.sort(np.concatenate([fit, validation])), np.arange(54))
    assert list(np.unique(labels[fit], return_counts=True)[1]) == [40, 2, 1]
    assert list(np.unique(labels[validation], return_counts=True)[1]) == [10, 1]
    assert not np.array_equal(validation, subsets.validation_part(labels, 0.2, seed=1)[1])


def cosines(test, train):
    test, train = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (test, train))
    return test.astype(float) @ train.astype(float).T


def test_neighbours_vote_by_their_cosines():
    train, train_labels = labelled(60, seed=1)
    test, test_labels = labelled(80, seed=2)
    right = []
    for row, label in zip(cosines(test, train), test_labels, strict=True):
        nearest = np.argsort(-row)[:7]
        votes = np.zeros(4)
        np.add.at(votes, train_labels[nearest], np.exp(row[nearest] / 0.2))
        right.append(votes.argmax() == label)
    found = neighbours.knn_accuracy(train, train_labels, test, test_labels, k=7, temperature=0.2)
    assert 0.4 < found < 1 and found == pytest.approx(np.mean(right))
    plain = neighbors.KNeighborsClassifier(1, metric="cosine").fit(train, train_labels)
    assert neighbours.knn_accuracy(
        train, train_labels, test, test_labels, k=1) == plain.score(test, test_labels)
    whole = protocols.NeighboursProtocol(k=1000)
    assert 0 <= whole(train, train_labels, test, test_labels, 0).values["knn"] <= 1


def test_recall_is_that_of_sorted_cosines():
    train, train_labels = labelled(60, strength=0.5, seed=1)
    test, test_labels = labelled(80, strength=0.5, seed=2)
    order = np.argsort(-cosines(test, train), axis=1)
    expected = {f"retrieval@{k}": np.mean([label in train_labels[row[:k]] for row, label in
                                           zip(order, test_labels, strict=True)])
                for k in (1, 2, 5)}
    found = protocols.RetrievalProtocol(ranks=(1, 2, 5))(train, train_labels, test, test_labels, 0)
    assert found.values == expected
    assert expected["retrieval@1"] < expected["retrieval@2"] < expected["retrieval@5"] < 1
    assert neighbours.retrieval_recalls(train, train_labels, test, test_labels, ranks=(100,)) == {
        100: 1.0}


def test_few_shots_go_to_the_nearest_mean():
    train, train_labels = labelled(80, seed=1)
    test, test_labels = labelled(80, seed=2)
    found = protocols.FewShotProtocol(shots=(1, 5))(train, train_labels, test, test_labels, 3)
    for shots in (1, 5):
        drawn = np.concatenate([members[:shots] for members in subsets.shuffled_classes(
            train_labels, np.random.PCG64([3, 4]))])
        assert list(np.bincount(train_labels[drawn])) == [shots] * 4
        centre = train[drawn].astype(float).mean(axis=0)
        directions = [(x - centre) / np.linalg.norm(x - centre, axis=1, keepdims=True)
                      for x in (train[drawn], test)]
        # The mean of one clip is that clip.
        model = (neighbors.NearestCentroid() if shots > 1 else
                 neighbors.KNeighborsClassifier(1)).fit(directions[0], train_labels[drawn])
        accuracy = model.score(directions[1], test_labels)
        assert found.values[f"few_shot@{shots}"] == pytest.approx(accuracy)
    assert 0.25 < found.values["few_shot@1"] < found.values["few_shot@5"]
    others = [neighbours.few_shot_accuracy(train, train_labels, test, test_labels, shots=1, seed=s)
              for s in range(4)]
    assert len(set(others)) > 1


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
    for protocol in (protocols.LinearProtocol(), protocols.FewShotProtocol(),
                     protocols.NeighboursProtocol(), protocols.RetrievalProtocol()):
        if broken != "one class" or not protocol.deterministic:
            with pytest.raises(UserError):
                protocol(train, train_labels, test, test_labels, 0)


@pytest.mark.parametrize("protocol", [
    protocols.LinearProtocol(C=()), protocols.LinearProtocol(C=(0.0,)),
    protocols.LinearProtocol(solver="lasso"), protocols.NeighboursProtocol(k=0),
    protocols.NeighboursProtocol(temperature=0.0), protocols.RetrievalProtocol(ranks=(0,)),
    protocols.FewShotProtocol(shots=(0,))])
def test_wrong_settings_name_their_protocol(protocol):
    features, labels = labelled(40)
    with pytest.raises(UserError, match=f"^{type(protocol).__name__}\\."):
        protocol(features, labels, features, labels, 0)


def test_stratified_subset_keeps_the_share_of_every_class():
    labels = np.repeat([3, 7, 9], [50, 20, 1])
    chosen = protocols.stratified_subset(labels, 0.5, seed=4)
    assert list(np.unique(labels[chosen], return_counts=True)[1]) == [25, 10, 1]
    assert len(set(chosen)) == len(chosen)
    assert not np.array_equal(chosen, protocols.stratified_subset(labels, 0.5, seed=5))
    assert np.array_equal(protocols.stratified_subset(labels, 1.0, seed=6), np.arange(71))


def test_a_label_curve_grows_nested_stratified_sets():
    labels = np.random.Generator(np.random.PCG64(0)).permutation(np.repeat([3, 7, 9],
                                                                           [60, 30, 10]))
    curve = LabelCurve(fractions=(0.01, 0.2, 0.5, 1.0))
    assert curve.sizes(labels) == [3, 20, 50, 100]
    sets = curve.subsets(labels, seed=1)
    counts = [[np.sum(labels[x] == y) for y in (3, 7, 9)] for x in sets]
    assert counts[0] == [1, 1, 1] and counts[-1] == [60, 30, 10]
    for count, size in zip(counts[1:], (20, 50, 100), strict=True):
        np.testing.assert_allclose(count, np.array([0.6, 0.3, 0.1]) * size, atol=1)
    for small, large in itertools.pairwise(sets):
        assert set(small) < set(large) and len(set(large)) == len(large)
    assert not np.array_equal(sets[1], curve.subsets(labels, seed=2)[1])
    assert LabelCurve(counts=(3, 40)).sizes(labels) == [3, 40]
    for wrong in (LabelCurve(counts=(2,)), LabelCurve(counts=(101,)),
                  LabelCurve(fractions=(0.0, 1.0))):
        with pytest.raises(UserError, match="^LabelCurve"):
            wrong.sizes(labels)


def test_the_interval_is_students():
    values = [0.31, 0.4, 0.37, 0.29, 0.42]
    row = statistics.summary(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert row["mean"] - row["interval"] == pytest.approx(low)
    assert row["mean"] + row["interval"] == pytest.approx(high)
    assert row["std"] == pytest.approx(np.std(values, ddof=1)) and row["values"] == values
    assert statistics.summary([0.5]) == {
        "mean": 0.5, "std": 0.0, "interval": 0.0, "n": 1, "values": [0.5]}


def test_figures_of_the_paper():
    assert paper.figures("elo") == pytest.approx({"kmeans": 0.434, "linear": 0.645,
                                                  "finetune": 0.674})
    assert paper.figures("opn") == pytest.approx({"finetune": 0.375})
    assert paper.figures("patch") == paper.figures("jigsaw") == {}
    # Both tables have the fine-tuned accuracy on HMDB51.
    for method in set(paper.TABLE_1) & set(paper.TABLE_2):
        assert paper.TABLE_1[method][2] == paper.TABLE_2[method][0]
    assert all(len(x) == len(paper.TABLE_3_CLIPS) for x in paper.TABLE_3.values())
