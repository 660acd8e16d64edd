"""Protocols without training: the nearest training clips by cosine, and a few shots a class."""

from collections.abc import Sequence

import numpy as np
import threadpoolctl
from scipy.spatial import distance
from sklearn import neighbors

from elo_tf.errors import UserError
from elo_tf.evaluation.inputs import checked
from elo_tf.evaluation.subsets import shuffled_classes
from elo_tf.fitness.normalisation import normalise


def knn_accuracy(train_features: np.ndarray, train_labels: np.ndarray, test_features: np.ndarray,
                 test_labels: np.ndarray, *, k: int = 20, temperature: float = 0.07) -> float:
    """Accuracy of the weighted vote of the k nearest training clips.

    Each votes for its class with weight exp(cosine / temperature), as in Wu et al., CVPR 2018,
    "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (from memory,
    unproven; theirs is k = 200 of ImageNet, ours is smaller).

    Args:
      train_features: [N, D], finite.
      train_labels: integers [N].
      test_features: [M, D], finite.
      test_labels: integers [M].
      k: neighbours; all where there are fewer.
      temperature: of the votes.

    Returns:
      Accuracy in [0, 1]; of equal votes the smaller label's wins.

    Raises:
      UserError: the shapes do not fit, a feature is not finite, or a setting is wrong.
    """
    train_features, train_labels = checked(train_features, train_labels, "training")
    test_features, test_labels = checked(test_features, test_labels, "test")
    if k < 1 or not temperature > 0:
        raise UserError(f"NeighboursProtocol.k is {k} and .temperature {temperature}; k must be 1 "
                        "or more, and the temperature positive")

    def weights(distances: np.ndarray) -> np.ndarray:
        # The nearest weighs 1: a common factor changes no vote, and nothing overflows.
        return np.exp((distances.min(axis=1, keepdims=True) - distances) / temperature)

    classifier = neighbors.KNeighborsClassifier(
        min(k, len(train_labels)), weights=weights, metric="cosine", algorithm="brute")
    with threadpoolctl.threadpool_limits(limits=1):
        classifier.fit(train_features, train_labels)
        return float(classifier.score(test_features, test_labels))


def retrieval_recalls(train_features: np.ndarray, train_labels: np.ndarray,
                      test_features: np.ndarray, test_labels: np.ndarray, *,
                      ranks: Sequence[int] = (1, 5, 20)) -> dict[int, float]:
    """Recall at k: test clips that have a clip of their class among the k nearest of train.

    Args:
      train_features: [N, D], finite: the gallery.
      train_labels: integers [N].
      test_features: [M, D], finite: the queries; nearest by cosine.
      test_labels: integers [M].
      ranks: the values of k; where the gallery is smaller, all of it counts.

    Returns:
      For each k the share of test clips, in [0, 1].

    Raises:
      UserError: the shapes do not fit, a feature is not finite, or a rank is below 1.
    """
    train_features, train_labels = checked(train_features, train_labels, "training")
    test_features, test_labels = checked(test_features, test_labels, "test")
    if not ranks or min(ranks) < 1:
        raise UserError(f"RetrievalProtocol.ranks is {list(ranks)}; give numbers of 1 or more")
    gallery = neighbors.NearestNeighbors(
        n_neighbors=min(max(ranks), len(train_labels)), metric="cosine", algorithm="brute")
    with threadpoolctl.threadpool_limits(limits=1):
        nearest = gallery.fit(train_features).kneighbors(test_features, return_distance=False)
    hits = train_labels[nearest] == test_labels[:, np.newaxis]
    return {k: float(hits[:, :k].any(axis=1).mean()) for k in ranks}


def few_shot_accuracy(train_features: np.ndarray, train_labels: np.ndarray,
                      test_features: np.ndarray, test_labels: np.ndarray, *, shots: int,
                      seed: int) -> float:
    """Accuracy of the nearest class mean, of a few training clips a class.

    Features are centred on the mean of the drawn clips and divided by their norm, then each test
    clip takes the class of the nearest mean (our choice, after Wang et al. 2019, "SimpleShot",
    from memory, unproven: it has no setting that would have to be chosen on so few clips).

    Args:
      train_features: [N, D], finite.
      train_labels: integers [N].
      test_features: [M, D], finite.
      test_labels: integers [M]. A class without training clips counts as wrong.
      shots: clips drawn of each class; all where it has fewer. With the same seed, more shots
        hold the fewer.
      seed: of the draw.

    Returns:
      Accuracy in [0, 1].

    Raises:
      UserError: the shapes do not fit, a feature is not finite, there is one class only, or the
        number of shots is below 1.
    """
    train_features, train_labels = checked(train_features, train_labels, "training")
    test_features, test_labels = checked(test_features, test_labels, "test")
    if shots < 1:
        raise UserError(f"FewShotProtocol.shots holds {shots}; it must be 1 or more")
    if len(np.unique(train_labels)) < 2:
        raise UserError("the training split has clips of one class only; a classifier needs two")
    drawn = [members[:shots] for members in shuffled_classes(
        train_labels, np.random.PCG64([seed, 4]))]
    centre = train_features[np.concatenate(drawn)].mean(axis=0)
    means = [normalise(train_features[members] - centre, "l2").mean(axis=0) for members in drawn]
    nearest = distance.cdist(normalise(test_features - centre, "l2"), means).argmin(axis=1)
    return float(np.mean(np.unique(train_labels)[nearest] == test_labels))
