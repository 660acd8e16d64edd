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
from collections.abc import Mapping

import gin
import numpy as np
from absl import flags

from elo_tf import cli, files
from elo_tf.bin import configuration
from elo_tf.bin.study_steps import BUDGET, Budget, Steps, measured_budget
from elo_tf.errors import UserError
from elo_tf.reporting import study, study_figures
from elo_tf.search.journal import Journal, read_journal
from elo_tf.search.search import BEST_LOSS
from elo_tf.search.space import SearchSpace

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
