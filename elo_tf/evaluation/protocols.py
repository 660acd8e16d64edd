"""The protocols of the evaluation table, run over seeds."""

from collections.abc import Sequence
from typing import Protocol

import gin
import numpy as np

from elo_tf.evaluation.kmeans import kmeans_accuracy
from elo_tf.evaluation.linear import linear_accuracy
from elo_tf.fitness.normalisation import Normalisation


class EvaluationProtocol(Protocol):
    """A way to score frozen features; `name` is its name in the evaluation table."""

    name: str

    def __call__(self, train_features: np.ndarray, train_labels: np.ndarray,
                 test_features: np.ndarray, test_labels: np.ndarray, seed: int) -> float:
        """Accuracy in [0, 1] of features [N, D] and [M, D] with labels [N] and [M]."""


@gin.register
class KMeansProtocol:
    """K-means on the test features, the seed deciding its starts; the training split is unused."""

    name = "kmeans"

    def __init__(self, k: int | None = None, normalisation: Normalisation = "standardise"):
        self._k = k
        self._normalisation = normalisation

    def __call__(self, train_features, train_labels, test_features, test_labels, seed):
        """See `kmeans_accuracy`."""
        del train_features, train_labels
        return kmeans_accuracy(
            test_features, test_labels, k=self._k, normalisation=self._normalisation, seed=seed)


@gin.register
class LinearProtocol:
    """One linear layer, each seed on its own share of the training clips.

    The layer is trained to its optimum, which no seed moves; so that the spread over seeds says
    how much the result owes to the choice of clips, each seed draws `train_fraction` of every
    class, without replacement (our choice; at 1 all seeds give the same number).
    """

    name = "linear"

    def __init__(self, C: float = 0.1, max_iter: int = 1000, train_fraction: float = 0.9):
        self._C = C
        self._max_iter = max_iter
        self._train_fraction = train_fraction

    def __call__(self, train_features, train_labels, test_features, test_labels, seed):
        """See `linear_accuracy`."""
        train_labels = np.asarray(train_labels)
        chosen = stratified_subset(train_labels, self._train_fraction, seed)
        return linear_accuracy(
            np.asarray(train_features)[chosen], train_labels[chosen], test_features, test_labels,
            C=self._C, max_iter=self._max_iter)


def stratified_subset(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Sorted indices of a random `fraction` of each class, rounded, at least one clip of each."""
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        chosen.append(members[:max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


@gin.configurable(denylist=["train_features", "train_labels", "test_features", "test_labels",
                            "network"])
def run_protocols(
        train_features: np.ndarray, train_labels: np.ndarray, test_features: np.ndarray,
        test_labels: np.ndarray, *, network: str,
        protocols: Sequence[EvaluationProtocol] | None = None,
        seeds: Sequence[int] = (0, 1, 2, 3, 4)) -> list[dict[str, str | float]]:
    """Scores one network's frozen features by every protocol.

    Args:
      train_features: [N, D] of the labelled training split.
      train_labels: integers [N].
      test_features: [M, D] of the test split.
      test_labels: integers [M].
      network: name of the network in the table, such as "trained" or "untrained".
      protocols: by default k-means and linear.
      seeds: of which the mean and the standard deviation are reported.

    Returns:
      A row for each protocol: network, protocol, mean and std (of the sample, 0 for one seed).
    """
    protocols = (KMeansProtocol(), LinearProtocol()) if protocols is None else protocols
    rows = []
    for protocol in protocols:
        scores = [
            protocol(train_features, train_labels, test_features, test_labels, seed)
            for seed in seeds]
        rows.append({
            "network": network, "protocol": protocol.name, "mean": float(np.mean(scores)),
            "std": float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0})
    return rows
