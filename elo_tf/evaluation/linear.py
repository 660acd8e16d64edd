"""The "1-layer" protocol: one linear layer on frozen features, its regulariser chosen on train."""

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import threadpoolctl
from absl import logging
from sklearn import exceptions, linear_model, pipeline, preprocessing

from elo_tf.errors import UserError
from elo_tf.evaluation.inputs import checked
from elo_tf.evaluation.subsets import validation_part

Solver = Literal["logistic", "ridge"]


def linear_accuracy(train_features: np.ndarray, train_labels: np.ndarray,
                    test_features: np.ndarray, test_labels: np.ndarray, *,
                    C: float = 0.1, solver: Solver = "logistic", max_iter: int = 1000) -> float:
    """Test accuracy of one linear layer with an L2 penalty, on standardised features.

    This is the "1-layer" column of the paper's Table 1; the paper does not say how the layer is
    trained (our choice: to the optimum).

    Args:
      train_features: [N, D], finite; their mean and deviation standardise the test features too.
      train_labels: integers [N], of at least two classes.
      test_features: [M, D], finite.
      test_labels: integers [M]. A class without training clips counts as wrong.
      C: inverse strength of the L2 penalty. Logistic: C times the sum of the losses plus half the
        squared norm of the weights (scikit-learn's convention); ridge: C times the sum of the
        squared errors plus the squared norm.
      solver: "logistic", multinomial logistic regression by L-BFGS; or "ridge", least squares
        onto 1 for the clip's class and -1 for the others, in closed form; the largest output
        wins.
      max_iter: most iterations of L-BFGS.

    Returns:
      Accuracy in [0, 1].

    Raises:
      UserError: the shapes do not fit, a feature is not finite, there is only one class, or a
        setting is wrong.
    """
    test_features, test_labels = checked(test_features, test_labels, "test")
    classifier = fit_linear(train_features, train_labels, C=C, solver=solver, max_iter=max_iter)
    return float(classifier.score(test_features, test_labels))


def fit_linear(features: np.ndarray, labels: np.ndarray, *, C: float = 0.1,
               solver: Solver = "logistic", max_iter: int = 1000) -> pipeline.Pipeline:
    """The standardisation and the layer behind `linear_accuracy`, which tells the arguments.

    Raises:
      UserError: as there.
    """
    features, labels = checked(features, labels, "training")
    if len(np.unique(labels)) < 2:
        raise UserError("the training split has clips of one class only; a classifier needs two")
    if not C > 0:
        raise UserError(f"LinearProtocol.C holds {C}; it must be positive")
    if solver == "ridge":
        layer = linear_model.RidgeClassifier(alpha=1 / C, solver="cholesky")
    elif solver == "logistic":
        layer = linear_model.LogisticRegression(C=C, max_iter=max_iter)
    else:
        raise UserError(f"LinearProtocol.solver is {solver!r}; it must be 'logistic' or 'ridge'")
    classifier = pipeline.make_pipeline(preprocessing.StandardScaler(), layer)
    with threadpoolctl.threadpool_limits(limits=1), warnings.catch_warnings():
        # Said below, in one line.
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        classifier.fit(features, labels)
    if solver == "logistic" and max(layer.n_iter_) >= max_iter:
        logging.warning("the linear layer did not converge in %d iterations", max_iter)
    return classifier


def folded(classifier: pipeline.Pipeline) -> tuple[np.ndarray, np.ndarray]:
    """One affine map for a logistic `fit_linear`.

    Returns:
      kernel float64 [D, C] and bias float64 [C]: softmax(x @ kernel + bias) are the probabilities
      of the classes, in their order, of features x that are not standardised.
    """
    scaler, layer = (step for _, step in classifier.steps)
    weights, bias = layer.coef_.T, layer.intercept_
    if len(layer.classes_) == 2:  # Only the log-odds of the second are kept.
        weights = np.concatenate([np.zeros_like(weights), weights], axis=1)
        bias = np.concatenate([[0.0], bias])
    kernel = weights / scaler.scale_[:, np.newaxis]
    return kernel, bias - scaler.mean_ @ kernel


def choose_regulariser(features: np.ndarray, labels: np.ndarray, grid: Sequence[float], *,
                       fraction: float = 0.2, solver: Solver = "logistic", max_iter: int = 1000,
                       seed: int = 0) -> tuple[float, str]:
    """The value of a grid that does best on a validation part of the training clips.

    Args:
      features: [N, D] of the training clips.
      labels: integers [N].
      grid: of C, see `linear_accuracy`; of equal ones the smallest (the strongest penalty) is
        taken.
      fraction: of each class that is left out to validate on, at least one clip where there are
        two.
      solver: see `linear_accuracy`.
      max_iter: most iterations of L-BFGS.
      seed: of the validation part.

    Returns:
      The chosen C, and a note: empty, or why nothing could be chosen. Then C is the middle of the
      grid.

    Raises:
      UserError: the grid is empty.
    """
    grid = sorted(grid)
    if not grid:
        raise UserError("LinearProtocol.C is empty; give one number at least")
    if len(grid) == 1:
        return grid[0], ""
    labels = np.asarray(labels)
    fit, validation = validation_part(labels, fraction, seed)
    if not len(validation) or len(np.unique(labels[fit])) < 2:
        middle = grid[(len(grid) - 1) // 2]
        return middle, (f"{len(labels)} clips are too few for a validation part: the regulariser "
                        f"is not chosen but C = {middle:g}")
    features = np.asarray(features)
    scores = [linear_accuracy(features[fit], labels[fit], features[validation],
                              labels[validation], C=C, solver=solver, max_iter=max_iter)
              for C in grid]
    return grid[int(np.argmax(scores))], ""
