"""Compares four strategies of search and draws the paper's Figure 9, at a mini scale.

    python -m elo_tf.bin.study --run_dir=study                      # on videos that it makes
    python -m elo_tf.bin.study --run_dir=study --data=/my/records   # on yours, with labels

CMA-ES, tournament selection, random search and a grid get the same number of candidates. Their
losses train final networks, as do three baselines: all weights equal, weights learned by
uncertainty, and no training at all. Figure 9 correlates Zipf fitness with weak fitness over losses
that were drawn at random.

First a candidate is measured, and the number of candidates is set to what --hours allow. Every step
is one of the project's programs, printed as you would type it. Run it again and it goes on where it
stopped. After each step, what there is so far is written to --results.
"""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

import gin
import numpy as np
from absl import flags

from elo_tf import cli, files
from elo_tf.bin import configuration
from elo_tf.errors import UserError
from elo_tf.reporting import study, study_figures
from elo_tf.search import forecast
from elo_tf.search.journal import Journal, read_journal
from elo_tf.search.search import BEST_LOSS
from elo_tf.search.space import SearchSpace
from elo_tf.training import encoder_files

configuration.define_data_flag()
RESULTS = flags.DEFINE_string(
    "results", "docs/results/study", "Folder for the table, the figures and the small files that "
    "they are made of.")
HOURS = flags.DEFINE_float(
    "hours", 1.0, "What the study may take; the number of candidates follows.", lower_bound=0.0)
RANDOM_LOSSES = flags.DEFINE_integer(
    "random_losses", 100, "Losses drawn at random in all, for Figure 9.", lower_bound=1)
FINAL_SEEDS = flags.DEFINE_integer(
    "final_seeds", 3, "Final trainings with each loss, which differ by their seed.", lower_bound=1)
WORKERS = flags.DEFINE_string(
    "workers", "0", "What evaluates candidates: as in bin/search. The results do not depend on it.")

GIN = "study.gin"
CLASSES = 8
BACKDROPS = 0.8
CLIPS = {"unlabelled": 1200, "train": 480, "test": 800}
CONVERTERS = 2
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


@dataclasses.dataclass(frozen=True)
class Step:
    """One program of the project.

    Attributes:
      title: what it does.
      command: its module and flags.
      product: a file that is only there when it is done.
    """

    title: str
    command: tuple[str, ...]
    product: pathlib.Path

    def run(self) -> bool:
        """Runs it unless it is done, and shows its output.

        Returns:
          Whether there was something to do.

        Raises:
          UserError: if it fails; it has then said why.
        """
        if self.product.exists():
            print(f"\n=== {self.title}: done before", flush=True)
            return False
        print(f"\n=== {self.title}\n$ python -m {shlex.join(self.command)}", flush=True)
        started = time.monotonic()
        code = subprocess.run([sys.executable, "-m", *self.command],
                              cwd=configuration.ROOT).returncode
        if code:
            raise UserError(f"the step '{self.title}' ended with exit code {code}; what it printed "
                            "is above, and the same command goes on from there")
        print(f"    {time.monotonic() - started:.0f} s", flush=True)
        return True


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
        videos = self.run_dir / "videos"
        clips = ",".join(f"{split}:{count}" for split, count in CLIPS.items())
        yield Step("make videos whose classes differ by motion and by where they happen", (
            "tools.make_videos", f"--output={videos}", f"--clips={clips}", f"--classes={CLASSES}",
            f"--backdrops={BACKDROPS}", "--size=40", "--seconds=2.5", "--fps=12",
            f"--workers={CONVERTERS}"), self.run_dir / BUDGET)
        for split in CLIPS:
            yield Step(f"convert {split} videos to records", (
                "tools.convert_videos", f"--input={videos / f'{split}.csv'}",
                f"--output={self._data}", f"--split={split}", "--fps=12", "--min_side=32",
                "--flow=dis", f"--workers={CONVERTERS}"), self.run_dir / BUDGET)

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
        losses = {name: (self.run_dir / "search" / name / BEST_LOSS, ())
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


def main(argv: list[str]) -> None:
    """Runs all steps."""
    del argv
    if not configuration.GIN_FILE.value:
        flags.FLAGS.gin_file = [GIN]
    gin_flags = (*(f"--gin_file={_absolute(x)}" for x in configuration.GIN_FILE.value),
                 *(f"--gin_bindings={x}" for x in configuration.GIN_BINDINGS.value))
    run_dir = configuration.start(inputs={
        x.name: x.value for x in (HOURS, RANDOM_LOSSES, FINAL_SEEDS)}).resolve()
    own = flags.FLAGS.data
    data = pathlib.Path(own).expanduser().resolve() if own else run_dir / "records"
    results = pathlib.Path(RESULTS.value).resolve()
    steps = Steps(run_dir, data, gin_flags, WORKERS.value)
    if not own:
        for step in steps.data():
            step.run()
    workers = max(1, int(WORKERS.value)) if WORKERS.value.isdigit() else 1
    steps.measure(workers).run()
    budget = decide(run_dir, workers, HOURS.value)
    print("\n" + "\n".join(budget.sentences()), flush=True)
    equal = run_dir / "equal_loss.gin"
    write_equal_loss(equal)
    for step in (*steps.searches(budget), *steps.final(FINAL_SEEDS.value, equal)):
        if step.run():
            write_results(run_dir, results, budget)
    write_results(run_dir, results, budget)
    configuration.finish(run_dir)
    print("\n" + "\n".join(study.findings(study.read_study(run_dir))))
    print(f"\nThe table: {results / 'table.md'}")


def decide(run_dir: pathlib.Path, workers: int, hours: float) -> Budget:
    """The budget of a study: decided from its measured candidates once, and then kept."""
    path = run_dir / BUDGET
    if not path.exists():
        measured = read_journal(run_dir / "search" / "measure" / study.JOURNAL)
        budget = measured_budget(
            measured, workers=workers, population=_asked("CMAES.population"),
            repeats=_asked("search.leaders") * _asked("search.repeats"),
            final_steps=_asked("pretrain.steps"),
            trainings=FINAL_SEEDS.value * (len(study.STRATEGIES) + 2),
            random_losses=RANDOM_LOSSES.value)
        files.write_atomic(path, json.dumps(dataclasses.asdict(budget.within(hours)), indent=1))
    return Budget(**json.loads(path.read_text(encoding="utf-8")))


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


def write_equal_loss(path: pathlib.Path) -> None:
    """The loss of which all searched weights are 1, as a gin file for bin/pretrain."""
    space = gin.get_configurable(SearchSpace)()
    weights = space.weights(np.ones(len(space.searched)))
    lines = "".join(f"    {name!r}: {weight!r},\n" for name, weight in weights.items())
    files.write_atomic(path, f"pretrain.loss_weights = {{\n{lines}}}\n")


def write_results(run_dir: pathlib.Path, results: pathlib.Path, budget: Budget) -> None:
    """Writes what there is so far: table.md, study.json, figures, and what they are made of."""
    found = study.read_study(run_dir)
    notes = scale(found.journals) + budget.sentences()
    files.write_atomic(results / "table.md", study.as_markdown(found, notes))
    files.write_atomic(results / "study.json", json.dumps(
        study.as_json(found) | {"scale": notes, "budget": dataclasses.asdict(budget)},
        indent=1) + "\n")
    for name, drawn in study_figures.draw(found).items():
        files.write_atomic(results / f"{name}.svg", drawn)
    for name in found.journals:
        journal = (run_dir / "search" / name / study.JOURNAL).read_text(encoding="utf-8")
        # The names of machines are left out.
        files.write_atomic(results / name / study.JOURNAL,
                           re.sub(r'("worker":")[^":]*', r"\1host", journal))
        _copy(run_dir / "search" / name / BEST_LOSS, results / name / BEST_LOSS)
    for path in (run_dir / "evaluate").glob(f"*/{study.EVALUATION}"):
        name, _, seed = path.parent.name.rpartition("-")
        _copy(path, results / name / f"evaluation-{seed}.json")


def scale(journals: Mapping[str, Journal]) -> list[str]:
    """A sentence on what is compared, from the configuration."""
    costs = [x.forecast for x in journals.values() if x.forecast]
    if not costs:
        return []
    clip = {name: _asked(f"ClipSpec.{name}") for name in ("frames", "size", "fps")}
    searched = len(next(iter(journals.values())).header["searched"])
    return [
        f"{searched} weights are searched; clips have {clip['frames']} frames of {clip['size']} x "
        f"{clip['size']} pixels, {clip['fps']:g} a second; a candidate trains "
        f"{costs[0]['steps']} steps of {costs[0]['batch_size']} clips, a final network "
        f"{_asked('pretrain.steps')} of {_asked('pretrain.batch_size')}, on "
        f"{os.cpu_count()} CPU cores."]


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    if source.exists():
        files.write_atomic(target, source.read_text(encoding="utf-8"))


def _asked(parameter: str) -> int:
    """A number of the configuration.

    Raises:
      UserError: it is not set, or not a number.
    """
    value = gin.query_parameter(parameter)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{parameter} is {value!r}; the study needs a number")
    return value


def _absolute(path: str) -> str:
    """A gin file as every program finds it: one of the project's keeps its name."""
    found = pathlib.Path(path)
    return str(found.resolve()) if found.is_file() else path


if __name__ == "__main__":
    cli.run(main)
