"""CMA-ES, with restarts and noise handling."""

from collections.abc import Mapping, Sequence
from typing import Any

import cma
import gin
import numpy as np
import threadpoolctl

from elo_tf.errors import UserError
from elo_tf.search.strategies.strategy import (
    NOTHING,
    Strategy,
    check_at_least,
    checked_fitness,
)


@gin.register(denylist=["names"])
class CMAES(Strategy):
    """CMA-ES (Hansen 2016, "The CMA Evolution Strategy: A Tutorial"), by pycma.

    Restarts are those of IPOP-CMA-ES (Auger and Hansen 2005): with a larger population, from a
    point drawn uniformly. Noise handling is that of UH-CMA-ES (Hansen et al. 2009), as pycma has
    it: candidates that are evaluated twice tell how much of a generation's order is noise, and
    where it is too much, the step grows.

    The paper names CMA-ES as its search and gives none of its settings: all are our choice.
    """

    def __init__(self, names: Sequence[str], population: int | None = None, seed: int = 1,
                 x0: float = 0.5, sigma0: float = 0.3, bounds: Sequence[float] = (0.0, 1.0),
                 restarts: int = 0, restart_growth: float = 2.0, reevaluations: int = 0,
                 tolfun: float = 0.0, tolfunhist: float = 0.0, tolflatfitness: int = 1000):
        """Starts a search.

        Args:
          names: of the weights, in the order of the vectors.
          population: vectors a generation; by default pycma's 4 + 3 ln(dimension).
          seed: of the strategy's own random numbers.
          x0: where every coordinate starts; 0.5 is the middle of the bounds.
          sigma0: first standard deviation. pycma allows a third of the bounds' range.
          bounds: of every coordinate, within [0, 1].
          restarts: how often to start anew when one of pycma's own conditions ends the search. Few
            searches come so far while the tolerances below are 0.
          restart_growth: what each restart multiplies the population by.
          reevaluations: candidates a generation that are evaluated once more with another seed; 0
            turns noise handling off. pycma would take 2 + population / 20.
          tolfun: stop when recent fitnesses differ by less; 0, as proxies' fitness is noisy.
          tolfunhist: the same for the best fitnesses of the generations.
          tolflatfitness: stop after so many generations of equal fitness. pycma's 1 would end a
            search whose first candidates all fail.

        Raises:
          UserError: a value is impossible.
        """
        low, high = bounds
        if len(names) < 2:
            raise UserError(f"CMAES needs at least 2 weights to search, not {len(names)}; add to "
                            "SearchSpace.searched, or search with @RandomSearch")
        if population is not None:
            check_at_least("CMAES.population", population, 4)
        check_at_least("CMAES.restarts", restarts, 0)
        check_at_least("CMAES.restart_growth", restart_growth, 1)
        if not 0 <= low < high <= 1:
            raise UserError(f"CMAES.bounds is {tuple(bounds)}; it must be (low, high) in [0, 1]")
        if not low <= x0 <= high:
            raise UserError(f"CMAES.x0 is {x0}; it must lie within CMAES.bounds, {tuple(bounds)}")
        if not 0 < sigma0 <= (high - low) / 3:
            raise UserError(f"CMAES.sigma0 is {sigma0}; it must lie in (0, {(high - low) / 3:.4g}]"
                            ", up to a third of the bounds' range")
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._options: dict[str, Any] = {
            "bounds": [low, high],
            # pycma would seed and draw from NumPy's global generator.
            "randn": lambda *shape: self._generator.standard_normal(shape),
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
        # Found once: to look for the libraries takes longer than a generation.
        self._threads = threadpoolctl.ThreadpoolController()
        self.dimension = len(names)
        self.seed = seed
        self._sigma0 = sigma0
        self._restarts_left = restarts
        self._growth = restart_growth
        self._reevaluations = reevaluations
        self._start(np.full(self.dimension, float(x0)), population)
        self.population = int(self._es.popsize)
        if not 0 <= reevaluations <= self.population:
            raise UserError(f"CMAES.reevaluations is {reevaluations}; it must lie in [0, "
                            f"{self.population}], as there are so many candidates a generation")

    def _start(self, x0: np.ndarray, population: int | None) -> None:
        options = self._options if population is None else {
            **self._options, "popsize": population}
        self._es = cma.CMAEvolutionStrategy(x0, self._sigma0, options)
        self._noise = cma.NoiseHandler(self.dimension, reevals=int(self._reevaluations))
        self._asked = None

    @property
    def mean(self) -> np.ndarray:
        """Centre of the search distribution, within the bounds."""
        return np.array(self._es.result.xfavorite)

    @property
    def sigma(self) -> float:
        """Overall step size.

        Where pycma holds standard deviations at their limit, its own sigma grows on and factors
        of the coordinates make up for it: they are counted in.
        """
        return float(self._es.sigma * np.exp(np.mean(np.log(self._es.sigma_vec.scaling))))

    def ask(self) -> np.ndarray:
        """See `Strategy.ask`; more vectors after a restart."""
        # The order in which threads add up would change the last bits of the eigenvectors.
        with self._threads.limit(limits=1):
            self._asked = self._es.ask()
        return np.array(self._asked)

    def recheck(self, fitnesses: Sequence[float]) -> list[int]:
        """See `Strategy.recheck`: the first of the generation, and the best of the others."""
        if not self._reevaluations:
            return []
        state = np.random.get_state()
        try:
            # It draws one number from NumPy's global generator, which decides nothing here.
            indices = self._noise.indices(_ranks([fitnesses])[0])
        finally:
            np.random.set_state(state)
        return sorted(map(int, indices))

    def tell(self, results: Sequence[tuple[np.ndarray, float]],
             rechecked: Mapping[int, float] = NOTHING) -> None:
        """See `Strategy.tell`.

        A fitness that is not finite is refused: pycma would put the median in its place, so that a
        candidate that diverged looked like an average one.
        """
        first = [float(f) for _, f in results]
        wanted = self.recheck(first) if np.isfinite(first).all() else []
        fitness = checked_fitness(self._asked, results, rechecked, wanted)
        with self._threads.limit(limits=1):
            self._es.tell(self._asked, fitness.tolist())
            if wanted:
                self._treat_noise(first, rechecked)
            if self._es.stop() and self._restarts_left:
                self._restarts_left -= 1
                low, high = self._options["bounds"]
                self._start(self._generator.uniform(low, high, self.dimension),
                            round(self._es.popsize * self._growth))
        self._asked = None

    def _treat_noise(self, first: list[float], rechecked: Mapping[int, float]) -> None:
        """Measures how much the order of a generation is noise, and adapts the step to it."""
        again = [float(rechecked.get(i, value)) for i, value in enumerate(first)]
        self._noise.fit, self._noise.fitre = _ranks([first, again])
        self._noise.idx = np.array(sorted(rechecked))
        self._noise.update_measure()
        # A step at its limit stays there.
        room = np.max(self._es.opts["maxstd"] / self._es.stds)
        self._es.sigma *= max(1.0, min(self._noise.treat(), float(room)))

    def axes(self, count: int = 3) -> list[tuple[float, np.ndarray]]:
        """See `Strategy.axes`; a length is a standard deviation, before bounds fold it back."""
        scale = self._es.sigma * np.broadcast_to(self._es.sigma_vec.scaling, self.dimension)
        covariance = self._es.sm.covariance_matrix * np.outer(scale, scale)
        with self._threads.limit(limits=1):
            variances, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
        found = []
        for place in np.argsort(-variances, kind="stable")[:count]:
            vector = vectors[:, place]
            # Either sign is an axis: the greatest component is positive.
            vector = vector * np.sign(vector[np.argmax(np.abs(vector))])
            found.append((float(np.sqrt(max(variances[place], 0.0))), vector))
        return found

    def stop(self) -> str:
        """See `Strategy.stop`; pycma's own conditions, such as tolx=1e-11, after all restarts."""
        return ", ".join(f"{name}={value}" for name, value in self._es.stop().items())


def _ranks(fitnesses: Sequence[Sequence[float]]) -> list[list[int]]:
    """Ranks among all values of all lists; equal ones by place, so that no rank is a chance.

    Noise is measured by ranks alone. pycma sorts without regard to the order of equals: two
    candidates that fail both times would look like noise.
    """
    values = np.array(fitnesses, np.float64)
    place = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    ranks = np.empty(values.size, np.int64)
    ranks[np.lexsort((place.ravel(), values.ravel()))] = np.arange(values.size)
    return ranks.reshape(values.shape).tolist()
