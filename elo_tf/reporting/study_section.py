"""The report's section on the study of strategies: its table, and what holds."""

from collections.abc import Mapping
from typing import Any

from elo_tf.reporting import page
from elo_tf.reporting.figures import protocol_name
from elo_tf.reporting.page import Markup

TITLE = "Strategies compared"


def study(results: Mapping[str, Any] | None) -> list[Markup]:
    """The section; nothing without a study.

    Args:
      results: of `study.json`.
    """
    if results is None:
        return []
    protocols = list(dict.fromkeys(x for row in results["rows"] for x in row["accuracy"]))
    rows = []
    for row in results["rows"]:
        rows.append((
            row["title"] + ("" if row["ended"] else " (not ended)"),
            page.number(row["candidates"], "d") if row["candidates"] is not None else "",
            _score(row["fitness"]), _score(row["weak"], accuracy=True),
            *(_score(row["accuracy"].get(x), accuracy=True) for x in protocols),
            page.percent(row["paper"]) if row["paper"] is not None else ""))
    said = "".join(f"<li>{page.escape(x)}</li>" for x in results["findings"])
    return [page.section(
        TITLE,
        page.table(("loss found by", "candidates", "fitness, other seeds", "weak, other seeds",
                    *map(protocol_name, protocols), "the paper, HMDB51"), rows),
        page.note("Fitness is lower where it is better, the rest is accuracy; means ± standard "
                  "deviations over seeds. The paper’s are of another scale."),
        *([Markup(f"<ul>{said}</ul>")] if said else []))]


def _score(score: Mapping[str, Any] | None, *, accuracy: bool = False) -> Markup:
    """A mean and its standard deviation."""
    if score is None:
        return Markup("")

    def shown(value: float) -> Markup:
        return page.percent(value) if accuracy else page.number(value, ".4f")

    spread = (" ± ", shown(score["std"])) if score["n"] > 1 else ()
    return Markup("".join((shown(score["mean"]), *spread)))
