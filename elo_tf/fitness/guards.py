"""Guards against collapsed encoders, which the divergence from Zipf's law does not see.

A constant encoder puts every clip at the same distance from every centroid: its clusters are of
equal size, and many a useful encoder has a worse fitness than that. So the features are first
looked at for themselves: their spread and their effective rank.
"""

import dataclasses

import gin
import numpy as np


def spread(features: np.ndarray) -> float:
    """Root mean squared distance of the features [N, D] from their mean, in their own units."""
    features = np.asarray(features, np.float64)
    with np.errstate(over="ignore"):
        return float(np.sqrt(np.sum(features.var(axis=0))))


def effective_rank(features: np.ndarray) -> float:
    """The number of directions that features use, between 1 and min(N - 1, D).

    It is exp(H), H the entropy of the singular values of the centred features divided by their
    sum (Roy and Vetterli, "The effective rank", EUSIPCO 2007).

    Args:
      features: [N, D], finite.

    Returns:
      The effective rank; 0 for features that are all the same.
    """
    centred = np.asarray(features, np.float64)
    centred = centred - centred.mean(axis=0)
    scale = np.abs(centred).max(initial=0.0)
    if not scale > 0:
        return 0.0
    centred /= scale
    # The eigenvalues of the smaller Gram matrix are the squared singular values, at a fraction of
    # the cost; what is lost, values below 1e-8 of the largest, does not move the entropy.
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    values = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0.0, None))
    p = values[values > 0] / values.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the guards say of a set of features.

    Attributes:
      status: "ok" or "failed: <reason>".
      spread: see `spread`; NaN where features are not finite.
      effective_rank: see `effective_rank`; NaN where it could not be computed.
    """

    status: str
    spread: float
    effective_rank: float


@gin.configurable(denylist=["features"])
def check_features(features: np.ndarray, *, min_spread: float = 1e-6,
                   min_relative_spread: float = 1e-4, max_spread: float = 1e4,
                   min_effective_rank: float = 2.5) -> Verdict:
    """Fails the features of a constant, an exploding or a low-rank encoder.

    The paper has no such guards; all thresholds are our choice, wide enough to pass an untrained
    encoder.

    Args:
      features: [N, D], as the encoder gives them (not normalised).
      min_spread: least spread; below it the encoder is constant.
      min_relative_spread: least spread divided by the root mean squared norm; below it the clips
        differ by little more than float32's rounding of their common value.
      max_spread: largest spread; batch-normalised features have about the square root of D.
      min_effective_rank: least effective rank. Below it all clips lie about on one line: of one
        direction the last rectifier makes two, its positive and its negative part, so that the
        effective rank of an encoder whose last layer is of rank one may come up to 2.

    Returns:
      The verdict, with the measurements.
    """
    features = np.asarray(features, np.float64)
    if not np.isfinite(features).all():
        clips = int((~np.isfinite(features)).any(axis=1).sum())
        return Verdict(
            f"failed: exploding encoder, features of {clips} of {len(features)} clips are not "
            "finite", np.nan, np.nan)
    width = spread(features)
    if not width <= max_spread:
        return Verdict(
            f"failed: exploding encoder, spread {width:.3g} is above {max_spread:g}",
            width, np.nan)
    size = float(np.sqrt(np.mean(np.sum(features**2, axis=1))))
    least = max(min_spread, min_relative_spread * size)
    if width <= least:
        return Verdict(
            f"failed: constant encoder, spread {width:.3g} is not above {least:.3g}",
            width, np.nan)
    rank = effective_rank(features)
    if rank < min_effective_rank:
        return Verdict(
            f"failed: low-rank encoder, effective rank {rank:.2f} is below "
            f"{min_effective_rank:g}", width, rank)
    return Verdict("ok", width, rank)
