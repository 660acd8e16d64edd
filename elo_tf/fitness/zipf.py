"""The paper's unsupervised fitness: the divergence of cluster sizes from Zipf's law.

With centroids c_1..c_k, one variance for all clusters and equal priors, the paper takes

    p(c_i | x) = exp(-||x - c_i||^2 / 2 sigma^2) / sum_j exp(-||x - c_j||^2 / 2 sigma^2)
    p(c_i)     = mean of p(c_i | x) over the videos x
    q(c_i)     = (1 / i^s) / H_{k,s},      H_{k,s} = sum_{n=1..k} 1 / n^s
    fitness    = KL(p || q) = sum_i p(c_i) log(p(c_i) / q(c_i)),        lower is better

(Piergiovanni, Angelova and Ryoo, CVPR 2020, the section on unsupervised loss evaluation). The rank
i of a cluster is its place when the clusters are sorted by p(c_i), largest first. The paper has
2 sigma^2 = 1; it gives no value for s (our choice: 1, the plain law). Everything is computed with
logarithms in float64, so that far features give neither overflow nor NaN.
"""

import numpy as np
from scipy import special
from scipy.spatial import distance


def log_cluster_mass(features: np.ndarray, centroids: np.ndarray,
                     two_sigma_squared: float = 1.0) -> np.ndarray:
    """The logarithm of p(c_i), the share of each cluster in a set of features.

    Args:
      features: [N, D], N >= 1, finite.
      centroids: [k, D], k >= 1, finite.
      two_sigma_squared: 2 sigma^2 of the clusters, in squared units of the features.

    Returns:
      log p(c_i), float64 [k], in the order of the centroids; exp of it sums to 1.

    Raises:
      ValueError: the shapes do not fit, or a value is not finite.
    """
    features = np.asarray(features, np.float64)
    centroids = np.asarray(centroids, np.float64)
    if (features.ndim != 2 or centroids.ndim != 2 or not features.size or not centroids.size
            or features.shape[1] != centroids.shape[1]):
        raise ValueError(
            "features must be [N, D] and centroids [k, D], neither empty; they are "
            f"{list(features.shape)} and {list(centroids.shape)}")
    if not (np.isfinite(features).all() and np.isfinite(centroids).all()):
        raise ValueError("features and centroids must be finite")
    if not two_sigma_squared > 0:
        raise ValueError(f"two_sigma_squared must be positive; it is {two_sigma_squared}")
    # Squared differences, not ||x||^2 - 2xc + ||c||^2: far from the origin that one cancels.
    logits = -distance.cdist(features, centroids, "sqeuclidean") / two_sigma_squared
    log_posterior = special.log_softmax(logits, axis=1)
    return special.logsumexp(log_posterior, axis=0) - np.log(len(features))


def cluster_mass(features: np.ndarray, centroids: np.ndarray,
                 two_sigma_squared: float = 1.0) -> np.ndarray:
    """p(c_i), float64 [k] of sum 1, in the order of the centroids: see `log_cluster_mass`."""
    return np.exp(log_cluster_mass(features, centroids, two_sigma_squared))


def log_zipf_law(k: int, s: float = 1.0) -> np.ndarray:
    """The logarithm of Zipf's law over ranks 1..k, float64 [k]."""
    return special.log_softmax(-s * np.log(np.arange(1, k + 1, dtype=np.float64)))


def zipf_law(k: int, s: float = 1.0) -> np.ndarray:
    """Zipf's law over ranks 1..k with exponent s: float64 [k], largest first, of sum 1."""
    return np.exp(log_zipf_law(k, s))


def divergence(log_mass: np.ndarray, s: float = 1.0) -> float:
    """KL(p || q) of clusters' shares p, sorted here, from Zipf's law q, in nats.

    Args:
      log_mass: [k] logarithms of shares that sum to 1, in any order.
      s: exponent of Zipf's law.

    Returns:
      The divergence: 0 for shares that follow the law, at most log(k^s H_{k,s}).
    """
    log_p = np.sort(np.asarray(log_mass, np.float64))[::-1]
    p = np.exp(log_p)
    # A share that underflowed contributes the limit of p log p, which is 0.
    seen = p > 0
    terms = p[seen] * (log_p[seen] - log_zipf_law(len(p), s)[seen])
    return max(float(terms.sum()), 0.0)


def zipf_fitness(features: np.ndarray, centroids: np.ndarray, s: float = 1.0,
                 two_sigma_squared: float = 1.0) -> float:
    """How far the sizes of clusters are from Zipf's law: KL(p || q) in nats, lower is better.

    Args:
      features: [N, D], finite; used as they are, without normalisation.
      centroids: [k, D] cluster centres of the same features.
      s: exponent of Zipf's law.
      two_sigma_squared: 2 sigma^2 of the clusters (the paper's 1 by default).

    Returns:
      The fitness, a finite float in [0, log(k^s H_{k,s})].

    Raises:
      ValueError: the shapes do not fit, or a value is not finite.
    """
    return divergence(log_cluster_mass(features, centroids, two_sigma_squared), s)
