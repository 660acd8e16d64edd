"""Which candidate wins: the leaders are evaluated again, so that a lucky seed does not."""

from typing import Any

import numpy as np

from elo_tf.search.candidate import Candidate
from elo_tf.search.journal import Journal


def leaders(journal: Journal) -> list[Candidate]:
    """The best by their first fitness, the first of equals; of equal weights only one."""
    chosen: dict[tuple[float, ...], Candidate] = {}
    for candidate in sorted((x for x in journal.candidates if x.ok), key=lambda x: x.fitness):
        chosen.setdefault(tuple(candidate.weights.values()), candidate)
    return list(chosen.values())[:journal.header["leaders"]]


def repeated_fitness(journal: Journal, candidate: Candidate) -> float | None:
    """Mean fitness over all repeats, the first evaluation left out; None where one is missing.

    The first fitness made the candidate a leader: it may owe that to luck.
    """
    found = [journal.find(*candidate.place, repeat)
             for repeat in range(1, journal.header["repeats"] + 1)]
    known = [x.fitness for x in found if x is not None]
    return float(np.mean(known)) if known and len(known) == len(found) else None


def front_runner(journal: Journal) -> tuple[Candidate, float] | None:
    """The leader of least mean, of those whose repeats are all there; before that, the best."""
    means = [(mean, x) for x in leaders(journal)
             if (mean := repeated_fitness(journal, x)) is not None]
    if means:
        fitness, candidate = min(means, key=lambda x: x[0])
        return candidate, fitness
    return None if journal.best is None else (journal.best, journal.best.fitness)


def verdict(journal: Journal) -> dict[str, Any] | None:
    """The winner and the fitness it won with, for the journal's end; None if all failed."""
    found = front_runner(journal)
    if found is None:
        return None
    candidate, fitness = found
    again = repeated_fitness(journal, candidate) is not None
    return {"generation": candidate.generation, "index": candidate.index, "fitness": fitness,
            "repeats": journal.header["repeats"] if again else 0}
