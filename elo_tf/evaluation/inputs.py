"""What every protocol asks of the features it is given."""

import numpy as np

from elo_tf.errors import UserError


def checked(features: np.ndarray, labels: np.ndarray,
            split: str) -> tuple[np.ndarray, np.ndarray]:
    """Features as float64 [N, D] and labels [N], or the reason why they cannot be used.

    Args:
      features: [N, D].
      labels: integers [N].
      split: "training" or "test", for messages.

    Raises:
      UserError: they do not fit, there is none, or a feature is not finite.
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise UserError(
            f"a protocol needs {split} features [N, D] and labels [N], N at least 1; got "
            f"{list(features.shape)} and {list(labels.shape)}: is the {split} split labelled?")
    if not np.isfinite(features).all():
        raise UserError(
            f"the {split} features hold values that are not finite: the encoder has diverged")
    return features, labels
