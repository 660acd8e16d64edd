"""Random search: the baseline of every search."""

import math
from collections.abc import Mapping, Sequence

import gin
import numpy as np

from elo_tf.search.strategies.strategy import (
    NOTHING,
    Strategy,
    check_at_least,
    checked_fitness,
    default_population,
)


@gin.register(denylist=["names"])
class RandomSearch(Strategy):
    """Vectors drawn uniformly from the unit cube (Bergstra and Bengio 2012).

    One stream of them, however it is cut into generations: the first n are the same for every
    population.
    """

    def __init__(self, names: Sequence[str], population: int | None = None, seed: int = 1):
        """Starts a search.

        Args:
          names: of the weights, in the order of the vectors.
          population: vectors a generation; by default as many as CMA-ES takes.
          seed: of the vectors.

        Raises:
          UserError: a value is impossible.
        """
        self.dimension = len(names)
        self.population = default_population(self.dimension) if population is None else population
        check_at_least("RandomSearch.population", self.population, 1)
        self.seed = seed
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._asked: np.ndarray | None = None

    @property
    def mean(self) -> np.ndarray:
        """Of the uniform distribution, whatever was told."""
        return np.full(self.dimension, 0.5)

    @property
    def sigma(self) -> float:
        """Standard deviation of the uniform distribution."""
        return 1 / math.sqrt(12)

    def ask(self) -> np.ndarray:
        """See `Strategy.ask`."""
        self._asked = self._generator.random((self.population, self.dimension))
        return self._asked.copy()

    def tell(self, results: Sequence[tuple[np.ndarray, float]],
             rechecked: Mapping[int, float] = NOTHING) -> None:
        """See `Strategy.tell`; nothing is learnt from it."""
        checked_fitness(self._asked, results, rechecked)
        self._asked = None
