"""The report's section that compares searches: one row for each strategy, and the random losses."""

import functools
from collections.abc import Mapping

from elo_tf.reporting import page, search_figures, search_section, search_statistics
from elo_tf.reporting.page import Markup
from elo_tf.search import choice
from elo_tf.search.journal import Journal

TITLE = "Strategies compared"


def study(journals: Mapping[str, Journal]) -> list[Markup]:
    """The section; nothing without journals.

    Args:
      journals: of searches, by name.
    """
    if not journals:
        return []
    rows = []
    for name, journal in journals.items():
        found = choice.front_runner(journal)
        best = found[0] if found else None
        repeats = journal.repeats_of(best) if best else []
        hours = sum(x.seconds.get("total", 0.0)
                    for x in [*journal.candidates, *journal.repeats]) / 3600
        rows.append((
            name, journal.header["strategy"] + ("" if journal.end else " (not ended)"),
            page.number(len(journal.candidates), "d"),
            page.number(best.fitness if best else None, ".4f"),
            page.number(found[1] if repeats else None, ".4f"),
            page.number(None) if best is None or best.weak is None else page.percent(best.weak),
            page.number(search_statistics.fitness_of(
                search_statistics.control_of(journal), search_statistics.guide(journal)), ".4f"),
            page.number(hours, ".2f")))
    parts = [
        page.paragraph("Searches with different strategies. The fitness that counts is the one "
                       "with other seeds than the search’s own."),
        page.table(("search", "strategy", "candidates", "best fitness", "with other seeds",
                    "weak supervision", "random encoder", "hours of workers"), rows, text=2)]
    for name, journal in journals.items():
        measured = search_statistics.both_measured(journal.candidates)
        if measured and "random" in journal.header["strategy"].lower():
            parts += [
                Markup(f"<h3>{page.escape(name)}: both measures of losses drawn at random</h3>"),
                search_section.rank_sentence(measured, journal.header["strategy"]),
                page.chart(f"study-{len(parts)}", functools.partial(
                    search_figures.measures, measured,
                    control=search_statistics.control_of(journal)),
                    caption="Each loss by both measures.")]
    return [page.section(TITLE, *parts)]
