"""The charts of a search: fitness, weights over the evolution, step size, cluster sizes, measures.

As in `elo_tf.reporting.figures`: plain values from the journal in, a matplotlib figure out, `width`
CSS pixels wide.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from elo_tf.fitness import zipf
from elo_tf.reporting import figures, search_statistics, svg
from elo_tf.reporting.svg import color
from elo_tf.search.candidate import Candidate, Control, Generation

LOG_BINS = 40       # more clusters than this are drawn on logarithmic axes
FITNESS = {"zipf": "KL(p‖q), lower is better", "weak": "1 − accuracy, lower is better"}


def fitness_curve(candidates: Sequence[Candidate], *, guide: str = "zipf",
                  control: float | None = None, width: int = 680) -> Figure:
    """Fitness of each generation: best, median, quartiles, and every candidate as a point.

    A failed candidate has no fitness of its own: it is a cross at the upper edge.

    Args:
      candidates: of the journal, at least one.
      guide: what guides the search, "zipf" or "weak".
      control: the untrained network's fitness, if it was measured.
      width: of the figure in CSS pixels.
    """
    worked = [x for x in candidates if x.ok]
    failed = [x for x in candidates if not x.ok]
    found = search_statistics.quartiles(candidates)
    many = len(candidates) > 400
    with svg.style():
        figure, axes = svg.new_figure(width, 300)
        if worked:
            svg.dots(axes, _places(worked, candidates), [x.fitness for x in worked],
                     size=2.5 if many else 4.5, color=color("muted"), label="candidate",
                     alpha=0.25 if many else 0.4)
            axes.fill_between(found.generation, found.lower, found.upper, color=color("accent"),
                              alpha=0.15, linewidth=0, label="quartiles")
            alone = "o" if len(found.generation) < 12 else ""
            axes.plot(found.generation, found.median, color=color("accent"), linewidth=1.4,
                      linestyle=(0, (4, 2)), marker=alone, markersize=4, label="median")
            axes.plot(found.generation, found.best, color=color("accent"), linewidth=2,
                      marker=alone, markersize=4, label="best")
        if failed:
            axes.plot(_places(failed, candidates), np.full(len(failed), 0.98), "x",
                      color=color("bad"), markersize=3 if many else 6, label="failed",
                      transform=axes.get_xaxis_transform())
        if control is not None:
            _control_line(axes, control)
        axes.set(xlabel="generation", ylabel=FITNESS[guide])
        axes.xaxis.set_major_locator(ticker.MaxNLocator(max(3, width // 80), integer=True))
        axes.set_xlim(found.generation[0] - 0.5, found.generation[-1] + 0.5)
        axes.margins(y=0.12)
        axes.grid(axis="y")
        figures.legend_above(figure, columns=5 if width > figures.NARROW else 3)
    return figure


def _places(some: Sequence[Candidate], candidates: Sequence[Candidate]) -> list[float]:
    """Where points lie: those of a generation beside each other, within 0.3 of its number."""
    sizes: dict[int, int] = {}
    for x in candidates:
        sizes[x.generation] = max(sizes.get(x.generation, 0), x.index + 1)
    return [x.generation + 0.6 * ((x.index + 0.5) / sizes[x.generation] - 0.5) for x in some]


def _control_line(axes: Axes, value: float) -> None:
    axes.axhline(value, color=color("bad"), linewidth=1.2, linestyle=(0, (1, 2)))
    axes.annotate(f"random encoder {value:.3f}", (1, value), xytext=(0, 3), ha="right",
                  xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                  color=color("bad"), size=10)


def weight_panels(names: Sequence[str], generations: Sequence[Generation], *,
                  by_modality: bool = False, width: int = 220) -> dict[str, Figure]:
    """The weights over the evolution (the paper's Figure 7): a small figure for each task.

    A line is the search's mean weight of one loss after each generation, in the colour of its
    modality; the number is the last one.

    Args:
      names: of the losses.
      generations: of the journal, at least one.
      by_modality: a figure for each modality instead, with a line for each of its tasks.
      width: of one panel in CSS pixels.
    """
    means = {name: [x.mean.get(name, math.nan) for x in generations] for name in names}
    places = [x.generation for x in generations]
    with svg.style():
        if by_modality:
            groups = figures.sources(names)
            lines = list(dict.fromkeys(line for members in groups.values() for line in members))
            panels = figures.line_panels(
                places, means, groups, label="{:.2f}".format, width=width,
                tint=lambda line: color(f"line{lines.index(line) % svg.LINES + 1}"))
        else:
            panels = figures.family_panels(places, means, label="{:.2f}".format, width=width)
        for figure in panels.values():
            figure.axes[0].set(yticks=(0, 0.5, 1), yticklabels=("0", "½", "1"))
    return panels


def sigma_curve(generations: Sequence[Generation], *, width: int = 680) -> Figure:
    """The strategy's step size after each generation.

    Args:
      generations: of the journal, at least one.
      width: of the figure in CSS pixels.
    """
    places, sigmas = [x.generation for x in generations], [x.sigma for x in generations]
    with svg.style():
        figure, axes = svg.new_figure(width, 170)
        axes.plot(places, sigmas, color=color("accent"), linewidth=2, label="sigma",
                  marker="o" if len(places) < 12 else "", markersize=4)
        axes.annotate(f"{sigmas[-1]:.3g}", (places[-1], sigmas[-1]), xytext=(6, 0), va="center",
                      textcoords="offset points", color=color("accent"), weight="bold")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(max(3, width // 80), integer=True))
        axes.set(xlabel="generation", ylabel="sigma")
        if min(sigmas) > 0 and max(sigmas) > 20 * min(sigmas):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(ticker.NullLocator())
        else:
            axes.set_ylim(0, 1.15 * max(sigmas) or 1)
        axes.grid(axis="y")
    return figure


def measures(candidates: Sequence[Candidate], *, best: Candidate | None = None,
             control: Control | None = None, width: int = 680) -> Figure:
    """Two measures of the same networks: divergence against accuracy (the paper's Figure 9).

    Args:
      candidates: of which both are known, at least one.
      best: is marked where it is among them.
      control: the untrained network, marked where both are known of it.
      width: of the figure in CSS pixels.
    """
    with svg.style():
        figure, axes = svg.new_figure(width, 340)
        svg.dots(axes, [x.zipf or 0.0 for x in candidates],
                 [100 * (x.weak or 0.0) for x in candidates],
                 size=4 if len(candidates) > 400 else 6, color=color("accent"), alpha=0.5,
                 label="candidate")
        if best is not None and best in candidates:
            axes.plot([best.zipf], [100 * (best.weak or 0.0)], "o", color=color("accent"),
                      markersize=10, markerfacecolor="none", markeredgewidth=2, label="best")
        if control is not None and control.zipf is not None and control.weak is not None:
            axes.plot([control.zipf], [100 * control.weak], "X", color=color("bad"), markersize=9,
                      markeredgewidth=0, label="random encoder")
        axes.set(xlabel="KL(p‖q) from Zipf’s law, lower is better",
                 ylabel="accuracy of the clusters, %")
        axes.margins(0.06)
        axes.grid()
        figures.legend_above(figure)
    return figure


def zipf_histograms(histograms: Mapping[str, Sequence[float]], *, s: float = 1.0,
                    width: int = 680) -> Figure:
    """Cluster masses p, largest first, against the Zipf law q, with KL(p‖q) in the title.

    Bars on linear axes up to 40 clusters, lines on logarithmic axes for more (our choice).

    Args:
      histograms: p(c_i) of k clusters, summing to 1, of one or more networks by name.
      s: the exponent of the law.
      width: of the figure in CSS pixels.
    """
    beside = len(histograms) if width > figures.NARROW else 1
    rows = math.ceil(len(histograms) / beside)
    with svg.style():
        figure, _ = svg.new_figure(width, 40 + 220 * rows)
        figure.clear()
        panes = figure.subplots(rows, beside, sharey=True, squeeze=False).ravel()
        for axes, (name, histogram) in zip(panes, histograms.items(), strict=True):
            _histogram(axes, name, histogram, s)
        for axes in panes[::beside]:
            axes.set_ylabel("share of the clips")
        for axes in panes[-beside:]:
            axes.set_xlabel("cluster, largest first")
        handles, labels = panes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, borderaxespad=0)
    return figure


def _histogram(axes: Axes, name: str, histogram: Sequence[float], s: float) -> None:
    mass = np.sort(np.asarray(histogram, float))[::-1]
    law = zipf.zipf_law(len(mass), s)
    present = mass > 0
    with np.errstate(divide="ignore"):
        divergence = zipf.divergence(np.log(mass), s)
    rank = np.arange(1, len(mass) + 1)
    if len(mass) <= LOG_BINS:
        axes.bar(rank, mass, color=color("muted"), alpha=0.45, width=0.72, label="clusters, p")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(min(len(mass), 12), integer=True))
        axes.grid(axis="y")
    else:
        axes.plot(rank[present], mass[present], "o", color=color("muted"), markersize=3,
                  markeredgewidth=0, label="clusters, p")
        axes.set(xscale="log", yscale="log")
        axes.grid()
    axes.plot(rank, law, color=color("accent"), linewidth=2,
              marker="o" if len(mass) <= LOG_BINS else "", markersize=4,
              label=f"Zipf law with s = {s:g}, q")
    axes.set_title(f"{name}: KL(p‖q) = {divergence:.3f}", pad=8)
