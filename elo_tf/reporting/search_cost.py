"""The report's section on time: what a candidate costs, what was forecast, where the time went."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from elo_tf.reporting import page
from elo_tf.reporting.page import Markup
from elo_tf.search.candidate import Candidate
from elo_tf.search.forecast import PAPER_GPUS, PAPER_HOURS, duration
from elo_tf.search.journal import Journal

TITLE = "Time"
PARTS = (("train", "training steps"), ("features", "features"), ("cluster", "clustering"),
         ("weak", "weak supervision"))
USEFUL = ("train", "features")


def cost(journal: Journal | None) -> Markup:
    """The section."""
    timed = [x for x in journal.candidates if x.seconds.get("total")] if journal else []
    parts = []
    if journal is not None and (timed or journal.forecast):
        parts.append(_line(journal, timed))
    if timed:
        parts += _shares(timed)
    return page.section(TITLE, *parts or [page.note("No times of a search were found.")])


def _line(journal: Journal, timed: list[Candidate]) -> Markup:
    """The cost of a candidate: measured, forecast, and the paper's."""
    cost = journal.forecast or {}
    facts = journal.controls[0].facts if 0 in journal.controls else {}
    steps, batch = (cost.get(key, facts.get(key)) for key in ("steps", "batch_size"))
    parts: list[object] = []
    if timed:
        each = float(np.median([x.seconds["total"] for x in timed]))
        parts += ["A candidate takes ", page.number(each, ".3g"), " seconds (the median)"]
        if steps and batch:
            parts += [" for ", page.number(steps, ",d"), " steps of ", page.number(batch, "d"),
                      " clips, ", page.number(steps * batch, ",d"), " clips in all"]
        if cost:
            units = each * (cost["gpus"] or cost["cores"]) / 3600
            parts += [": ", page.number(units, ".3g"), f" {cost['unit']} on {cost['devices']}"]
        done = timed + [x for x in journal.repeats if x.seconds.get("total")]
        spent = sum(x.seconds["total"] for x in done)
        parts.append(f". So far {len(done)} evaluations took {duration(spent)} of workers. ")
    if cost:
        parts += _forecast(cost)
    parts.append(f"The paper: {PAPER_HOURS} hours on {PAPER_GPUS} GPUs, "
                 f"{PAPER_HOURS * PAPER_GPUS} GPU-hours a candidate.")
    return page.paragraph(*parts)


def _forecast(cost: Mapping[str, Any]) -> list[object]:
    """What was said before the search began."""
    workers = cost["workers"]
    return [
        "The forecast before it began: ", page.number(cost["candidates"], ",d"),
        " candidates and ", page.number(cost["repeats"], "d"), " repeats of ",
        page.number(cost["seconds_per_candidate"], ".3g"), " seconds or ",
        page.number(cost["unit_hours_per_candidate"], ".3g"), f" {cost['unit']} each, with "
        f"{workers} {'worker' if workers == 1 else 'workers'} {duration(3600 * cost['hours'])} "
        "in all. "]


def _shares(timed: list[Candidate]) -> list[Markup]:
    """Where the time went; apart, without the first of each worker, which builds the graph."""
    begun: set[str] = set()
    later = []
    for candidate in timed:
        if candidate.worker in begun:
            later.append(candidate)
        begun.add(candidate.worker)
    columns = [[x.seconds for x in some] for some in (timed, later) if some]
    totals = [sum(x["total"] for x in column) for column in columns]
    rest, useful = list(totals), 0.0
    rows = []
    for part, meaning in PARTS:
        spent = [sum(x.get(part, 0.0) for x in column) for column in columns]
        if part == "weak" and not any(spent):
            continue
        rest = [a - b for a, b in zip(rest, spent, strict=True)]
        useful += spent[-1] if part in USEFUL else 0.0
        rows.append((meaning, spent))
    rows += [("all else", rest), ("total", totals)]
    cells = [
        (meaning, *(cell for value, total in zip(spent, totals, strict=True)
                    for cell in (page.number(value, ".1f"), page.percent(value / total))))
        for meaning, spent in rows]
    return [
        page.paragraph(
            "Training steps and feature extraction take ", page.percent(useful / totals[-1]),
            " of the time of the " + (
                "candidates after the first" + (
                    f" of each of {len(begun)} workers" if len(begun) > 1 else "")
                + ", which also builds the graph." if later else "candidates there are.")),
        page.table(("", "all candidates, s", "share", "after the first, s", "share")
                   [:1 + 2 * len(columns)], cells)]
