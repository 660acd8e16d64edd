"""Bringing the features of different encoders to one scale."""

from typing import Literal

import numpy as np

Normalisation = Literal["none", "l2", "scale", "standardise", "standardise_l2"]


def normalise(features: np.ndarray, how: Normalisation) -> np.ndarray:
    """Normalises a set of features.

    Args:
      features: [N, D], finite.
      how: "none" leaves them; "l2" divides each feature by its norm; "scale" moves their
        mean to 0 and divides all by one number, so that the mean squared norm is 1: directions in
        which clips differ more go on counting more; "standardise" gives each
        dimension mean 0 and standard deviation 1 over the set and divides by the square root of
        the number of dimensions, so that the mean squared norm is 1 whatever the width. A
        dimension without variance becomes 0 and is not counted. "standardise_l2" does both: the
        direction of a clip's deviation from the mean clip, of norm 1.

    Returns:
      float64 [N, D].

    Raises:
      ValueError: `how` is none of these.
    """
    features = np.asarray(features, np.float64)
    if how == "none":
        return features
    if how == "l2":
        norm = np.linalg.norm(features, axis=1, keepdims=True)
        return features / np.maximum(norm, np.finfo(np.float64).tiny)
    if how == "scale":
        centred = features - features.mean(axis=0)
        size = np.sqrt(np.mean(np.sum(centred**2, axis=1)))
        return centred / max(size, np.finfo(np.float64).tiny)
    if how == "standardise":
        mean = features.mean(axis=0)
        deviation = features.std(axis=0)
        # Below float32's rounding of the mean there is no variance, only noise.
        alive = deviation > np.maximum(1e-6 * np.abs(mean), np.finfo(np.float64).tiny)
        scale = np.where(alive, deviation, np.inf) * np.sqrt(max(alive.sum(), 1))
        return (features - mean) / scale
    if how == "standardise_l2":
        return normalise(normalise(features, "standardise"), "l2")
    raise ValueError(
        f"normalisation is {how!r}; it must be none, l2, scale, standardise or "
        "standardise_l2")
