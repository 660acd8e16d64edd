"""Which features and how many clusters make Zipf's law a fitness: a simulation, one table.

Encoders of rising quality are simulated: only the strength of the class signal in their features
changes, beside shared nuisance directions and noise. Three kinds of features: linear, after a
ReLU, and after a ReLU and global average pooling over 8 places, as our encoders end. A fitness is
useful if it ranks these encoders as their k-means accuracy on the true classes does (Hungarian
matching, as many clusters as classes; on standardised features, for every row of the table alike).
Each cell is the rank correlation (Spearman) of fitness with accuracy, the mean over worlds, and
after the stroke that of the worst world: -1 is a perfect fitness, as lower is better, and 0 a
useless one. Worlds differ in the seed, in the features' width and in the strength of nuisance. The
control, classes of equal size, shows how much the fitness owes to the classes being Zipfian.
"""

import argparse

import numpy as np
import threadpoolctl
from scipy import optimize, stats

from elo_tf.fitness import clustering, zipf
from elo_tf.fitness.normalisation import normalise

CLASSES = 12
PLACES = 8
STRENGTHS = np.linspace(0.0, 3.0, 12)
RATIOS = (0.5, 1, 2, 4)
KINDS = ("linear", "relu", "pooled")
NORMALISATIONS = ("none", "l2", "standardise", "standardise_l2")


def encoder_features(rng, labels, width, strength, nuisance, kind):
    """Features [N, width] of one simulated encoder."""
    n = len(labels)
    means = rng.normal(size=(CLASSES, width)) / np.sqrt(8)
    shared = rng.normal(size=(n, 4)) @ rng.normal(size=(4, width)) / 2
    if kind == "pooled":
        clip = strength / 2 * means[labels] + nuisance * shared + rng.normal(0, 0.3, (n, width))
        places = clip + rng.normal(size=(PLACES, n, width))
        return np.maximum(places, 0).mean(axis=0)
    clip = strength * means[labels] + nuisance * shared + rng.normal(size=(n, width))
    return np.maximum(clip, 0) if kind == "relu" else clip


def accuracy(features, labels, seed):
    """K-means accuracy of standardised features on the true classes."""
    clusters = clustering.kmeans(
        normalise(features, "standardise"), CLASSES, seed=seed).assignments
    counts = np.zeros((CLASSES, CLASSES))
    np.add.at(counts, (clusters, labels), 1)
    return counts[optimize.linear_sum_assignment(-counts)].sum() / len(labels)


def world(seed, clips, width, nuisance, kind, zipfian):
    """Rank correlation of each (normalisation, ratio) in one world."""
    rng = np.random.Generator(np.random.PCG64(seed))
    shares = zipf.zipf_law(CLASSES) if zipfian else np.full(CLASSES, 1 / CLASSES)
    labels = rng.choice(CLASSES, size=clips, p=shares)
    fitness = {(how, ratio): [] for how in NORMALISATIONS for ratio in RATIOS}
    quality = []
    for strength in STRENGTHS:
        features = encoder_features(rng, labels, width, strength, nuisance, kind)
        quality.append(accuracy(features, labels, seed))
        for how in NORMALISATIONS:
            points = normalise(features, how)
            for ratio in RATIOS:
                centroids = clustering.kmeans(points, int(CLASSES * ratio), seed=seed).centroids
                fitness[how, ratio].append(zipf.zipf_fitness(points, centroids))
    return {key: stats.spearmanr(values, quality)[0] if np.ptp(values) > 0 else 0.0
            for key, values in fitness.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=480)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    header = "".join(f"{f'k={ratio:g}xC':>14}" for ratio in RATIOS)
    print(f"{args.clips} clips, C={CLASSES} classes, {len(STRENGTHS)} encoders a world; rank "
          "correlation of fitness with k-means accuracy, mean / worst")
    print(f"{'features':9}{'classes':9}{'normalisation':15}{header}")
    with threadpoolctl.threadpool_limits(limits=1):
        for kind in KINDS:
            for zipfian in (True, False):
                worlds = [
                    world(seed, args.clips, width, nuisance, kind, zipfian)
                    for seed in range(args.seeds) for width in (32, 128)
                    for nuisance in (0.0, 0.5)]
                for how in NORMALISATIONS:
                    cells = ""
                    for ratio in RATIOS:
                        values = [w[how, ratio] for w in worlds]
                        cells += f"{np.mean(values):+8.2f} /{np.max(values):+4.1f}"
                    print(f"{kind:9}{'Zipfian' if zipfian else 'equal':9}{how:15}{cells}",
                          flush=True)


if __name__ == "__main__":
    main()
