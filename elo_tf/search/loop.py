"""The search: ask, evaluate, write down, tell, and the same again after any interruption.

Nothing of the strategy's state is stored. A search that is started again rebuilds its strategy by
asking and telling it everything that the journal holds, comparing each vector, and goes on with
the first candidate that is missing.
"""

import json
import math
import os
import pathlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import numpy as np
from absl import logging

from elo_tf.errors import UserError
from elo_tf.search import journal as journal_lib
from elo_tf.search.journal import Candidate
from elo_tf.search.strategies import Strategy

JOURNAL = "journal.jsonl"

# A result of another commit is told to the user; one of another value here is refused.
_MAY_DIFFER = ("commit",)


class CandidateError(Exception):
    """A candidate cannot be evaluated; the search records why and goes on with the next one."""


@gin.configurable(denylist=["names", "strategy", "evaluate", "run_dir", "header", "on_candidate"])
def run_search(
        names: Sequence[str], strategy: Strategy,
        evaluate: Callable[[dict[str, float]], Mapping[str, Any]], *,
        run_dir: str | os.PathLike, generations: int = 250,
        header: Mapping[str, Any] | None = None,
        on_candidate: Callable[[Candidate, bool], None] | None = None,
        failed_fitness: float = 1e3) -> Candidate:
    """Searches for the weights of least fitness, or goes on with a search that was interrupted.

    Args:
      names: of the weights, in the order of the strategy's vectors.
      strategy: new, not yet asked.
      evaluate: weights by name -> {"fitness", "status", "losses", "histogram", "spread",
        "effective_rank", "seconds"}, of which only the fitness of one that did not fail is
        required; the total seconds are measured here. A candidate has failed
        if its status is there and not "ok", if its fitness is not a finite number below
        `failed_fitness`, or if evaluate raises `CandidateError` or `FloatingPointError`. Any other
        exception ends the search, which can then be resumed.
      run_dir: where `journal.jsonl` is, or will be.
      generations: how often the strategy is asked (250 rounds in the paper, which does not say
        whether a round is a generation).
      header: what else the journal's first line is to hold, such as config and commit. A search
        is resumed only with the same values; only the commit may differ.
      on_candidate: called with every candidate in order, and whether it was read from the journal
        rather than evaluated now.
      failed_fitness: what a failed candidate is told as (our choice). It must be worse than any
        real fitness; KL from Zipf's law is at most log(k^s H_{k,s}), 20 for a million clusters.

    Returns:
      The best candidate, the first of equals.

    Raises:
      UserError: the journal is of another search, or is damaged, or all candidates failed.
    """
    names = list(names)
    if len(names) != strategy.dimension:
        raise ValueError(f"{len(names)} names for vectors of length {strategy.dimension}")
    run_dir = pathlib.Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    with journal_lib.open_journal(run_dir / JOURNAL) as writer:
        journal = writer.journal
        # As it will be read back: a tuple becomes a list.
        first_line = json.loads(json.dumps({
            "version": journal_lib.VERSION, "names": names,
            "strategy": type(strategy).__name__, "seed": strategy.seed,
            "population": strategy.population, "generations": generations,
            "failed_fitness": failed_fitness, **(header or {})}))
        if journal.header:
            _check_header(writer.path, journal.header, first_line)
        else:
            writer.write("search", **first_line)
        if journal.end is None:
            reason = _run_generations(
                names, strategy, evaluate, writer, generations, on_candidate, failed_fitness)
            best = _best(writer)
            writer.write("end", reason=reason, best={
                "generation": best.generation, "index": best.index, "fitness": best.fitness})
        return _best(writer)


def _run_generations(names, strategy, evaluate, writer, generations, on_candidate,
                     failed_fitness) -> str:
    """Runs what the journal lacks; returns why the search ended."""
    journal = writer.journal
    known = list(journal.candidates)
    for generation in range(generations):
        results = []
        for index, vector in enumerate(strategy.ask()):
            weights = dict(zip(names, map(float, vector), strict=True))
            place = generation * strategy.population + index
            replayed = place < len(known)
            if replayed:
                candidate = known[place]
                _check_weights(writer.path, candidate, weights)
            else:
                candidate = _evaluate(evaluate, weights, generation, index, failed_fitness)
                writer.write("candidate", **vars(candidate))
                # As it was written, so that a resumed search goes on with the same values.
                candidate = journal.candidates[-1]
                if not candidate.ok:
                    logging.warning(
                        "candidate %d of generation %d %s", index, generation, candidate.status)
            if on_candidate is not None:
                on_candidate(candidate, replayed)
            results.append((vector, candidate.fitness))
        strategy.tell(results)
        if generation == len(journal.generations):
            writer.write(
                "generation", generation=generation, best=min(f for _, f in results),
                mean=dict(zip(names, map(float, strategy.mean), strict=True)),
                sigma=strategy.sigma)
        reason = strategy.stop()
        if reason:
            return f"the strategy stopped: {reason}"
    return f"all {generations} generations done"


def _evaluate(evaluate, weights, generation, index, failed_fitness) -> Candidate:
    """Evaluates one candidate; a failure becomes a candidate too."""
    start = time.perf_counter()
    result: dict[str, Any] = {}
    fitness = math.nan
    try:
        result = dict(evaluate(dict(weights)))
        status = result.get("status", journal_lib.OK)
        if status == journal_lib.OK:
            fitness = float(result["fitness"])
    except (CandidateError, FloatingPointError) as error:
        status = journal_lib.FAILED + (str(error) or type(error).__name__)
    if status == journal_lib.OK and not -math.inf < fitness < failed_fitness:
        status = f"{journal_lib.FAILED}fitness is {fitness}, not a number below {failed_fitness}"
    if status != journal_lib.OK:
        fitness = failed_fitness
        if not status.startswith(journal_lib.FAILED):
            status = journal_lib.FAILED + status
    return Candidate(
        generation=generation, index=index, weights=weights, fitness=fitness, status=status,
        losses=dict(result.get("losses", {})),
        histogram=tuple(np.asarray(result.get("histogram", ()), np.float64).tolist()),
        spread=result.get("spread"), effective_rank=result.get("effective_rank"),
        seconds={**result.get("seconds", {}), "total": time.perf_counter() - start},
        worker=result.get("worker", f"{socket.gethostname()}:{os.getpid()}"))


def _check_header(path, found, wanted) -> None:
    for key in [*wanted, *(k for k in found if k not in wanted)]:
        if found.get(key) == wanted.get(key):
            continue
        if key in _MAY_DIFFER:
            logging.warning(
                "%s was begun with %s %s and goes on with %s", path, key, found.get(key),
                wanted.get(key))
            continue
        raise UserError(
            f"{path} is of another search: its {key} is {found.get(key)!r}, now it is "
            f"{wanted.get(key)!r}. Use another --run_dir, or the configuration it was begun with")


def _check_weights(path, candidate, weights) -> None:
    if dict(candidate.weights) == weights:
        return
    name = next(n for n in weights if candidate.weights[n] != weights[n])
    raise UserError(
        f"{path}: candidate {candidate.index} of generation {candidate.generation} has "
        f"{candidate.weights[name]!r} for {name}, but the strategy now proposes "
        f"{weights[name]!r}. The search cannot be resumed by this version of the program or of "
        "its libraries; use a new --run_dir")


def _best(writer) -> Candidate:
    best = writer.journal.best
    if best is None:
        reasons = [c.status.removeprefix(journal_lib.FAILED) for c in writer.journal.candidates]
        common = max(set(reasons), key=reasons.count)
        raise UserError(
            f"all {len(reasons)} candidates of {writer.path} failed, most of them so: {common}. "
            "Train longer proxies, check the data, or widen the guards (check_features in gin)")
    return best
