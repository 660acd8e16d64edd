"""K-means accuracy: how well the clusters of frozen features match the true classes."""

import numpy as np
from scipy import optimize

from elo_tf.errors import UserError
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
    _, rows = np.unique(clusters, return_inverse=True)
    _, columns = np.unique(labels, return_inverse=True)
    counts = np.zeros((rows.max() + 1, columns.max() + 1), np.int64)
    np.add.at(counts, (rows, columns), 1)
    matching = optimize.linear_sum_assignment(counts, maximize=True)
    return float(counts[matching].sum() / len(rows))


def kmeans_accuracy(features: np.ndarray, labels: np.ndarray, *, k: int | None = None,
                    normalisation: Normalisation = "standardise", seed: int = 0) -> float:
    """Clusters features without their labels and scores the clusters by them.

    This is the "k-means" column of the paper's Table 1; which clips it clusters and how many
    clusters it makes the paper does not say (our choice: the test clips, one cluster a class).

    Args:
      features: [N, D], finite.
      labels: integers [N].
      k: number of clusters; by default the number of classes present in `labels`.
      normalisation: of the features before clustering (our choice).
      seed: of k-means.

    Returns:
      Accuracy in [0, 1].

    Raises:
      UserError: features and labels do not fit, or there are fewer clips than clusters.
    """
    features, labels = np.asarray(features), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise UserError(
            f"k-means accuracy needs features [N, D] and labels [N], N at least 1; got "
            f"{list(features.shape)} and {list(labels.shape)}: is the test split labelled?")
    if not np.isfinite(features).all():
        raise UserError("the features hold values that are not finite: the encoder has diverged")
    k = len(np.unique(labels)) if k is None else k
    points = normalise(features, normalisation)
    return matched_accuracy(clustering.kmeans(points, k, seed=seed).assignments, labels)
