"""The paper's weak fitness (ELo-weak): clusters named by labels, scored on clips not clustered.

K-means clusters one half of the labelled clips. Each cluster takes the class of most of its clips
as its name, and a clip of the other half takes the name of the centroid nearest to it. The
fitness is the accuracy of these names. The paper says that labels of HMDB51 guide the search "by
weakly supervised clustering"; the halves, the number of clusters and the normalisation are our
choice.
"""

import gin
import numpy as np
from scipy.spatial import distance

from elo_tf.errors import UserError
from elo_tf.fitness import clustering
from elo_tf.fitness.normalisation import Normalisation, normalise


def stratified_halves(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws two halves that hold every class alike.

    Args:
      labels: integers [N], one a clip.
      seed: decides the draw.

    Returns:
      The sorted indices of either half, int64. The numbers of clips of a class in them differ by
      at most 1, and so do their sizes; an odd clip more is in the first.
    """
    labels = np.asarray(labels)
    generator = np.random.Generator(np.random.PCG64(seed))
    order = np.lexsort((generator.random(len(labels)), labels))
    return np.sort(order[0::2]), np.sort(order[1::2])


def name_clusters(assignments: np.ndarray, labels: np.ndarray,
                  k: int) -> tuple[np.ndarray, np.ndarray]:
    """Names clusters by the class of most of their clips.

    Args:
      assignments: integers [N], the cluster of each clip, below k.
      labels: integers [N].
      k: number of clusters.

    Returns:
      The clusters that have clips, int64 [c], ascending, and their names, [c]: the most frequent
      label, of equally frequent ones the smallest. A cluster without clips gets no name.
    """
    classes, columns = np.unique(labels, return_inverse=True)
    counts = np.zeros((k, len(classes)), np.int64)
    np.add.at(counts, (assignments, columns), 1)
    named = np.flatnonzero(counts.sum(axis=1))
    return named, classes[counts[named].argmax(axis=1)]


@gin.register
class WeakFitness:
    """Accuracy of clusters named by labels, the paper's weakly supervised search signal.

    The halves and the starts of k-means are the same for every candidate, so that candidates
    differ by their features alone.

    The defaults are our choice. On the simulated encoders of benchmarks/zipf_normalisation.py (12
    classes; 120 and 360 labelled clips; mean over kinds of features, and over Zipfian and equal
    classes), the standard deviation of the accuracy over seeds was 0.044 and 0.027 with one fold,
    0.033 and 0.019 with two, and its rank correlation with the strength of the class signal 0.64
    and 0.79 with one, 0.72 and 0.83 with two. More clusters than classes ranked better still (24
    clusters: 0.84 and 0.92), where half of the labelled clips are enough for them. With 120 clips
    "l2" ranked about as well as "standardise_l2" (0.74), with 360 a little worse (0.81);
    "standardise" and "none" were behind both.
    """

    def __init__(self, k: int | None = None, normalisation: Normalisation = "standardise_l2",
                 folds: int = 2, seed: int = 0):
        """Sets what is clustered.

        Args:
          k: number of clusters; None: the number of classes among the labelled clips.
          normalisation: see `normalise`; by the statistics of all labelled clips, both halves,
            of which it reads no label.
          folds: 1 clusters one half and scores the other; 2 does so in both directions and takes
            the mean.
          seed: of the halves and of k-means.

        Raises:
          UserError: `folds` or `k` is out of range.
        """
        if folds not in (1, 2):
            raise UserError(f"WeakFitness.folds is {folds}; it must be 1 or 2")
        if k is not None and k < 1:
            raise UserError(f"WeakFitness.k is {k}; it must be 1 or more, or None")
        self.k = k
        self.normalisation = normalisation
        self.folds = folds
        self.seed = seed

    def lacking(self, labels: np.ndarray) -> str:
        """Why these labels do not suffice, and the mend; "" where they do.

        Args:
          labels: integers [N], -1 where a clip has none.
        """
        known = np.asarray(labels)[np.asarray(labels) >= 0]
        classes = len(np.unique(known))
        if classes < 2:
            return (f"the weak fitness needs labelled clips of two classes or more; of "
                    f"{len(labels)} clips {len(known)} are labelled, with {classes} classes: give "
                    "records with labels, or search with Fitness.guide = 'zipf'")
        k = classes if self.k is None else self.k
        if len(known) // 2 < k:
            return (f"the weak fitness makes {k} clusters of half of the labelled clips, which are "
                    f"{len(known)}: give {2 * k} labelled clips or more, or set WeakFitness.k "
                    f"below {len(known) // 2 + 1}")
        return ""

    def __call__(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Clusters a half, names its clusters, and scores the names on the other half.

        Args:
          features: [N, D] as the encoder gives them, finite.
          labels: integers [N]; clips with a negative one, that is without label, are left out.

        Returns:
          Accuracy in [0, 1], higher is better; the mean of both directions where `folds` is 2.

        Raises:
          UserError: the labelled clips are too few, or all of one class.
          ValueError: the shapes do not fit, or a feature is not finite.
        """
        features, labels = np.asarray(features, np.float64), np.asarray(labels)
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            raise ValueError("features must be [N, D] and labels [N]; they are "
                             f"{list(features.shape)} and {list(labels.shape)}")
        if reason := self.lacking(labels):
            raise UserError(reason)
        features, labels = features[labels >= 0], labels[labels >= 0]
        if not np.isfinite(features).all():
            raise ValueError("features must be finite")
        points = normalise(features, self.normalisation)
        halves = stratified_halves(labels, self.seed)
        directions = [halves, halves[::-1]][:self.folds]
        return float(np.mean([self._accuracy(points, labels, *pair) for pair in directions]))

    def _accuracy(self, points, labels, clustered, scored) -> float:
        k = len(np.unique(labels)) if self.k is None else self.k
        clusters = clustering.kmeans(points[clustered], k, seed=self.seed)
        named, names = name_clusters(clusters.assignments, labels[clustered], k)
        nearest = distance.cdist(
            points[scored], clusters.centroids[named], "sqeuclidean").argmin(axis=1)
        return float(np.mean(names[nearest] == labels[scored]))
