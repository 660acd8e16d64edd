"""The fitness of a candidate: features in, one number and its evidence out."""

import dataclasses
import math
import time

import gin
import numpy as np

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
    """

    fitness: float
    histogram: np.ndarray
    spread: float
    effective_rank: float
    status: str
    seconds: float


@gin.register
class ZipfFitness:
    """Zipf fitness of RGB features, the paper's unsupervised search signal."""

    def __init__(self, k: int = 24, s: float = 1.0, two_sigma_squared: float = 1.0,
                 normalisation: Normalisation = "standardise", seed: int = 0):
        self.k = k
        self.s = s
        self.two_sigma_squared = two_sigma_squared
        self.normalisation = normalisation
        self.seed = seed

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
        if verdict.status == "ok":
            points = normalise(features, self.normalisation)
            clusters = clustering.kmeans(points, self.k, seed=self.seed)
            log_mass = zipf.log_cluster_mass(points, clusters.centroids, self.two_sigma_squared)
            fitness = zipf.divergence(log_mass, self.s)
            histogram = np.sort(np.exp(log_mass))[::-1]
        return FitnessReport(
            fitness, histogram, verdict.spread, verdict.effective_rank, verdict.status,
            time.perf_counter() - start)
