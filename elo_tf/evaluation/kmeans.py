"""The "k-means" protocol: how well the clusters of frozen features match the true classes."""

import numpy as np
from scipy import optimize
from sklearn import metrics

from elo_tf.evaluation.inputs import checked
from elo_tf.fitness import clustering
from elo_tf.fitness.normalisation import Normalisation, normalise


def matched_accuracy(clusters: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of clusters under the best one-to-one naming of clusters by classes.

    Args:
      clusters: integers [N], any values.
      labels: integers [N], any values. Where there are more clusters than classes, the clusters
        left without a class count as wrong.

    Returns:
      The share of clips whose cluster has their class's name (Hungarian matching, Kuhn 1955).
    """
    counts = metrics.cluster.contingency_matrix(clusters, labels)
    matching = optimize.linear_sum_assignment(counts, maximize=True)
    return float(counts[matching].sum() / counts.sum())


def majority_accuracy(clusters: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of clusters each named by its most frequent class (also called purity).

    It grows with the number of clusters, and is 1 where every clip is one of its own.

    Args:
      clusters: integers [N], any values.
      labels: integers [N], any values.
    """
    counts = metrics.cluster.contingency_matrix(clusters, labels)
    return float(counts.max(axis=1).sum() / counts.sum())


def kmeans_scores(features: np.ndarray, labels: np.ndarray, *, k: int | None = None,
                  normalisation: Normalisation = "standardise", seed: int = 0) -> dict[str, float]:
    """Clusters features without their labels and scores the clusters by them.

    The first score is the "k-means" column of the paper's Table 1; which clips it clusters, how
    many clusters it makes and how it names them the paper does not say (our choice: the test
    clips, one cluster a class, the best one-to-one naming).

    Args:
      features: [N, D], finite.
      labels: integers [N].
      k: number of clusters; by default the number of classes present in `labels`.
      normalisation: of the features before clustering (our choice).
      seed: of k-means.

    Returns:
      kmeans: accuracy, see `matched_accuracy`; kmeans_majority: see `majority_accuracy`;
      kmeans_nmi: normalised mutual information, by the arithmetic mean of the entropies, all in
      [0, 1]; kmeans_ari: adjusted Rand index, at most 1, about 0 by chance.

    Raises:
      UserError: features and labels do not fit, or there are fewer clips than clusters.
    """
    features, labels = checked(features, labels, "test")
    k = len(np.unique(labels)) if k is None else k
    clusters = clustering.kmeans(normalise(features, normalisation), k, seed=seed).assignments
    return {"kmeans": matched_accuracy(clusters, labels),
            "kmeans_majority": majority_accuracy(clusters, labels),
            "kmeans_nmi": float(metrics.normalized_mutual_info_score(labels, clusters)),
            "kmeans_ari": float(metrics.adjusted_rand_score(labels, clusters))}
