"""The protocols on frozen features, as gin names them: settings, and the rows they give."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol

import gin
import numpy as np
from sklearn import pipeline

from elo_tf.errors import UserError
from elo_tf.evaluation.kmeans import kmeans_scores
from elo_tf.evaluation.linear import Solver, choose_regulariser, fit_linear, linear_accuracy
from elo_tf.evaluation.neighbours import few_shot_accuracy, knn_accuracy, retrieval_recalls
from elo_tf.evaluation.subsets import stratified_subset
from elo_tf.fitness.normalisation import Normalisation


class Scores(NamedTuple):
    """What a protocol gives: a value for each row of the table, and what is to be noted."""

    values: dict[str, float]
    note: str = ""


class EvaluationProtocol(Protocol):
    """A way to score frozen features; its `repr` names its settings, by which a run resumes.

    Attributes:
      deterministic: whether no seed changes the scores, so that one is enough.
    """

    deterministic: ClassVar[bool]

    def __call__(self, train_features: np.ndarray, train_labels: np.ndarray,
                 test_features: np.ndarray, test_labels: np.ndarray, seed: int) -> Scores:
        """Scores features [N, D] and [M, D] with labels [N] and [M]."""


@gin.register
@dataclasses.dataclass(frozen=True)
class KMeansProtocol:
    """K-means on features, the seed deciding its starts; labels only score the clusters.

    Attributes:
      k: number of clusters; None for the number of classes.
      normalisation: of the features.
      clips: "test", those of the test split; or "both" splits, where a fold's few test clips would
        each be a cluster.
    """

    k: int | None = None
    normalisation: Normalisation = "standardise"
    clips: Literal["test", "both"] = "test"
    deterministic: ClassVar[bool] = False

    def __post_init__(self):
        if self.clips not in ("test", "both"):
            raise UserError(f"KMeansProtocol.clips is {self.clips!r}; it must be 'test' or 'both'")

    def __call__(self, train_features, train_labels, test_features, test_labels, seed):
        """See `kmeans_scores`."""
        if self.clips == "both":
            test_features = np.concatenate([train_features, test_features])
            test_labels = np.concatenate([train_labels, test_labels])
        return Scores(kmeans_scores(
            test_features, test_labels, k=self.k, normalisation=self.normalisation, seed=seed))


@gin.register
@dataclasses.dataclass(frozen=True)
class LinearProtocol:
    """One linear layer, each seed on its own share of the training clips.

    The layer is trained to its optimum, which no seed moves; so that the spread over seeds says
    how much the result owes to the choice of clips, each seed draws `train_fraction` of every
    class, without replacement (our choice). Of these a validation part chooses the regulariser;
    the layer is then trained on all of them.

    Attributes:
      solver: "logistic" or "ridge", see `linear_accuracy`.
      C: the grid of inverse strengths of the penalty (our choice); with one value nothing is
        left out to choose by.
      validation_fraction: of the drawn clips of each class.
      max_iter: most iterations of the logistic regression.
      train_fraction: of each class that a seed draws; at 1 the seeds differ only in what they
        validate on.
      name: of the row.
    """

    solver: Solver = "logistic"
    C: Sequence[float] = (0.001, 0.01, 0.1, 1.0, 10.0)
    validation_fraction: float = 0.2
    max_iter: int = 1000
    train_fraction: float = 0.9
    name: str = "linear"
    deterministic: ClassVar[bool] = False

    def __call__(self, train_features, train_labels, test_features, test_labels, seed):
        """See `choose_regulariser` and `linear_accuracy`."""
        train_labels = np.asarray(train_labels)
        chosen = stratified_subset(train_labels, self.train_fraction, seed)
        features, labels = np.asarray(train_features)[chosen], train_labels[chosen]
        C, note = self._regulariser(features, labels, seed)
        accuracy = linear_accuracy(features, labels, test_features, test_labels, C=C,
                                   solver=self.solver, max_iter=self.max_iter)
        return Scores({self.name: accuracy}, note and f"{self.name}: {note}")

    def fitted(self, features: np.ndarray, labels: np.ndarray,
               seed: int) -> tuple[pipeline.Pipeline, float]:
        """The layer trained on all of features [N, D] with labels [N], and the C chosen for it."""
        C, _ = self._regulariser(features, labels, seed)
        return fit_linear(features, labels, C=C, solver=self.solver, max_iter=self.max_iter), C

    def _regulariser(self, features: np.ndarray, labels: np.ndarray,
                     seed: int) -> tuple[float, str]:
        return choose_regulariser(
            features, labels, self.C, fraction=self.validation_fraction, solver=self.solver,
            max_iter=self.max_iter, seed=seed)


@gin.register
@dataclasses.dataclass(frozen=True)
class NeighboursProtocol:
    """K nearest neighbours by cosine, see `knn_accuracy`.

    Attributes:
      k: neighbours (our choice).
      temperature: of their votes.
    """

    k: int = 20
    temperature: float = 0.07
    deterministic: ClassVar[bool] = True

    def __call__(self, train_features, train_labels, test_features, test_labels, seed):
        """See `knn_accuracy`."""
        del seed
        return Scores({"knn": knn_accuracy(
            train_features, train_labels, test_features, test_labels, k=self.k,
            temperature=self.temperature)})


@gin.register
@dataclasses.dataclass(frozen=True)
class RetrievalProtocol:
    """Retrieval of training clips by test clips, see `retrieval_recalls`.

    Attributes:
      ranks: k of each recall.
    """

    ranks: Sequence[int] = (1, 5, 20)
    deterministic: ClassVar[bool] = True

    def __call__(self, train_features, train_labels, test_features, test_labels, seed):
        """See `retrieval_recalls`."""
        del seed
        recalls = retrieval_recalls(
            train_features, train_labels, test_features, test_labels, ranks=self.ranks)
        return Scores({f"retrieval@{k}": recall for k, recall in recalls.items()})


@gin.register
@dataclasses.dataclass(frozen=True)
class FewShotProtocol:
    """A few labelled clips a class, drawn by the seed, see `few_shot_accuracy`.

    Attributes:
      shots: clips a class, of each row (our choice).
    """

    shots: Sequence[int] = (1, 5)
    deterministic: ClassVar[bool] = False

    def __call__(self, train_features, train_labels, test_features, test_labels, seed):
        """See `few_shot_accuracy`."""
        return Scores({f"few_shot@{n}": few_shot_accuracy(
            train_features, train_labels, test_features, test_labels, shots=n, seed=seed)
            for n in self.shots})
