"""Mean and spread of a score over seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats


def interval(values: Sequence[float]) -> float:
    """Half-width of the 95% confidence interval of the mean, by Student's t; 0 for one value.

    Args:
      values: drawn independently; here one for each seed.
    """
    n = len(values)
    if n < 2:
        return 0.0
    return float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))


def summary(values: Sequence[float]) -> dict[str, Any]:
    """mean, std (of the sample, 0 for one value), interval (see above), n and the values."""
    return {"mean": float(np.mean(values)),
            "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
            "interval": interval(values), "n": len(values), "values": [float(x) for x in values]}
