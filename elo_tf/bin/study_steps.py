"""What a study does: its budget, and its steps, each one of the project's programs."""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from elo_tf.bin import steps
from elo_tf.bin.steps import Step
from elo_tf.errors import UserError
from elo_tf.reporting import study
from elo_tf.search import forecast
from elo_tf.search.journal import Journal
from elo_tf.search.search import BEST_LOSS
from elo_tf.training import encoder_files

CLASSES = 8
CLIPS = {"unlabelled": 1200, "train": 480, "test": 800}
BUDGET = "budget.json"
FEWEST_GENERATIONS, MOST_GENERATIONS = 2, 250
MEASURED = 2  # candidates for each worker
STARTUP = 20.0  # seconds in which a program imports, reads and writes (our estimate)
# The strategy's class, whose population is set, by the name of its gin file.
CLASS_OF = {"cma_es": "CMAES", "tournament": "Tournament", "grid": "Grid",
            "random": "RandomSearch"}


@dataclasses.dataclass(frozen=True)
class Budget:
    """What the study does, decided once from what a candidate was measured to take.

    Attributes:
      seconds: wall time a candidate, with all workers at work.
      startup: wall time of a search before its first candidate.
      training: wall time of a final training and its evaluation.
      trainings: how many of these there are.
      population: candidates a generation, of every strategy.
      generations: of every strategy.
      repeats: evaluations of leaders a search.
      random_losses: drawn at random in all.
    """

    seconds: float
    startup: float
    training: float
    trainings: int
    population: int
    repeats: int
    random_losses: int
    generations: int = FEWEST_GENERATIONS

    @property
    def candidates(self) -> int:
        """Of each strategy."""
        return self.population * self.generations

    @property
    def more_random(self) -> int:
        """Losses that are drawn beside those of the random search."""
        return max(0, self.random_losses - self.candidates)

    @property
    def evaluations(self) -> int:
        """Candidates and repeats of the whole study."""
        return len(study.STRATEGIES) * (self.candidates + self.repeats) + self.more_random

    @property
    def hours(self) -> float:
        """Of the whole study."""
        searches = len(study.STRATEGIES) + bool(self.more_random)
        return (self.evaluations * self.seconds + searches * self.startup
                + self.trainings * self.training) / 3600

    def within(self, hours: float) -> "Budget":
        """The same with as many generations as these hours allow, and two at least."""
        generations = self.generations
        while generations < MOST_GENERATIONS and dataclasses.replace(
                self, generations=generations + 1).hours <= hours:
            generations += 1
        return dataclasses.replace(self, generations=generations)

    def sentences(self) -> list[str]:
        """What will be done and what it takes."""
        return [
            f"A candidate takes {self.seconds:.1f} s. {len(study.STRATEGIES)} searches of "
            f"{self.candidates} candidates ({self.generations} generations of {self.population}) "
            f"and {self.repeats} repeats, and {self.more_random} more random losses: "
            f"{self.evaluations} x {self.seconds:.1f} s = "
            f"{forecast.duration(self.evaluations * self.seconds)}.",
            f"{self.trainings} final trainings of about {forecast.duration(self.training)}. "
            f"In all about {forecast.duration(3600 * self.hours)}."]


class Steps:
    """The steps of a study in a folder."""

    def __init__(self, run_dir: pathlib.Path, data: pathlib.Path, gin_flags: tuple[str, ...],
                 workers: str = "0"):
        """Names the folder.

        Args:
          run_dir: of everything.
          data: folder of records.
          gin_flags: --gin_file and --gin_bindings of every program.
          workers: of every search.
        """
        self.run_dir = run_dir
        self._data = data
        self._common = (f"--data={data}", *gin_flags)
        self._workers = f"--workers={workers}"

    def data(self) -> Iterator[Step]:
        """Videos of classes that differ by motion and mostly by place, and their records."""
        yield from steps.motion_videos(self.run_dir / "videos", self._data, self.run_dir / BUDGET,
                                       clips=CLIPS, classes=CLASSES)

    def search(self, name: str, title: str, strategy: str, population: int, generations: int,
               *bindings: str) -> Step:
        """A search in the folder `search/<name>`."""
        run_dir = self.run_dir / "search" / name
        bindings = (f"{CLASS_OF[strategy]}.population = {population}",
                    f"search.generations = {generations}", *bindings)
        return Step(title, (
            "elo_tf.bin.search", *self._common, f"--gin_file=search/{strategy}.gin",
            *(f"--gin_bindings={x}" for x in bindings), self._workers, f"--run_dir={run_dir}"),
            run_dir / BEST_LOSS)

    def measure(self, workers: int) -> Step:
        """A few random losses, to see what one takes; they count for nothing else."""
        return self.search("measure", "measure what a candidate takes", "random",
                           MEASURED * workers, 1, *_NO_LEADERS)

    def searches(self, budget: Budget) -> Iterator[Step]:
        """All strategies, the random one first, and what Figure 9 needs beside it."""
        for name in ("random", "cma_es", "tournament", "grid"):
            yield self.search(name, f"search by {study.STRATEGIES[name][0]}", name,
                              budget.population, budget.generations)
        if budget.more_random:
            yield self.search(study.MORE_RANDOM, "more random losses, for Figure 9", "random",
                              budget.more_random, 1, "RandomSearch.seed = 2", *_NO_LEADERS)

    def final(self, seeds: int, equal: pathlib.Path) -> Iterator[Step]:
        """Final trainings and evaluations, of all losses by seed.

        Args:
          seeds: how many.
          equal: gin file of the loss whose weights are all equal.
        """
        losses: dict[str, tuple[pathlib.Path, tuple[str, ...]]] = {
            name: (self.run_dir / "search" / name / BEST_LOSS, ())
            for name in study.STRATEGIES}
        losses[study.UNIFORM] = (equal, ())
        losses[study.UNCERTAINTY] = (equal, ("PretrainingModel.weighting = 'uncertainty'",))
        for seed in range(1, seeds + 1):
            for name, (loss, bindings) in losses.items():
                title = study.BASELINES.get(name) or study.STRATEGIES[name][0]
                pretrain = self.run_dir / "pretrain" / f"{name}-{seed}"
                evaluate = self.run_dir / "evaluate" / f"{name}-{seed}"
                yield Step(f"train a final network, seed {seed}: {title}", (
                    "elo_tf.bin.pretrain", *self._common, f"--gin_file={loss}",
                    *(f"--gin_bindings={x}" for x in (*bindings, f"pretrain.seed = {seed}")),
                    f"--run_dir={pretrain}"), pretrain / "encoder" / encoder_files.TRAINED)
                yield Step(f"evaluate it, seed {seed}: {title}", (
                    "elo_tf.bin.evaluate", *self._common, f"--encoder={pretrain / 'encoder'}",
                    f"--run_dir={evaluate}"), evaluate / study.EVALUATION)


_NO_LEADERS = ("search.leaders = 0", "search.repeats = 0")


def measured_budget(journal: Journal, *, workers: int, population: int, repeats: int,
                    final_steps: int, trainings: int, random_losses: int) -> Budget:
    """The least budget, with what a journal says of the time that its candidates took.

    Raises:
      UserError: no candidate was measured.
    """
    taken = [x.seconds["total"] for x in journal.candidates if x.ok]
    if not taken:
        raise UserError("every candidate that was measured has failed: "
                        + "; ".join(sorted({x.status for x in journal.candidates})))
    control = journal.controls[0].seconds
    startup = STARTUP + control["build"] + control["compile"]
    # A final training is started, and so is its evaluation.
    return Budget(
        seconds=float(np.mean(taken)) / workers, startup=startup,
        training=startup + STARTUP + final_steps * control["step"], trainings=trainings,
        population=population, repeats=repeats, random_losses=random_losses)
