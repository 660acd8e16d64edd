"""K-means on features, the same to the last bit on every run.

scikit-learn adds the partial sums of its threads in the order in which they finish, so that two
runs of the same seed may differ in the last digits. A search that is resumed must not: k-means
runs here on one thread.
"""

import dataclasses

import gin
import numpy as np
import threadpoolctl
from sklearn import cluster

from elo_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Clustering:
    """Clusters of a set of features.

    Attributes:
      centroids: float64 [k, D], the mean of each cluster's features.
      assignments: int32 [N], the cluster of each feature.
    """

    centroids: np.ndarray
    assignments: np.ndarray


@gin.configurable(denylist=["features", "k", "seed"])
def kmeans(features: np.ndarray, k: int, *, seed: int = 0, n_init: int = 4,
           max_iter: int = 100) -> Clustering:
    """Clusters features by k-means (Lloyd's iteration from k-means++ starts).

    Args:
      features: [N, D], finite; computed in float64.
      k: number of clusters.
      seed: decides the starts.
      n_init: number of starts, the one of least inertia is taken (our choice).
      max_iter: most iterations of one start (our choice).

    Returns:
      The clustering. Where there are fewer distinct features than clusters, some clusters share
      a centroid and all but one of them are empty.

    Raises:
      UserError: there are fewer features than clusters.
    """
    features = np.asarray(features, np.float64)
    if not 1 <= k <= len(features):
        raise UserError(
            f"cannot make {k} clusters of {len(features)} clips: give at least as many clips as "
            "clusters, or ask for fewer clusters (ZipfFitness.k or WeakFitness.k in the search, "
            "KMeansProtocol.k in the evaluation)")
    with threadpoolctl.threadpool_limits(limits=1):
        model = cluster.KMeans(
            k, n_init=n_init, max_iter=max_iter, random_state=seed, algorithm="lloyd")
        assignments = model.fit_predict(features)
    return Clustering(model.cluster_centers_, assignments)
