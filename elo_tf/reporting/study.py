"""The study's results: searches by different strategies, what their losses are worth, and Figure 9.

Everything here is read from what the study's programs left in their folders, journals and
evaluations; what does not exist yet is left out. Every sentence follows from the numbers.
"""

import dataclasses
import itertools
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from elo_tf.errors import UserError
from elo_tf.reporting import search_statistics
from elo_tf.reporting.scores import Score, difference, plural, points, scored
from elo_tf.search import choice
from elo_tf.search.journal import Journal, read_journal

JOURNAL = "journal.jsonl"
EVALUATION = "evaluation.json"
PROTOCOLS = ("kmeans", "linear")
UNTRAINED, UNIFORM, UNCERTAINTY = "untrained", "uniform", "uncertainty"
# Name -> (title, accuracy on HMDB51 in the paper: Table 1 and its comparison of strategies).
STRATEGIES: dict[str, tuple[str, float]] = {
    "cma_es": ("CMA-ES", 0.674), "tournament": ("tournament selection", 0.614),
    "grid": ("grid", 0.573), "random": ("random search", 0.524)}
BASELINES = {UNIFORM: "all weights equal", UNCERTAINTY: "learned uncertainty weighting",
             UNTRAINED: "untrained network"}
# Of the random search, drawn for Figure 9 beside its own candidates.
MORE_RANDOM = "random_more"


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
      name: of the strategy or baseline.
      title: as people say it.
      candidates: that the search evaluated, without repeats; None for a baseline.
      ended: whether the search has ended; True for a baseline.
      fitness: of the chosen candidate over seeds other than the search's own, lower is better.
      weak: its accuracy by clusters named by labels, over the same seeds.
      accuracy: of the final networks' frozen features by protocol, over seeds of the training;
        each value is itself a mean over the evaluation's seeds.
      paper: the accuracy that the paper reports of the strategy, on HMDB51.
    """

    name: str
    title: str
    candidates: int | None = None
    ended: bool = True
    fitness: Score | None = None
    weak: Score | None = None
    accuracy: Mapping[str, Score] = dataclasses.field(default_factory=dict)
    paper: float | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """What there is of a study.

    Attributes:
      rows: of the strategies and of the baselines.
      journals: of the searches, by name.
      chance: accuracy of always naming the most frequent class; None before any evaluation.
      classes: of the labelled clips.
      correlation: of both fitness measures over the losses drawn at random (Figure 9); None
        before there are enough.
    """

    rows: tuple[Row, ...]
    journals: Mapping[str, Journal]
    chance: float | None
    classes: int | None
    correlation: search_statistics.Correlation | None

    @property
    def random_candidates(self) -> list:
        """The losses drawn at random of which both measures are known."""
        found = [self.journals[x] for x in ("random", MORE_RANDOM) if x in self.journals]
        return search_statistics.both_measured([c for j in found for c in j.candidates])


def read_study(folder: str | os.PathLike) -> Study:
    """Reads a study's folder: `search/<name>/`, and `evaluate/<name>-<seed>/` of final networks.

    Raises:
      UserError: a file is there but cannot be read.
    """
    folder = pathlib.Path(folder)
    journals = {}
    for name in (*STRATEGIES, MORE_RANDOM):
        journal = read_journal(folder / "search" / name / JOURNAL)
        if journal.header:
            journals[name] = journal
    evaluations = {name: _evaluations(folder, name) for name in (*STRATEGIES, *BASELINES)}
    known = [x for found in evaluations.values() for x in found]
    # The untrained network depends on the seed alone: the runs of one loss have them all.
    evaluations[UNTRAINED] = max(evaluations.values(), key=len)
    rows = [_strategy_row(name, journals.get(name), evaluations[name]) for name in STRATEGIES]
    rows += [Row(name, title, accuracy=_accuracy(
        evaluations[name], UNTRAINED if name == UNTRAINED else "trained"))
        for name, title in BASELINES.items()]
    study = Study(tuple(rows), journals, known[0]["chance"] if known else None,
                  len(known[0]["classes"]) if known else None, None)
    drawn = study.random_candidates
    return dataclasses.replace(study, correlation=search_statistics.rank_correlation(
        [x.zipf for x in drawn], [x.weak for x in drawn]))


def _evaluations(folder: pathlib.Path, name: str) -> list[dict[str, Any]]:
    found = []
    for path in sorted((folder / "evaluate").glob(f"{name}-*/{EVALUATION}")):
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): delete its folder and start the study "
                            "again, which makes it anew") from error
    return found


def _accuracy(evaluations: Sequence[Mapping[str, Any]], network: str) -> dict[str, Score]:
    values = {protocol: [row["mean"] for x in evaluations for row in x["rows"]
                         if (row["network"], row["protocol"]) == (network, protocol)]
              for protocol in PROTOCOLS}
    return {protocol: score for protocol, x in values.items() if (score := Score.of(x))}


def _strategy_row(name: str, journal: Journal | None,
                  evaluations: Sequence[Mapping[str, Any]]) -> Row:
    title, paper = STRATEGIES[name]
    row = Row(name, title, paper=paper, ended=False, accuracy=_accuracy(evaluations, "trained"))
    if journal is None:
        return row
    leading = choice.front_runner(journal)
    again = [x for x in journal.repeats_of(leading[0]) if x.ok] if leading else []
    return dataclasses.replace(
        row, candidates=len(journal.candidates), ended=journal.end is not None,
        fitness=Score.of([x.fitness for x in again]),
        weak=Score.of([x.weak for x in again if x.weak is not None]))


def findings(study: Study) -> list[str]:
    """What the numbers say, in sentences; nothing of what is not measured yet."""
    return [*_of_strategies(study), *_of_baselines(study), *_of_fitness(study)]


def _of_strategies(study: Study) -> list[str]:
    """Each pair of strategies beside the paper's order, by accuracy and by the search's own."""
    rows = [row for row in study.rows if row.name in STRATEGIES]
    said = []
    for what, scores, sign in (
            ("linear accuracy of the final network", {
                r.name: r.accuracy["linear"] for r in rows if "linear" in r.accuracy}, 1),
            ("fitness of the chosen loss with other seeds", {
                r.name: r.fitness for r in rows if r.fitness and r.ended}, -1)):
        pairs = list(itertools.combinations([r for r in rows if r.name in scores], 2))
        outcomes: dict[int, list[str]] = {1: [], 0: [], -1: []}
        for better, worse in pairs:  # STRATEGIES is in the paper's order
            outcome = sign * difference(scores[better.name], scores[worse.name])
            outcomes[outcome].append(f"{better.title} and {worse.title}" if not outcome else
                                     f"{better.title} over {worse.title}" if outcome > 0 else
                                     f"{worse.title} over {better.title}")
        if pairs:
            parts = [f"{label}: {', '.join(outcomes[outcome])}" for outcome, label in (
                (1, "as in the paper"), (-1, "the other way round"), (0, "no difference"))
                if outcomes[outcome]]
            said.append(f"By {what}, of {plural(len(pairs), 'pair')} of strategies "
                        f"{len(outcomes[1])} differ as in the paper, {len(outcomes[-1])} the other "
                        f"way round, {len(outcomes[0])} not at all ({'; '.join(parts)}).")
    return said


def _of_baselines(study: Study) -> list[str]:
    """Each searched loss against what needs no search."""
    scored = {row.name: row for row in study.rows if "linear" in row.accuracy}
    said = []
    for row in (scored[name] for name in STRATEGIES if name in scored):
        words: dict[str, list[str]] = {}
        for other in (scored[name] for name in BASELINES if name in scored):
            ours, theirs = row.accuracy["linear"], other.accuracy["linear"]
            verdict = {1: "better than", -1: "worse than", 0: "no different from"}[
                difference(ours, theirs)]
            words.setdefault(verdict, []).append(
                f"{other.title} ({points(ours.mean - theirs.mean)})")
        if words:
            listed = "; ".join(f"{verdict} {', '.join(x)}" for verdict, x in words.items())
            said.append(f"The network of {row.title}, by linear accuracy, is {listed}.")
    return said


def _of_fitness(study: Study) -> list[str]:
    """Figure 9, and where the chosen losses lie among those drawn at random."""
    said = []
    found = study.correlation
    if found is not None:
        verdict = ("they order losses alike" if found.low > 0 else
                   "they order losses the opposite way" if found.high < 0 else
                   "no correlation is shown")
        said.append(
            f"Figure 9: over {found.n} losses drawn at random, the rank correlation of Zipf "
            f"fitness with weak fitness is {found.rho:+.2f} (95% interval {found.low:+.2f} to "
            f"{found.high:+.2f}, p = {found.p:.2g}): {verdict}. The paper: "
            f"{search_statistics.PAPER_RHO:+.2f}, which is "
            + ("inside" if found.low <= search_statistics.PAPER_RHO <= found.high else "outside")
            + " this interval.")
    drawn = study.random_candidates
    if drawn:
        median = float(np.median([x.weak for x in drawn]))
        control = study.journals["random"].controls.get(0) if "random" in study.journals else None
        text = f"Weak accuracy of the median random loss: {median:.1%}"
        if control is not None and control.weak is not None:
            better = sum(x.weak > control.weak for x in drawn)
            text += (f"; of the untrained network: {control.weak:.1%}, which {better} of "
                     f"{plural(len(drawn), 'random loss', 'random losses')} surpass")
        said.append(text + ".")
    return said


def as_json(study: Study) -> dict[str, Any]:
    """The table, the correlation and the findings, as `study.json` holds them."""
    found = study.correlation
    return {
        "rows": [dataclasses.asdict(row) for row in study.rows], "chance": study.chance,
        "classes": study.classes,
        "figure_9": None if found is None else
        dataclasses.asdict(found) | {"paper_rho": search_statistics.PAPER_RHO},
        "findings": findings(study)}


def as_markdown(study: Study, notes: Sequence[str] = ()) -> str:
    """The table and the findings.

    Args:
      study: to be shown.
      notes: sentences on scale and cost, before the table.
    """
    head = ("loss found by", "candidates", "fitness, other seeds", "weak, other seeds", "k-means",
            "linear", "the paper, HMDB51")
    lines = ["# Strategies compared, at a mini scale", "", *(f"{x}\n" for x in notes),
             "| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for row in study.rows:
        lines.append("| " + " | ".join((
            row.title + ("" if row.ended else " (not ended)"),
            "" if row.candidates is None else str(row.candidates),
            scored(row.fitness, ".4f"), scored(row.weak, ".1%"),
            *(scored(row.accuracy.get(p), ".1%") for p in PROTOCOLS),
            "" if row.paper is None else f"{row.paper:.1%}")) + " |")
    seeds = max((x.n for row in study.rows for x in row.accuracy.values()), default=0)
    lines += ["", "Fitness is the divergence from Zipf's law, lower is better; the rest is "
              "accuracy. Means ± standard deviations; of k-means and linear over "
              f"{plural(seeds, 'final training')}, each with a seed of its own."
              + ("" if study.chance is None else
                 f" {study.classes} classes, chance {study.chance:.1%}.")
              + " The paper's figures are of another scale: a ResNet-50 trained on two million "
              "videos and fine-tuned on HMDB51.", "",
              "Two means are said to differ only where they do by more than sqrt(s1² + s2²), s "
              "being the standard deviations over seeds.", "", "## What holds", ""]
    lines += [f"- {x}" for x in findings(study)] or ["Nothing is measured yet."]
    return "\n".join(lines) + "\n"


def best_so_far(journal: Journal) -> list[float]:
    """The least fitness after each candidate, in the order asked; NaN before the first that ran."""
    values = [x.fitness if x.ok else math.inf for x in journal.candidates]
    best = np.minimum.accumulate(values) if values else np.empty(0)
    return [float(x) if math.isfinite(x) else math.nan for x in best]
