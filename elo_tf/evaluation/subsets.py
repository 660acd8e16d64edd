"""Which clips of a labelled set: shares, validation parts and growing subsets, class by class.

Every draw is a function of the labels and a seed.
"""

import numpy as np


def stratified_subset(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Sorted indices of a random `fraction` of each class, rounded, at least one clip of each."""
    chosen = [members[:max(1, round(fraction * len(members)))]
              for members in shuffled_classes(labels, np.random.PCG64(seed))]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def validation_part(labels: np.ndarray, fraction: float,
                    seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits clips in two: what is fitted on, and what settings are chosen by.

    Args:
      labels: integers [N].
      fraction: of each class that goes to the second part, rounded: at least one clip, but never
        all; a class of one clip stays in the first.
      seed: of the draws.

    Returns:
      Sorted indices of the two parts; the second is empty where every class has one clip.
    """
    first, second = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for members in shuffled_classes(labels, np.random.PCG64([seed, 1])):
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        first.append(members[count:])
        second.append(members[:count])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def growing_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """An order of clips of which every beginning is stratified, so that subsets are nested.

    A beginning as long as there are classes has one clip of each; a longer one has of each class
    its share, to a clip.

    Args:
      labels: integers [N].
      seed: of the order.

    Returns:
      A permutation of the N indices.
    """
    labels = np.asarray(labels)
    place = np.empty(len(labels))
    for members in shuffled_classes(labels, np.random.PCG64([seed, 2])):
        place[members] = np.arange(len(members)) / len(members)
    ties = np.random.Generator(np.random.PCG64([seed, 3])).permutation(len(labels))
    return np.lexsort((ties, place))


def shuffled_classes(labels: np.ndarray, bits: np.random.BitGenerator) -> list[np.ndarray]:
    """The indices of each class, the classes in order, shuffled by one generator."""
    generator = np.random.Generator(bits)
    return [generator.permutation(np.flatnonzero(np.asarray(labels) == label))
            for label in np.unique(labels)]
