"""The "1-layer" protocol: one linear layer on frozen features."""

import warnings

import numpy as np
import threadpoolctl
from absl import logging
from sklearn import exceptions, linear_model, pipeline, preprocessing

from elo_tf.errors import UserError


def linear_accuracy(train_features: np.ndarray, train_labels: np.ndarray,
                    test_features: np.ndarray, test_labels: np.ndarray, *,
                    C: float = 0.1, max_iter: int = 1000) -> float:
    """Test accuracy of multinomial logistic regression on standardised features.

    This is the "1-layer" column of the paper's Table 1; the paper does not say how the layer is
    trained (our choice: to the optimum, by L-BFGS, with an L2 penalty).

    Args:
      train_features: [N, D], finite; their mean and deviation standardise the test features too.
      train_labels: integers [N], of at least two classes.
      test_features: [M, D], finite.
      test_labels: integers [M]. A class without training clips counts as wrong.
      C: inverse strength of the L2 penalty (scikit-learn's convention).
      max_iter: most iterations of L-BFGS.

    Returns:
      Accuracy in [0, 1].

    Raises:
      UserError: the shapes do not fit, a feature is not finite, or there is only one class.
    """
    for split, features, labels in (("training", train_features, train_labels),
                                    ("test", test_features, test_labels)):
        if np.ndim(features) != 2 or np.shape(labels) != np.shape(features)[:1] or not len(labels):
            raise UserError(
                f"the linear protocol needs {split} features [N, D] and labels [N], N at least 1; "
                f"got {list(np.shape(features))} and {list(np.shape(labels))}: is the {split} "
                "split labelled?")
        if not np.isfinite(features).all():
            raise UserError(
                f"the {split} features hold values that are not finite: the encoder has diverged")
    if len(np.unique(train_labels)) < 2:
        raise UserError("the training split has clips of one class only; a classifier needs two")
    layer = linear_model.LogisticRegression(C=C, max_iter=max_iter)
    classifier = pipeline.make_pipeline(preprocessing.StandardScaler(), layer)
    with threadpoolctl.threadpool_limits(limits=1), warnings.catch_warnings():
        # Said below, in one line.
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        classifier.fit(np.asarray(train_features, np.float64), train_labels)
    if max(layer.n_iter_) >= max_iter:
        logging.warning("the linear layer did not converge in %d iterations", max_iter)
    return float(classifier.score(np.asarray(test_features, np.float64), test_labels))
