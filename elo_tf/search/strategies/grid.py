"""Grid search over groups of weights."""

import fnmatch
import math
from collections.abc import Mapping, Sequence

import gin
import numpy as np

from elo_tf.errors import UserError
from elo_tf.search.strategies.strategy import (
    NOTHING,
    Strategy,
    check_at_least,
    checked_fitness,
    default_population,
)

# What the paper's losses ask of a network: to draw pixels, to tell order, to match another
# modality, to copy another network (our choice).
GROUPS = (
    ("*/reconstruct", "*/predict", "*/transfer"),
    ("*/shuffle", "*/reverse"),
    ("*/contrast", "*/align"),
    ("distill/*",),
)
LARGEST = 1_000_000


@gin.register(denylist=["names"])
class Grid(Strategy):
    """Every combination of a few levels, one level for all weights of a group.

    A grid over 40 weights would have 3^40 points; over four groups it has 80, without the one where
    all weights are 0. They come in an order that the seed shuffles, so that a search that ends
    early has seen an unbiased part of them.
    """

    def __init__(self, names: Sequence[str], population: int | None = None, seed: int = 1,
                 groups: Sequence[Sequence[str]] | None = None,
                 levels: Sequence[float] = (0.0, 0.5, 1.0)):
        """Starts a search.

        Args:
          names: of the weights, in the order of the vectors.
          population: vectors a generation, of which the last may have fewer; by default as many as
            CMA-ES takes.
          seed: of the order.
          groups: of patterns of names, such as (('rgb/*', 'gray/*'), ('audio/*',)); names in none
            form one more group. None: those of `GROUPS` that match a name.
          levels: of a group, in [0, 1].

        Raises:
          UserError: a value is impossible, a pattern matches nothing, or two groups share a name.
        """
        self.dimension = len(names)
        self.population = default_population(self.dimension) if population is None else population
        check_at_least("Grid.population", self.population, 1)
        self.seed = seed
        self._levels = np.array(sorted(set(levels)), np.float64)
        if len(self._levels) < 2 or not all(0 <= x <= 1 for x in levels):
            raise UserError(f"Grid.levels is {tuple(levels)}; it must be two or more different "
                            "numbers in [0, 1]")
        self.groups = _grouped(names, GROUPS if groups is None else groups, groups is not None)
        self._member = np.zeros((len(self.groups), self.dimension))
        place = {name: i for i, name in enumerate(names)}
        for row, group in enumerate(self.groups):
            self._member[row, [place[name] for name in group]] = 1.0
        count = len(self._levels) ** len(self.groups)
        if count > LARGEST:
            raise UserError(f"the grid has {len(self._levels)} levels of {len(self.groups)} groups"
                            f", {count:,} points; give fewer Grid.groups or Grid.levels")
        order = np.random.Generator(np.random.PCG64(seed)).permutation(count)
        # Point 0 has the lowest level everywhere.
        self._order = order[order != 0] if self._levels[0] == 0 else order
        self._next = 0
        self._asked: np.ndarray | None = None
        self._best = np.full(self.dimension, 0.5)
        self._best_fitness = math.inf

    @property
    def points(self) -> int:
        """How many points the grid has."""
        return len(self._order)

    @property
    def mean(self) -> np.ndarray:
        """The best vector so far; the middle of the cube before there is one."""
        return self._best.copy()

    @property
    def sigma(self) -> float:
        """0: there is no distribution."""
        return 0.0

    def ask(self) -> np.ndarray:
        """See `Strategy.ask`.

        Raises:
          ValueError: every point was asked for.
        """
        points = self._order[self._next:self._next + self.population]
        if not len(points):
            raise ValueError("every point of the grid was asked for")
        shape = (len(self._levels),) * len(self.groups)
        levels = self._levels[np.stack(np.unravel_index(points, shape), axis=1)]
        self._asked = levels @ self._member
        return self._asked.copy()

    def tell(self, results: Sequence[tuple[np.ndarray, float]],
             rechecked: Mapping[int, float] = NOTHING) -> None:
        """See `Strategy.tell`."""
        fitness = checked_fitness(self._asked, results, rechecked)
        if fitness.min() < self._best_fitness:
            assert self._asked is not None
            self._best = self._asked[np.argmin(fitness)]
            self._best_fitness = fitness.min()
        self._next += len(fitness)
        self._asked = None

    def stop(self) -> str:
        """See `Strategy.stop`."""
        return "every point of the grid was tried" if self._next == self.points else ""


def _grouped(names: Sequence[str], patterns: Sequence[Sequence[str]],
             strict: bool) -> list[tuple[str, ...]]:
    """The names of each group that has any; those in none are the last group."""
    groups: list[tuple[str, ...]] = []
    taken: dict[str, tuple[str, ...]] = {}
    for group in patterns:
        for pattern in group if strict else ():
            if not fnmatch.filter(names, pattern):
                raise UserError(f"Grid.groups: {pattern!r} matches none of the searched losses: "
                                + ", ".join(names))
        found = tuple(n for n in names if any(fnmatch.fnmatchcase(n, p) for p in group))
        for name in found:
            if name in taken:
                raise UserError(f"Grid.groups: {name} is in both {taken[name]} and {tuple(group)}")
            taken[name] = tuple(group)
        groups.append(found)
    groups.append(tuple(name for name in names if name not in taken))
    return [group for group in groups if group]
