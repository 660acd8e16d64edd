"""What a strategy is, and what all of them share."""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import numpy as np

from elo_tf.errors import UserError

NOTHING: Mapping[int, float] = MappingProxyType({})


class Strategy(Protocol):
    """Proposes vectors in [0, 1]^dimension and learns from their fitness; lower is better.

    A strategy is a function of its parameters and of what it was told: asked and told the same, it
    proposes the same to the last bit. That is what a killed search is resumed by. It is constructed
    with the names of the weights that it moves, in the order of its vectors; whoever subclasses
    this gets a strategy without noise handling, axes and end.

    Attributes:
      dimension: length of a vector.
      population: vectors of the first generation.
      seed: of the strategy's own random numbers.
    """

    dimension: int
    population: int
    seed: int

    @property
    def mean(self) -> np.ndarray:
        """Centre of the search distribution, or the best vector where there is none: [dimension].
        """

    @property
    def sigma(self) -> float:
        """Overall step size of the search distribution; 0 where there is none."""

    def ask(self) -> np.ndarray:
        """The vectors of the next generation: float64 [n, dimension] in [0, 1]; n may change."""

    def recheck(self, fitnesses: Sequence[float]) -> list[int]:
        """Which vectors of the generation last asked for to evaluate once more.

        Args:
          fitnesses: of all of them, in order.

        Returns:
          Indices; their fitness with another seed goes to `tell`.
        """
        del fitnesses
        return []

    def tell(self, results: Sequence[tuple[np.ndarray, float]],
             rechecked: Mapping[int, float] = NOTHING) -> None:
        """Takes in the generation last asked for.

        Args:
          results: (vector, finite fitness) of each, in order.
          rechecked: the second fitness, by index, of what `recheck` named.

        Raises:
          ValueError: these are not the vectors asked for, or not all, or a fitness is not finite.
        """

    def axes(self, count: int = 3) -> list[tuple[float, np.ndarray]]:
        """Leading principal axes of the search distribution: (length, unit [dimension]) of each."""
        del count
        return []

    def stop(self) -> str:
        """Why there is nothing left to gain, or an empty string."""
        return ""


def default_population(dimension: int) -> int:
    """CMA-ES's 4 + 3 ln(dimension), for all strategies: 15 for 40 weights."""
    return 4 + int(3 * math.log(dimension))


def checked_fitness(asked: np.ndarray | None, results: Sequence[tuple[np.ndarray, float]],
                    rechecked: Mapping[int, float] = NOTHING,
                    wanted: Iterable[int] = ()) -> np.ndarray:
    """What a strategy was told, once it is sure to belong to what it asked.

    Args:
      asked: float64 [n, dimension] of the last `ask`; None if it was told already.
      results: (vector, fitness) of each.
      rechecked: second fitness by index.
      wanted: the indices that it must hold.

    Returns:
      float64 [n], the mean of both values where there are two.

    Raises:
      ValueError: as `Strategy.tell` says.
    """
    if asked is None or not np.array_equal([x for x, _ in results], asked):
        raise ValueError("tell() takes the vectors of the last ask(), all and in order")
    if set(rechecked) != set(wanted):
        raise ValueError(f"tell() takes the second fitness of {sorted(wanted)}, as recheck() "
                         f"named them, not of {sorted(rechecked)}")
    fitness = np.array([float(f) for _, f in results])
    again = fitness.copy()
    for index, value in rechecked.items():
        again[index] = float(value)
    mean = (fitness + again) / 2
    if not np.isfinite(mean).all():
        raise ValueError(f"a fitness told to a strategy must be finite; they are {mean.tolist()}")
    return mean


def check_at_least(parameter: str, value: float, least: float) -> None:
    """Refuses a parameter below its least value.

    Raises:
      UserError: naming it.
    """
    if value < least:
        raise UserError(f"{parameter} is {value}; it must be at least {least}")
