"""The search: ask, evaluate, write down, tell, and the same again after any interruption.

Nothing of the strategy's state is stored. A search that is started again rebuilds its strategy by
asking and telling it everything that the journal holds, comparing each vector, and goes on with
what is missing. Workers may evaluate several candidates at a time, in any order: the strategy is
told of a generation when all of it is there, so that their number decides nothing but the time.
"""

import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import gin
import numpy as np
from absl import logging

from elo_tf.errors import UserError
from elo_tf.parallel import WorkerDiedError
from elo_tf.search import choice
from elo_tf.search import journal as journal_lib
from elo_tf.search.candidate import FAILED, OK, Candidate, Control, Generation
from elo_tf.search.engines import Engine, Finished, Job, Started
from elo_tf.search.errors import CandidateError
from elo_tf.search.journal import Journal, JournalWriter
from elo_tf.search.strategies import Strategy

JOURNAL = "journal.jsonl"

# A result of another commit is told to the user; one of another value here is refused.
_MAY_DIFFER = ("commit",)
# What costs a candidate, and not the search.
_FAILURES = (CandidateError, FloatingPointError, MemoryError, WorkerDiedError)


class Space(Protocol):
    """What the loop needs of a `SearchSpace`."""

    names: Sequence[str]
    searched: Sequence[str]

    def weights(self, vector: Sequence[float] | np.ndarray) -> dict[str, float]:
        """The weights of all names at a vector of the searched ones."""


class Watcher:
    """What is told of a search while it runs; a subclass listens to what it wants."""

    def on_start(self, journal: Journal) -> None:
        """The untrained network was measured; what the journal holds was found there."""

    def on_candidate(self, journal: Journal, candidate: Candidate,
                     clusters: Mapping[str, Any] | None) -> None:
        """A candidate was evaluated now; the clips of its clusters, where its worker gave them."""

    def on_generation(self, journal: Journal, generation: Generation) -> None:
        """The strategy was told of a generation for the first time."""

    def on_end(self, journal: Journal) -> None:
        """The search has ended, now or before."""


@gin.configurable(allowlist=["failed_fitness"])
def run_search(
        space: Space, strategy: Strategy, engine: Engine, *, run_dir: str | os.PathLike,
        generations: int = 250, leaders: int = 5, repeats: int = 2,
        header: Mapping[str, Any] | None = None,
        forecast: Callable[[Control], Mapping[str, Any]] | None = None,
        watchers: Sequence[Watcher] = (), failed_fitness: float = 1e3) -> Journal:
    """Searches for the weights of least fitness, or goes on with a search that was interrupted.

    Args:
      space: what the strategy's vectors mean.
      strategy: new, not yet asked.
      engine: evaluates candidates. One has failed if its status is there and not "ok", if its
        fitness is not a finite number below `failed_fitness`, if its evaluation raises
        `CandidateError`, `FloatingPointError` or `MemoryError`, or if its worker died with it.
        Any other exception ends the search, which can then be resumed.
      run_dir: where `journal.jsonl` is, or will be.
      generations: how often the strategy is asked (250 rounds in the paper, which does not say
        whether a round is a generation).
      leaders: how many of the best are evaluated again in the end (our choice).
      repeats: how often, each with a seed of its own. The one of the best mean over these wins:
        its first fitness, which made it a leader, does not count, for it may owe that to luck.
      header: what else the journal's first line is to hold, such as config and commit. A search
        is resumed only with the same values; only the commit may differ.
      forecast: called with what was measured of the untrained network, before the first candidate.
      watchers: told of what happens.
      failed_fitness: what a failed candidate is told as (our choice). It must be worse than any
        real fitness; KL from Zipf's law is at most log(k^s H_{k,s}), 20 for a million clusters.

    Returns:
      The journal of the finished search.

    Raises:
      UserError: the journal is of another search, or is damaged, or all candidates failed.
    """
    if len(space.searched) != strategy.dimension:
        raise ValueError(f"{len(space.searched)} names for vectors of {strategy.dimension}")
    run_dir = pathlib.Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    with journal_lib.open_journal(run_dir / JOURNAL) as writer:
        # As it will be read back: a tuple becomes a list.
        first_line = json.loads(json.dumps({
            "version": journal_lib.VERSION, "names": space.names, "searched": space.searched,
            "strategy": type(strategy).__name__, "seed": strategy.seed,
            "population": strategy.population, "generations": generations, "leaders": leaders,
            "repeats": repeats, "failed_fitness": failed_fitness, **(header or {})}))
        if writer.journal.header:
            _check_header(writer.path, writer.journal.header, first_line)
        else:
            writer.write("search", **first_line)
        run = _Run(space, strategy, engine, writer, watchers, failed_fitness)
        if writer.journal.end is None:
            run.measure_control(0)
            if writer.journal.forecast is None and forecast is not None:
                writer.write("forecast", **forecast(writer.journal.controls[0]))
            for watcher in watchers:
                watcher.on_start(writer.journal)
            reason = run.generations(generations)
            run.repeat_leaders()
            writer.write("end", reason=reason, best=_verdict(writer),
                         traces=run.traces)
        for watcher in watchers:
            watcher.on_end(writer.journal)
        return writer.journal


class _Run:
    """One run of a search, from what the journal holds to what it lacks."""

    def __init__(self, space: Space, strategy: Strategy, engine: Engine,
                 writer: JournalWriter, watchers: Sequence[Watcher], failed_fitness: float):
        self._space = space
        self._strategy = strategy
        self._engine = engine
        self._writer = writer
        self._journal = writer.journal
        self._watchers = watchers
        self._failed_fitness = failed_fitness
        self.traces = 0  # of the train step, in the worker that had most

    def measure_control(self, repeat: int) -> None:
        """Measures the untrained network, unless the journal has it."""
        if repeat not in self._journal.controls:
            self._evaluate([Job(generation=-1, index=-1, repeat=repeat, weights=None)])

    def generations(self, count: int) -> str:
        """Runs what the journal lacks; returns why the search ended."""
        for generation in range(count):
            vectors = self._strategy.ask()
            if not len(vectors):
                return f"the strategy stopped: {self._strategy.stop()}"
            asked = self._journal.asked(generation)
            if asked is None:
                self._writer.write("asked", generation=generation, size=len(vectors))
            elif asked != len(vectors):
                raise UserError(f"{self._writer.path}: generation {generation} has {asked} "
                                f"candidates, but the strategy now proposes {len(vectors)}; use "
                                "a new --run_dir")
            weights = [self._space.weights(vector) for vector in vectors]
            self._evaluate_missing(generation, weights, dict.fromkeys(range(len(vectors)), 0))
            fitness = [self._journal.get(generation, i).fitness for i in range(len(vectors))]
            again = self._strategy.recheck(fitness)
            self._evaluate_missing(generation, weights, dict.fromkeys(again, 1))
            self._strategy.tell(
                list(zip(vectors, fitness, strict=True)),
                {i: self._journal.get(generation, i, 1).fitness for i in again})
            if generation == len(self._journal.generations):
                self._write_generation(generation, fitness)
            reason = self._strategy.stop()
            if reason:
                return f"the strategy stopped: {reason}"
        return f"all {count} generations done"

    def repeat_leaders(self) -> None:
        """Evaluates the best again, and the untrained network, with other seeds."""
        leaders = choice.leaders(self._journal)
        jobs = []
        for repeat in range(1, self._journal.header["repeats"] + 1) if leaders else ():
            if repeat not in self._journal.controls:
                jobs.append(Job(generation=-1, index=-1, repeat=repeat, weights=None))
            jobs += [Job(*leader.place, repeat, dict(leader.weights)) for leader in leaders
                     if self._journal.find(*leader.place, repeat) is None]
        self._evaluate(jobs)

    def _write_generation(self, generation: int, fitness: Sequence[float]) -> None:
        axes = [(length, dict(zip(self._space.searched, map(float, direction), strict=True)))
                for length, direction in self._strategy.axes()]
        self._writer.write(
            "generation", generation=generation, best=min(fitness),
            mean=self._space.weights(self._strategy.mean), sigma=self._strategy.sigma, axes=axes)
        for watcher in self._watchers:
            watcher.on_generation(self._journal, self._journal.generations[-1])

    def _evaluate_missing(self, generation: int, weights: Sequence[Mapping[str, float]],
                          repeats: Mapping[int, int]) -> None:
        """Evaluates of a generation what the journal lacks, `repeats` by index."""
        jobs = []
        for index, repeat in repeats.items():
            known = self._journal.find(generation, index, repeat)
            if known is None:
                jobs.append(Job(generation, index, repeat, dict(weights[index])))
            else:
                _check_weights(self._writer.path, known, weights[index])
        self._evaluate(jobs)

    def _evaluate(self, jobs: Sequence[Job]) -> None:
        """Runs jobs and writes down each when it ends."""
        for event in self._engine.run(jobs) if jobs else ():
            job = event.job
            if isinstance(event, Started):
                self._writer.write(
                    "started", generation=job.generation, index=job.index, repeat=job.repeat,
                    attempt=event.attempt, worker=event.worker)
            elif isinstance(event, Finished):
                self._finish(job, event.outcome)

    def _finish(self, job: Job, outcome: Mapping[str, Any] | Exception) -> None:
        if isinstance(outcome, Exception):
            if not isinstance(outcome, _FAILURES) or job.weights is None:
                raise outcome
            outcome = {"status": f"{FAILED}{outcome or type(outcome).__name__}"}
        self.traces = max(self.traces, outcome.get("traces", 0))
        if job.weights is None:
            keys = ("status", "zipf", "weak", "histogram", "spread", "effective_rank", "seconds",
                    "facts")
            self._writer.write("control", repeat=job.repeat,
                               **{key: outcome[key] for key in keys if key in outcome})
            return
        candidate = _candidate(job, outcome, self._failed_fitness)
        self._writer.write("candidate", **journal_lib.candidate_record(candidate))
        # As it was written, so that a resumed search goes on with the same values.
        candidate = self._journal.get(*candidate.place, candidate.repeat)
        if not candidate.ok:
            logging.warning("candidate %d of generation %d %s", *candidate.place[::-1],
                            candidate.status)
        for watcher in self._watchers:
            watcher.on_candidate(self._journal, candidate, outcome.get("clusters"))


def _candidate(job: Job, outcome: Mapping[str, Any], failed_fitness: float) -> Candidate:
    """What a worker says of a candidate, with a finite fitness whatever it says."""
    assert job.weights is not None  # a control is no candidate
    status = outcome.get("status", OK)
    fitness = float(outcome["fitness"]) if status == OK else math.nan
    if status == OK and not -math.inf < fitness < failed_fitness:
        status = f"fitness is {fitness}, not a number below {failed_fitness}"
    if status != OK and not status.startswith(FAILED):
        status = FAILED + status

    def number(name: str) -> float | None:
        value = outcome.get(name)
        return float(value) if value is not None and math.isfinite(value) else None

    return Candidate(
        generation=job.generation, index=job.index, repeat=job.repeat, weights=job.weights,
        fitness=fitness if status == OK else failed_fitness, status=status,
        zipf=number("zipf"), weak=number("weak"), losses=dict(outcome.get("losses", {})),
        histogram=tuple(np.asarray(outcome.get("histogram", ()), np.float64).tolist()),
        spread=number("spread"), effective_rank=number("effective_rank"),
        seconds=dict(outcome.get("seconds", {})), worker=outcome.get("worker", ""))


def _verdict(writer: JournalWriter) -> dict[str, Any]:
    found = choice.verdict(writer.journal)
    if found is None:
        reasons = [c.status.removeprefix(FAILED) for c in writer.journal.candidates]
        common = max(set(reasons), key=reasons.count)
        raise UserError(
            f"all {len(reasons)} candidates of {writer.path} failed, most of them so: {common}. "
            "Train longer proxies, check the data, or widen the guards (check_features in gin)")
    return found


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
    if dict(candidate.weights) == dict(weights):
        return
    name = next(n for n in weights if candidate.weights[n] != weights[n])
    raise UserError(
        f"{path}: candidate {candidate.index} of generation {candidate.generation} has "
        f"{candidate.weights[name]!r} for {name}, but the strategy now proposes "
        f"{weights[name]!r}. The search cannot be resumed by this version of the program or of "
        "its libraries; use a new --run_dir")
