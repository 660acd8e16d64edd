"""What the report says of a search in numbers, from its journal."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import scipy.stats

from elo_tf.search import choice
from elo_tf.search.candidate import FAILED, Candidate, Control, Measured
from elo_tf.search.journal import Journal

PAPER_RHO = 0.91    # over 100 loss functions, the paper's Figure 9
CONFIDENCE = 0.95

# Reasons that differ in a number only are counted as one.
_NUMBER = re.compile(r"(?<![\w/.])[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)(?![\w/])", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Quartiles:
    """The fitness of generations, of the candidates that did not fail; NaN where all did.

    Attributes:
      generation: int [G].
      best, lower, median, upper: float64 [G], the least and the three quartiles.
      failed: int [G], how many failed.
    """

    generation: np.ndarray
    best: np.ndarray
    lower: np.ndarray
    median: np.ndarray
    upper: np.ndarray
    failed: np.ndarray


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of two fitness measures, +1 where both order alike.

    Attributes:
      rho: of -KL and accuracy.
      p: two-sided, by Student's t distribution.
      low, high: a 95% interval after Bonett and Wright (2000); NaN of fewer than 4 candidates.
      n: candidates.
    """

    rho: float
    p: float
    low: float
    high: float
    n: int


@dataclasses.dataclass(frozen=True)
class Leader:
    """A candidate that was evaluated again with other seeds.

    Attributes:
      candidate: as the search knew it.
      repeats: of the same weights, by seed.
      mean: fitness over the repeats, without the first; None where one of them failed.
      chosen: whether it is the search's choice, or leads so far.
    """

    candidate: Candidate
    repeats: tuple[Candidate, ...]
    mean: float | None
    chosen: bool


def quartiles(candidates: Sequence[Candidate]) -> Quartiles:
    """Best, median and quartiles of each generation."""
    grouped: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        grouped.setdefault(candidate.generation, []).append(candidate)
    numbers = sorted(grouped)
    worked = [[x.fitness for x in grouped[number] if x.ok] for number in numbers]
    rows = [np.percentile(x, [0, 25, 50, 75]) if x else np.full(4, np.nan) for x in worked]
    failed = [len(grouped[number]) - len(x) for number, x in zip(numbers, worked, strict=True)]
    best, lower, median, upper = np.array(rows, float).reshape(-1, 4).T
    return Quartiles(np.array(numbers, int), best, lower, median, upper, np.array(failed, int))


def guide(journal: Journal) -> str:
    """What guides the search: "weak" where every fitness is an error rate, else "zipf"."""
    worked = [x for x in journal.candidates if x.ok]
    weak = worked and all(x.weak is not None and x.fitness == 1.0 - x.weak for x in worked)
    return journal.header.get("guide", "weak" if weak else "zipf")


def fitness_of(measured: Measured | None, guide: str) -> float | None:
    """The fitness of a network, or of the untrained one, as the search's guide measures it."""
    if measured is None or not measured.ok:
        return None
    if isinstance(measured, Candidate):
        return measured.fitness
    value = measured.weak if guide == "weak" else measured.zipf
    return value if value is None or guide != "weak" else 1.0 - value


def control_of(journal: Journal) -> Control | None:
    """The untrained network by the search's own seed."""
    return journal.controls.get(0)


def worst(journal: Journal) -> Candidate | None:
    """The candidate of the largest fitness that did not fail."""
    return max((x for x in journal.candidates if x.ok), key=lambda x: x.fitness, default=None)


def expected(journal: Journal) -> int | None:
    """How many candidates were asked for, before the leaders are evaluated again."""
    if journal.forecast and "candidates" in journal.forecast:
        return journal.forecast["candidates"]
    header = journal.header
    if "population" in header and "generations" in header:
        return header["population"] * header["generations"]
    return None


def both_measured(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those of which the divergence and the accuracy are known."""
    return [x for x in candidates if x.ok and x.zipf is not None and x.weak is not None]


def rank_correlation(zipf: Sequence[float], weak: Sequence[float]) -> Correlation | None:
    """Spearman's rho between how good two measures say that networks are.

    Args:
      zipf: divergences, lower is better.
      weak: accuracies of the same networks, higher is better.

    Returns:
      The correlation; None of fewer than 3 networks, or where a measure never differs.
    """
    if len(zipf) < 3 or len(set(zipf)) < 2 or len(set(weak)) < 2:
        return None
    rho, p = map(float, scipy.stats.spearmanr(-np.asarray(zipf), weak))
    low = high = float("nan")
    if len(zipf) > 3:
        error = np.sqrt((1 + rho**2 / 2) / (len(zipf) - 3))
        reach = scipy.stats.norm.ppf((1 + CONFIDENCE) / 2) * error
        centre = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
        low, high = map(float, np.tanh([centre - reach, centre + reach]))
    return Correlation(rho, p, low, high, len(zipf))


def sample_of(strategy: str) -> str:
    """What kind of sample of all losses a strategy's candidates are, as a sentence goes on."""
    name = strategy.lower()
    if "random" in name:
        return "the losses were drawn at random"
    if "grid" in name:
        return "the losses are the points of a grid, not a random sample"
    return (f"the losses are the search’s own candidates, which {strategy} moves to where it finds "
            "the fitness low; they are no random sample")


def leaders(journal: Journal) -> list[Leader]:
    """The leaders that were evaluated again so far, in the order of their means."""
    leading = choice.front_runner(journal)
    found = []
    for candidate in choice.leaders(journal):
        repeats = tuple(journal.repeats_of(candidate))
        if repeats:
            mean = (float(np.mean([x.fitness for x in repeats]))
                    if all(x.ok for x in repeats) else None)
            chosen = leading is not None and candidate is leading[0]
            found.append(Leader(candidate, repeats, mean, chosen))
    return sorted(found, key=lambda x: (x.mean is None, x.mean or 0.0))


def failures(journal: Journal) -> list[tuple[str, list[Candidate]]]:
    """(reason, who failed so), the most frequent reason first; reasons count without numbers."""
    grouped: dict[str, list[Candidate]] = {}
    for candidate in [*journal.candidates, *journal.repeats]:
        if not candidate.ok:
            reason = candidate.status.removeprefix(FAILED)
            grouped.setdefault(_NUMBER.sub("#", reason), []).append(candidate)
    return sorted(((x[0].status.removeprefix(FAILED), x) for x in grouped.values()),
                  key=lambda x: -len(x[1]))
