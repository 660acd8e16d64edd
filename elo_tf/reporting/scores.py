"""Means over seeds: when two differ, and how they are written."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Score:
    """A mean over seeds.

    Attributes:
      mean: of `n` values.
      std: their sample standard deviation; 0 for one.
      n: how many seeds.
    """

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Score | None":
        """The score of some values; None of none."""
        if not len(values):
            return None
        std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return cls(float(np.mean(values)), std, len(values))


def difference(first: Score, second: Score) -> int:
    """1 where the first mean is larger, -1 where the second is, 0 where nobody can tell.

    Nobody can tell where the means differ by no more than the two standard deviations over seeds
    taken together, sqrt(s1^2 + s2^2) (our choice: with three seeds no finer test would be honest),
    or where one has a single seed.
    """
    if min(first.n, second.n) < 2:
        return 0
    gap = first.mean - second.mean
    return 0 if abs(gap) <= math.hypot(first.std, second.std) else int(math.copysign(1, gap))


def scored(score: Score | None, form: str = ".1%") -> str:
    """A mean with its standard deviation, where there is one."""
    if score is None:
        return ""
    return f"{score.mean:{form}}" + (f" ± {score.std:{form}}" if score.n > 1 else "")


def points(value: float) -> str:
    """A difference of accuracies."""
    return f"{100 * value:+.1f} points"


def plural(count: int, one: str, many: str | None = None) -> str:
    """A count and its noun."""
    return f"{count} {one if count == 1 else many or one + 's'}"
