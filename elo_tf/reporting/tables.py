"""The paper's tables with our figures beside its own, read from what the programs left.

What does not exist yet is left out; a method that failed or was not run says why. What the numbers
say is in `tables_findings`.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import gin

from elo_tf.errors import UserError
from elo_tf.evaluation import paper
from elo_tf.reporting import tables_findings
from elo_tf.reporting.scores import Score, plural, scored

EVALUATION = "evaluation.json"
DATA = "data.json"
STATIC = "static"
# Columns of the paper's Table 1, and what else frozen features are scored by.
MAIN = {"kmeans": "k-means", "linear": "1-layer", "finetune": "fine-tune"}
OTHER = {"kmeans_majority": "k-means, majority", "kmeans_nmi": "NMI", "kmeans_ari": "ARI",
         "knn": "nearest neighbours", "retrieval@1": "R@1", "retrieval@5": "R@5",
         "retrieval@20": "R@20", "few_shot@1": "1-shot", "few_shot@5": "5-shot"}
# Name -> title: the rows of the paper's tables in its order, and those of related work.
METHODS = {
    "scratch": "Scratch", "imagenet": "ImageNet", "kinetics": "Kinetics, with labels",
    "reconstruct": "Reconstruction", "frame_shuffle": "Frame shuffle",
    "reverse_detection": "Reverse detection",
    "audio_rgb_align": "Audio/RGB align", "rgb_to_flow": "RGB to flow",
    "predict_4_frames": "Predicting 4 frames", "joint_embedding": "Joint embedding",
    "random_loss": "Random loss", "equal_weights": "Equal weights",
    "uncertainty": "Uncertainty weighting",
    "elo_no_distillation": "ELo without distillation", "elo_weak": "ELo-weak", "elo": "ELo",
    "shuffle_and_learn": "Shuffle and Learn", "o3n": "O3N", "opn": "OPN", "patch": "Patch",
    "multisensory": "Multisensory", "avts": "AVTS", "jigsaw": "Jigsaw",
    "relative_patch": "Relative patch position"}

SEARCHES = MappingProxyType({
    "elo": "docs/results/mini/search/elo/best_loss.gin",
    "elo_weak": "docs/results/mini/search/elo_weak/best_loss.gin",
    "elo_no_distillation": "docs/results/mini/search/elo_no_distillation/best_loss.gin"})
CLIPS = MappingProxyType({"unlabelled": 1200, "train": 480, "test": 800})


@gin.register("tables")
@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compared, and on what.

    Attributes:
      title: of the table.
      rows: the methods, by the names of their files in gin/papers/elo_cvpr2020.
      seeds: of the pre-training; all rows with the first seed come first.
      searches: the loss that a searched method is trained with, by method: the best_loss.gin of a
        search; relative paths begin at the project's folder.
      curve_rows: methods of which accuracy is measured against the number of labels (Figure 5).
      heldout: shares of the unlabelled clips, in percent, that ELo is kept from, to see what their
        number is worth (Figure 6).
      static: whether all is scored once more on clips of which every frame is the middle one.
      clips: videos to make where no data are given, by split.
      classes: of these.
      fps: frames a second that are stored of videos that are given.
      min_side: pixels of the shorter side, likewise.
      region: the part of the picture, likewise: see --region of tools/convert_videos.
    """

    title: str = "The methods of the paper's tables"
    rows: Sequence[str] = tuple(METHODS)
    seeds: Sequence[int] = (1,)
    searches: Mapping[str, str] = dataclasses.field(default_factory=lambda: SEARCHES)
    curve_rows: Sequence[str] = tuple(paper.TABLE_3)
    heldout: Sequence[int] = (95, 80, 60, 20)
    static: bool = False
    clips: Mapping[str, int] = dataclasses.field(default_factory=lambda: CLIPS)
    classes: int = 8
    fps: float = 12.0
    min_side: int = 32
    region: Sequence[float] | None = None

    def __post_init__(self):
        for name in ("rows", "curve_rows"):
            unknown = [x for x in getattr(self, name) if x not in METHODS]
            if unknown:
                raise UserError(f"tables.{name} names {unknown[0]!r}; the methods are: "
                                + ", ".join(METHODS))
        if not self.rows or not self.seeds:
            raise UserError("tables.rows and tables.seeds must not be empty")
        wrong = [x for x in self.heldout if not 0 <= x < 100]
        if wrong:
            raise UserError(f"tables.heldout holds {wrong[0]}; it is a share in percent, below 100")


@dataclasses.dataclass(frozen=True)
class Curve:
    """Accuracy of a method against a number of clips.

    Attributes:
      name: of the method.
      protocol: "linear" or "finetune".
      clips: [n].
      scores: [n], over seeds of the pre-training.
    """

    name: str
    protocol: str
    clips: tuple[int, ...]
    scores: tuple[Score, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the tables.

    Attributes:
      name: of the method.
      title: as people say it.
      scores: by protocol, over seeds of the pre-training; each value is itself a mean over the
        evaluation's seeds and splits.
      static: the same, where the middle frame takes the place of all.
      why_not: why there is nothing, or not all of it.
    """

    name: str
    title: str
    scores: Mapping[str, Score] = dataclasses.field(default_factory=dict)
    static: Mapping[str, Score] = dataclasses.field(default_factory=dict)
    why_not: str = ""


@dataclasses.dataclass(frozen=True)
class Tables:
    """What there is.

    Attributes:
      plan: what was to be compared.
      rows: of all methods of the plan.
      label_curves: accuracy against labelled clips (Table 3, Figure 5).
      unlabelled_curve: 1-layer accuracy of ELo against unlabelled clips (Figure 6), or None.
      evaluations: what each evaluation.json holds, by `<row>-<seed>`.
    """

    plan: Plan
    rows: tuple[Row, ...]
    label_curves: tuple[Curve, ...]
    unlabelled_curve: Curve | None
    evaluations: Mapping[str, Mapping[str, Any]]

    @property
    def first(self) -> Mapping[str, Any] | None:
        """An evaluation, for what all have in common."""
        return next(iter(self.evaluations.values()), None)


def run_name(row: str, seed: int, *, static: bool = False, heldout: int | None = None) -> str:
    """The folder, below `pretrain/` and `evaluate/`, of one training and its evaluation."""
    kept = "" if heldout is None else f"-heldout{heldout}"
    return f"{row}{kept}-{seed}" + (f"-{STATIC}" if static else "")


def read_tables(folder: str | os.PathLike, plan: Plan,
                why_not: Mapping[str, str] = MappingProxyType({})) -> Tables:
    """Reads `evaluate/<row>-<seed>/` of all rows and seeds.

    Args:
      folder: run_dir of bin/tables.
      plan: what is compared.
      why_not: reasons for what is missing, by row.

    Raises:
      UserError: a file is there but cannot be read.
    """
    folder = pathlib.Path(folder)
    evaluations: dict[str, dict[str, Any]] = {}

    def found(row: str, **options: Any) -> list[dict[str, Any]]:
        names = [run_name(row, seed, **options) for seed in plan.seeds]
        known = {name: x for name in names
                 if (x := _read(folder / "evaluate" / name / EVALUATION)) is not None}
        evaluations.update(known)
        return list(known.values())

    rows, curves = [], []
    for name in plan.rows:
        own = found(name)
        rows.append(Row(name, METHODS[name], _scores(own), _scores(found(name, static=True)),
                        why_not.get(name, "")))
        curves += _label_curves(name, own)
    counts = (_read(folder / DATA) or {}).get("fit", {})
    points = [(counts[str(x)], score["linear"]) for x in plan.heldout
              if (score := _scores(found("elo", heldout=x))) and str(x) in counts]
    unlabelled = None
    if points:
        clips, scores = zip(*sorted(points, key=lambda x: x[0]), strict=True)
        unlabelled = Curve("elo", "linear", clips, scores)
    return Tables(plan, tuple(rows), tuple(curves), unlabelled, evaluations)


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder and run bin/tables again, "
                        "which makes it anew") from error


def _scores(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
    values: dict[str, list[float]] = {}
    for evaluation in evaluations:
        for row in evaluation["rows"]:
            if row["network"] == "trained":
                values.setdefault(row["protocol"], []).append(row["mean"])
    return {protocol: score for protocol, x in values.items()
            if (score := Score.of(x)) is not None}


def _label_curves(name: str, evaluations: Sequence[Mapping[str, Any]]) -> list[Curve]:
    values: dict[str, dict[int, list[float]]] = {}
    for evaluation in evaluations:
        for curve in evaluation.get("curves") or ():
            if curve["network"] == "trained":
                own = values.setdefault(curve["protocol"], {})
                for clips, mean in zip(curve["clips"], curve["mean"], strict=True):
                    own.setdefault(clips, []).append(mean)
    return [Curve(name, protocol, tuple(sorted(x)), tuple(
        score for n in sorted(x) if (score := Score.of(x[n])) is not None))
            for protocol, x in values.items()]


def as_json(tables: Tables, notes: Sequence[str] = ()) -> dict[str, Any]:
    """All values, as `tables.json` holds them."""
    unlabelled = tables.unlabelled_curve
    return {
        "title": tables.plan.title, "scale": list(notes), "seeds": list(tables.plan.seeds),
        "rows": [dataclasses.asdict(row) | {"paper": _paper(row.name)} for row in tables.rows],
        "label_curves": [dataclasses.asdict(x) for x in tables.label_curves],
        "unlabelled_curve": unlabelled and dataclasses.asdict(unlabelled),
        "findings": tables_findings.findings(tables), "evaluations": tables.evaluations}


def _paper(name: str) -> dict[str, Any]:
    """The paper's figures of a method, in percent."""
    return {"table_1": paper.TABLE_1.get(name), "table_2": paper.TABLE_2.get(name),
            "table_3": paper.TABLE_3.get(name)}


def as_markdown(tables: Tables, notes: Sequence[str] = ()) -> str:
    """The tables and what they say.

    Args:
      tables: to be shown.
      notes: sentences on scale, before the first table.
    """
    lines = [f"# {tables.plan.title}", "", *(f"{x}\n" for x in notes)]
    for title, text in ((("Frozen, and with one frame alone", _static_table) if tables.plan.static
                         else ("Table 1", _table_1)), ("Table 2", _table_2),
                        ("Other measures of frozen features", _other_table),
                        ("Table 3: accuracy by labelled clips", _table_3),
                        ("Accuracy by unlabelled clips", _unlabelled_table)):
        shown = text(tables)
        if shown:
            lines += [f"## {title}", "", *shown, ""]
    lines += _legend(tables)
    lines += ["## What holds", "", *(f"- {x}" for x in tables_findings.findings(tables))]
    if not tables.evaluations:
        lines.append("Nothing is measured yet.")
    return "\n".join(lines) + "\n"


def _legend(tables: Tables) -> list[str]:
    known = tables.first
    if known is None:
        return []
    seeds = ("One pre-training each: no spread is known." if len(tables.plan.seeds) == 1 else
             "Means ± standard deviations over "
             f"{plural(len(tables.plan.seeds), 'pre-training')} that differ by their seed.")
    return [f"Accuracy on {plural(known['test_clips'], 'clip')} of "
            f"{plural(len(known['classes']), 'class', 'classes')}, chance {known['chance']:.1%}. "
            f"{seeds}", ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|",
            *("| " + " | ".join(row) + " |" for row in rows)]


def _named(row: Row) -> str:
    return row.title + (f" ({row.why_not})" if row.why_not else "")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}%"


def _table_1(tables: Tables) -> list[str]:
    """The main protocols of all methods, with the paper's where it has them."""
    nothing = (None,) * len(MAIN)
    return _table(
        ("method", *MAIN.values(), *(f"the paper, {x}" for x in MAIN.values())),
        [(_named(row), *(scored(row.scores.get(x)) for x in MAIN),
          *map(_percent, paper.TABLE_1.get(row.name, nothing))) for row in tables.rows])


def _table_2(tables: Tables) -> list[str]:
    """Fine-tuning, of the paper's rows."""
    rows = [row for row in tables.rows if row.name in paper.TABLE_2]
    if tables.plan.static or not any("finetune" in row.scores for row in rows):
        return []
    return _table(
        ("method", "fine-tune", "the paper, HMDB51", "the paper, UCF101"),
        [(row.title, scored(row.scores.get("finetune")), *map(_percent, paper.TABLE_2[row.name]))
         for row in rows])


def _static_table(tables: Tables) -> list[str]:
    """The main protocols, and those that a single frame allows."""
    def cells(get: Callable[[Row], Mapping[str, Score]], row: Row, names: Sequence[str]):
        return (scored(get(row).get(x)) for x in names)

    alone = [x for x in MAIN if any(x in row.static for row in tables.rows)]
    return _table(
        ("method", *MAIN.values(), *(f"one frame, {MAIN[x]}" for x in alone)),
        [(_named(row), *cells(lambda r: r.scores, row, list(MAIN)),
          *cells(lambda r: r.static, row, alone)) for row in tables.rows])


def _other_table(tables: Tables) -> list[str]:
    names = [x for x in OTHER if any(x in row.scores for row in tables.rows)]
    if not names:
        return []
    # The adjusted Rand index and the mutual information are no shares.
    forms = {x: ".3f" if x in ("kmeans_nmi", "kmeans_ari") else ".1%" for x in names}
    return _table(("method", *(OTHER[x] for x in names)),
                  [(row.title, *(scored(row.scores.get(x), forms[x]) for x in names))
                   for row in tables.rows if row.scores])


def _table_3(tables: Tables) -> list[str]:
    """A line for each curve, and below it the paper's, which has other numbers of clips."""
    lines = []
    for protocol in MAIN:
        curves = [x for x in tables.label_curves if x.protocol == protocol]
        if curves:
            clips = sorted({n for x in curves for n in x.clips})
            lines += [*_table((f"{MAIN[protocol]}, labelled clips", *map(str, clips)), [
                (METHODS[x.name], *(scored(dict(zip(x.clips, x.scores, strict=True)).get(n))
                                    for n in clips)) for x in curves]), ""]
    if lines:
        lines += _table(("the paper, Kinetics", *(f"{n:,}" for n in paper.TABLE_3_CLIPS)), [
            (METHODS[name], *map(_percent, values)) for name, values in paper.TABLE_3.items()])
    return lines


def _unlabelled_table(tables: Tables) -> list[str]:
    curve = tables.unlabelled_curve
    if curve is None:
        return []
    return _table(("ELo, unlabelled clips", *map(str, curve.clips)),
                  [("1-layer", *map(scored, curve.scores))])
