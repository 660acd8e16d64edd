"""Strategies of the search: they ask for weight vectors and are told their fitness."""

from collections.abc import Sequence
from typing import Protocol

import cma
import gin
import numpy as np
import threadpoolctl

from elo_tf.errors import UserError


class Strategy(Protocol):
    """Proposes vectors in [0, 1]^dimension and learns from their fitness; lower is better.

    A strategy is a function of its parameters and of what it was told: asked and told the same, it
    proposes the same to the last bit. That is what a killed search is resumed by.

    Attributes:
      dimension: length of a vector.
      population: vectors a generation.
      seed: of the strategy's own random numbers.
      mean: float64 [dimension], the centre of what would be proposed next.
      sigma: the overall step size.
    """

    dimension: int
    population: int
    seed: int

    @property
    def mean(self) -> np.ndarray:
        """Centre of the search distribution, [dimension]."""

    @property
    def sigma(self) -> float:
        """Overall step size of the search distribution."""

    def ask(self) -> np.ndarray:
        """The vectors of the next generation: float64 [population, dimension] in [0, 1]."""

    def tell(self, results: Sequence[tuple[np.ndarray, float]]) -> None:
        """Takes in the generation last asked for: (vector, finite fitness) of each, in order."""

    def stop(self) -> str:
        """Why there is nothing left to gain, or an empty string."""


@gin.register
class CMAES:
    """CMA-ES (Hansen 2016, "The CMA Evolution Strategy: A Tutorial"), by pycma.

    The paper names CMA-ES as its search and gives none of its settings: all are our choice.
    """

    def __init__(self, dimension: int, population: int | None = None, seed: int = 1,
                 x0: float = 0.5, sigma0: float = 0.3, tolfun: float = 0.0,
                 tolfunhist: float = 0.0, tolflatfitness: int = 1000):
        """Starts a search.

        Args:
          dimension: length of a vector.
          population: vectors a generation; by default pycma's 4 + 3 ln(dimension).
          seed: of the strategy's own random numbers.
          x0: where every coordinate starts; 0.5 is the middle of the bounds.
          sigma0: first standard deviation; pycma keeps it at most a third of the bounds' range.
          tolfun: stop when recent fitnesses differ by less; 0, as proxies' fitness is noisy.
          tolfunhist: the same for the best fitnesses of the generations.
          tolflatfitness: stop after so many generations of equal fitness. pycma's 1 would end a
            search whose first candidates all fail.
        """
        if dimension < 2:
            raise ValueError(f"CMA-ES needs at least 2 dimensions, not {dimension}")
        if population is not None and population < 4:
            raise UserError(f"CMAES.population is {population}; CMA-ES needs at least 4")
        generator = np.random.Generator(np.random.PCG64(seed))
        options = {
            "bounds": [0.0, 1.0],
            # pycma would seed and draw from NumPy's global generator.
            "randn": lambda *shape: generator.standard_normal(shape),
            "seed": np.nan,
            # With a small population pycma adds mirrored vectors; plain sampling throughout.
            "CMA_mirrors": 0,
            "verbose": -9,
            "verb_log": 0,
            "signals_filename": "",
            "tolfun": tolfun,
            "tolfunhist": tolfunhist,
            "tolflatfitness": tolflatfitness,
        }
        if population is not None:
            options["popsize"] = population
        self.dimension = dimension
        self.seed = seed
        self._es = cma.CMAEvolutionStrategy(np.full(dimension, float(x0)), sigma0, options)
        self.population = int(self._es.popsize)
        self._asked = None

    @property
    def mean(self) -> np.ndarray:
        """Centre of the search distribution, within the bounds."""
        return np.array(self._es.result.xfavorite)

    @property
    def sigma(self) -> float:
        """Overall step size."""
        return float(self._es.sigma)

    def ask(self) -> np.ndarray:
        """See `Strategy.ask`."""
        # The order in which threads add up would change the last bits of the eigenvectors.
        with threadpoolctl.threadpool_limits(limits=1):
            self._asked = self._es.ask()
        return np.array(self._asked)

    def tell(self, results: Sequence[tuple[np.ndarray, float]]) -> None:
        """See `Strategy.tell`.

        Raises:
          ValueError: these are not the vectors asked for, or a fitness is not finite. pycma would
            put the median in its place, so that a candidate that diverged looked like an average
            one.
        """
        if self._asked is None or not np.array_equal([x for x, _ in results], self._asked):
            raise ValueError("tell() takes the vectors of the last ask(), all and in order")
        fitness = [float(f) for _, f in results]
        if not np.isfinite(fitness).all():
            raise ValueError(f"a fitness told to CMA-ES must be finite; they are {fitness}")
        with threadpoolctl.threadpool_limits(limits=1):
            self._es.tell(self._asked, fitness)
        self._asked = None

    def stop(self) -> str:
        """See `Strategy.stop`; pycma's own conditions, such as tolx=1e-11."""
        return ", ".join(f"{name}={value}" for name, value in self._es.stop().items())
