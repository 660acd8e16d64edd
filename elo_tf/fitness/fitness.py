"""The fitness of a candidate: features in, one number and its evidence out."""

import dataclasses
import math
import time

import gin
import numpy as np
from scipy.spatial import distance

from elo_tf.fitness import clustering, guards, zipf
from elo_tf.fitness.normalisation import Normalisation, normalise


@dataclasses.dataclass(frozen=True)
class FitnessReport:
    """What a fitness says of a set of features.

    Attributes:
      fitness: lower is better; infinite where the guards failed the encoder.
      histogram: float64 [k], each cluster's share p(c_i), largest first; empty where failed.
      spread: root mean squared distance of the features from their mean.
      effective_rank: number of directions that the features use.
      status: "ok" or "failed: <reason>".
      seconds: wall time of guards, clustering and divergence.
      nearest: int64 [k, n], for each cluster in the order of `histogram` its clips (rows of the
        features) nearest to its centre, the nearest first; -1 where a cluster has fewer than n
        clips; [0, n] where failed.
    """

    fitness: float
    histogram: np.ndarray
    spread: float
    effective_rank: float
    status: str
    seconds: float
    nearest: np.ndarray


def nearest_clips(points: np.ndarray, clusters: clustering.Clustering, count: int) -> np.ndarray:
    """The clips of each cluster that are nearest to its centre.

    Args:
      points: [N, D] that were clustered.
      clusters: of them.
      count: clips wanted of each cluster.

    Returns:
      int64 [k, count] rows of `points`, in the order of the centroids, the nearest first, of
      equally near ones the first; -1 where a cluster has fewer clips.
    """
    found = np.full((len(clusters.centroids), count), -1, np.int64)
    for row, (cluster, centroid) in zip(found, enumerate(clusters.centroids), strict=True):
        members = np.flatnonzero(clusters.assignments == cluster)
        far = distance.cdist(points[members], centroid[None], "sqeuclidean")[:, 0]
        members = members[np.argsort(far, kind="stable")[:count]]
        row[:len(members)] = members
    return found


@gin.register
class ZipfFitness:
    """Zipf fitness of RGB features, the paper's unsupervised search signal.

    The paper gives neither k nor s; its 2 sigma^2 is 1, on features as they are. How wide a cluster
    is, and how features are scaled, decide whether the fitness works. The defaults are our choice:
    what ranked 108 networks, each trained with losses drawn at random, most like the accuracy of a
    linear layer does, whatever law the classes followed (benchmarks/fitness_controls.py,
    docs/results/notes.md): rho -0.36 there, -1 being perfect, and -0.50 where an effective rank
    below 1.5 times the number of classes counts as failed (`check_features.min_effective_rank`).
    With k the number of classes it has -0.16, with s = 1 it ranks no better than chance. A
    simulation (benchmarks/zipf_normalisation.py) spoke for `standardise_l2`, k at most the number
    of classes, s = 1 and 2 sigma^2 = 1: on trained networks these rank the wrong way round, +0.11.
    """

    def __init__(self, k: int = 96, s: float = 0.5, two_sigma_squared: float = 0.1,
                 normalisation: Normalisation = "scale", seed: int = 0,
                 nearest: int = 6):
        """Sets what is compared with Zipf's law.

        Args:
          k: number of clusters, at most the number of features.
          s: exponent of Zipf's law.
          two_sigma_squared: 2 sigma^2 of the clusters, in squared units of normalised features.
          normalisation: "none", "l2", "scale", "standardise" or "standardise_l2": see
            `normalise`.
          seed: of k-means.
          nearest: clips of each cluster to report, those nearest to its centre.
        """
        self.k = k
        self.s = s
        self.two_sigma_squared = two_sigma_squared
        self.normalisation = normalisation
        self.seed = seed
        self.nearest = nearest

    def __call__(self, features: np.ndarray) -> FitnessReport:
        """Guards, then normalises, clusters and compares with Zipf's law.

        Args:
          features: [N, D] as the encoder gives them, N >= k.

        Returns:
          The report.

        Raises:
          UserError: there are fewer features than clusters.
        """
        start = time.perf_counter()
        verdict = guards.check_features(features)
        fitness, histogram = math.inf, np.empty(0)
        nearest = np.empty((0, self.nearest), np.int64)
        if verdict.status == "ok":
            points = normalise(features, self.normalisation)
            clusters = clustering.kmeans(points, self.k, seed=self.seed)
            log_mass = zipf.log_cluster_mass(points, clusters.centroids, self.two_sigma_squared)
            fitness = zipf.divergence(log_mass, self.s)
            largest_first = np.argsort(-log_mass, kind="stable")
            histogram = np.exp(log_mass)[largest_first]
            nearest = nearest_clips(points, clusters, self.nearest)[largest_first]
        return FitnessReport(
            fitness, histogram, verdict.spread, verdict.effective_rank, verdict.status,
            time.perf_counter() - start, nearest)
