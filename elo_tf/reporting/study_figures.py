"""The study's figures, as SVG files that stand alone."""

import html
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from elo_tf.reporting import figures, search_figures, search_statistics, svg
from elo_tf.reporting.study import STRATEGIES, Study, best_so_far
from elo_tf.reporting.svg import color


def progress_curves(best: Mapping[str, Sequence[float]], *, control: float | None = None,
                    guide: str = "zipf", width: int = 680) -> Figure:
    """The best fitness so far against the candidates evaluated, a line for each search.

    Args:
      best: after each candidate, by name of the search; see `study.best_so_far`.
      control: the untrained network's fitness.
      guide: what guides the searches, "zipf" or "weak".
      width: of the figure in CSS pixels.
    """
    with svg.style():
        figure, axes = svg.new_figure(width, 300)
        for i, (name, values) in enumerate(best.items()):
            axes.step(np.arange(1, len(values) + 1), values, where="post", linewidth=2,
                      color=color(f"line{i % svg.LINES + 1}"), label=name)
        if control is not None:
            axes.axhline(control, color=color("bad"), linewidth=1.2, linestyle=(0, (1, 2)),
                         label="untrained network")
        axes.set(xlabel="candidates", ylabel=f"best fitness so far\n"
                 f"{search_figures.FITNESS[guide]}")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(max(3, width // 80), integer=True))
        axes.margins(y=0.12)
        axes.grid(axis="y")
        figures.legend_above(figure, columns=5 if width > figures.NARROW else 2)
    return figure


def draw(study: Study) -> dict[str, str]:
    """The figures of which there is something to show: SVG texts by name."""
    drawn = {}
    journals = {STRATEGIES[name][0]: study.journals[name] for name in STRATEGIES
                if name in study.journals and study.journals[name].candidates}
    control = None
    if journals:
        first = next(iter(journals.values()))
        guide = search_statistics.guide(first)
        control = search_statistics.control_of(first)
        drawn["progress"] = standalone(progress_curves(
            {name: best_so_far(journal) for name, journal in journals.items()}, guide=guide,
            control=search_statistics.fitness_of(control, guide)), name="progress",
            description="Best fitness so far against candidates, a line for each strategy")
    random = study.random_candidates
    if random:
        drawn["figure_9"] = standalone(
            search_figures.measures(random, control=control), name="figure9",
            description="Zipf divergence against weak accuracy of losses drawn at random")
    return drawn


def standalone(figure: Figure, *, name: str, description: str) -> str:
    """A figure as the text of an SVG file, which is light or dark as its reader's screen is.

    Args:
      figure: drawn in the colours of `svg.color`.
      name: prefixes the ids.
      description: what it shows, for those who do not see it.
    """
    inline = svg.to_svg(figure, name=name, description=description)
    light, dark = (";".join(f"--{role}:{pair[i]}" for role, pair in svg.ROLES.items())
                   for i in (0, 1))
    style = (f"<style>svg{{{light};background:var(--paper);font-family:sans-serif}}"
             f"@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>")
    head, rest = inline.split(">", 1)
    return (f'{head} xmlns="http://www.w3.org/2000/svg"><title>{html.escape(description)}</title>'
            f"{style}{rest}\n")
