"""Figures 5 and 6 as SVG files that stand alone: accuracy against labelled and unlabelled clips."""

from collections.abc import Sequence

from matplotlib import ticker
from matplotlib.figure import Figure

from elo_tf.reporting import figures, svg
from elo_tf.reporting.study_figures import standalone
from elo_tf.reporting.svg import color
from elo_tf.reporting.tables import METHODS, Curve, Tables

# The paper's Figure 5 is of whole networks; the other kind gets a name of its own.
_MEASURES = {"finetune": "fine-tuned accuracy", "linear": "1-layer accuracy"}


def accuracy_by_clips(curves: Sequence[Curve], *, xlabel: str, ylabel: str,
                      chance: float | None = None, width: int = 680) -> Figure:
    """A line for each method, with its standard deviation where there are several seeds.

    Args:
      curves: at least one.
      xlabel: what is counted; the axis is logarithmic.
      ylabel: the accuracy.
      chance: of always naming the most frequent class.
      width: of the figure in CSS pixels.
    """
    with svg.style():
        figure, axes = svg.new_figure(width, 320)
        for i, curve in enumerate(curves):
            axes.errorbar(curve.clips, [100 * x.mean for x in curve.scores],
                          yerr=[100 * x.std for x in curve.scores], capsize=2, linewidth=2,
                          elinewidth=1, marker="o", markersize=4, label=METHODS[curve.name],
                          color=color(f"line{i % svg.LINES + 1}"))
        if chance is not None:
            axes.axhline(100 * chance, color=color("muted"), linewidth=1.2, linestyle=(0, (1, 2)),
                         label="chance")
        ticks = sorted({n for x in curves for n in x.clips})
        axes.set(xlabel=xlabel, ylabel=f"{ylabel}, %", xscale="log")
        axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        axes.margins(y=0.12)
        axes.grid(axis="y")
        figures.legend_above(figure, columns=5 if width > figures.NARROW else 2)
    return figure


def draw(tables: Tables) -> dict[str, str]:
    """The figures of which there is something to show: SVG texts by name."""
    drawn = {}
    chance = tables.first["chance"] if tables.first else None
    for protocol, ylabel in _MEASURES.items():
        curves = [x for x in tables.label_curves if x.protocol == protocol]
        if curves:
            name = "figure_5" if "figure_5" not in drawn else f"figure_5_{protocol}"
            drawn[name] = standalone(
                accuracy_by_clips(curves, xlabel="labelled clips", ylabel=ylabel, chance=chance),
                name=name.replace("_", ""),
                description=f"{ylabel} against labelled clips, a line for each pre-training")
    if tables.unlabelled_curve is not None:
        drawn["figure_6"] = standalone(
            accuracy_by_clips([tables.unlabelled_curve], xlabel="unlabelled clips",
                              ylabel=_MEASURES["linear"], chance=chance),
            name="figure6", description="1-layer accuracy of ELo against unlabelled clips")
    return drawn
