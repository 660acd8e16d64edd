"""The course of the final training: its total, the tasks' shares of it, how hard each pulls.

The functions take entries of `losses.jsonl` (see `elo_tf.training.run_log`) and draw as
`elo_tf.reporting.figures` does. Of long logs, a point is the mean of several entries.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from elo_tf.reporting import figures, svg
from elo_tf.reporting.svg import color

Entry = Mapping[str, Any]
POINTS = 300         # of a line at most; of one in a panel, a fifth of it
TOPS = (0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 0.6, 1.0)   # where the axis of shares may end
DECADES = 6          # of gradient norms shown at most


def of_steps(entries: Sequence[Entry]) -> list[Entry]:
    """The entries of training steps."""
    return [x for x in entries if "total" in x]


def of_heldout(entries: Sequence[Entry]) -> list[Entry]:
    """The entries of unseen clips, at checkpoints."""
    return [x for x in entries if "heldout_total" in x]


def best_checkpoint(entries: Sequence[Entry]) -> Entry | None:
    """The entry of the first checkpoint whose weighted total on unseen clips is least."""
    finite = [x for x in of_heldout(entries) if np.isfinite(x["heldout_total"])]
    return min(finite, key=lambda x: x["heldout_total"], default=None)


def thinned(values: Sequence[float], most: int) -> np.ndarray:
    """At most `most` values: the means of consecutive ones, equally many but for the last."""
    each = np.asarray(values, float)
    starts = np.arange(0, len(each), max(1, -(-len(each) // most)))
    if len(starts) == len(each):
        return each
    return np.add.reduceat(each, starts) / np.diff(np.append(starts, len(each)))


def total_curve(entries: Sequence[Entry], *, width: int = 680) -> Figure:
    """The weighted total on training and on unseen clips over the steps; the learning rate below.

    Args:
      entries: of the log, at least one.
      width: of the figure in CSS pixels.
    """
    steps, heldout, best = of_steps(entries), of_heldout(entries), best_checkpoint(entries)
    heights = [3.6, 1] if steps else [1]
    with svg.style():
        figure, _ = svg.new_figure(width, 340 if steps else 270)
        figure.clear()
        figure.get_layout_engine().set(hspace=0.04)
        panes = figure.subplots(len(heights), 1, sharex=True, squeeze=False,
                                gridspec_kw={"height_ratios": heights})[:, 0]
        axes = panes[0]
        if steps:
            place = thinned([x["step"] for x in steps], POINTS)
            axes.plot(place, thinned([x["total"] for x in steps], POINTS), color=color("muted"),
                      linewidth=1.1, alpha=0.75, label="training clips", zorder=2,
                      marker="o" if len(place) < 12 else "", markersize=3)
            rate = thinned([x["learning_rate"] for x in steps], POINTS)
            panes[1].plot(place, rate, color=color("muted"), linewidth=1)
            panes[1].set(ylim=(0, 1.15 * rate.max() or 1), ylabel="learning\nrate")
            panes[1].set_yticks([0, rate.max()], ["0", f"{rate.max():.2g}"])
            panes[1].grid(axis="y")
        if heldout:
            place = thinned([x["step"] for x in heldout], POINTS)
            axes.plot(place, thinned([x["heldout_total"] for x in heldout], POINTS),
                      color=color("accent"), linewidth=2, label="unseen clips", zorder=3,
                      marker="o" if len(place) < 40 else "", markersize=3.5)
        if best:
            axes.plot([best["step"]], [best["heldout_total"]], "o", color=color("accent"),
                      markersize=9, markerfacecolor=color("paper"), markeredgewidth=2, zorder=4,
                      label=f"best: {best['heldout_total']:.3f}, step {best['step']:,d}")
        totals = np.array([x.get("total", x.get("heldout_total")) for x in entries], float)
        positive = totals[np.isfinite(totals) & (totals > 0)]
        if positive.size and positive.max() > 50 * positive.min():
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylabel("weighted total")
        axes.margins(x=0.015, y=0.08)
        axes.grid(axis="y")
        panes[-1].set_xlabel("step")
        panes[-1].xaxis.set_major_locator(ticker.MaxNLocator(max(3, width // 100), integer=True))
        panes[-1].xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        figures.legend_above(figure, columns=3 if width >= figures.NARROW + 60 else 2)
    return figure


def share_panels(entries: Sequence[Entry], *, width: int = 220) -> dict[str, Figure]:
    """Each loss's share of the weighted total over the steps, one small figure for each family.

    Args:
      entries: of the log, at least one of a training step.
      width: of one panel in CSS pixels.
    """
    places, shares = _by_name(entries, "share")
    most = np.nanmax(list(shares.values()), initial=0.0)
    top = next((x for x in TOPS if x >= most), most)
    with svg.style():
        panels = figures.family_panels(places, shares, label=lambda x: f"{100 * x:.1f}%",
                                       limits=(0.0, top), width=width)
        for figure in panels.values():
            axes = figure.axes[0]
            axes.set_yticks([0, top / 2, top], [f"{100 * x:g}%" for x in (0, top / 2, top)])
            axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    return panels


def gradient_panels(entries: Sequence[Entry], *, width: int = 220) -> dict[str, Figure]:
    """The gradient norm of each weighted loss over the steps, one small figure for each family.

    The axis is logarithmic, of six decades at most; what is smaller lies on its lower edge.

    Args:
      entries: of the log, at least one of a training step.
      width: of one panel in CSS pixels.
    """
    places, norms = _by_name(entries, "gradient_norms")
    values = np.array(list(norms.values()))
    positive = values[np.isfinite(values) & (values > 0)]
    high = int(np.ceil(np.log10(positive.max(initial=1e-12))))
    low = int(np.floor(np.log10(positive.min(initial=10.0**high))))
    low = max(min(low, high - 1), high - DECADES)
    with svg.style():
        panels = figures.family_panels(places, norms, label="{:.2g}".format, log=True,
                                       limits=(10.0**low, 10.0**high), width=width)
        ticks = 10.0 ** np.arange(low, high + 1, max(1, (high - low) // 2))
        for figure in panels.values():
            axes = figure.axes[0]
            axes.set_yticks(ticks, [f"{x:g}" for x in ticks])
            axes.yaxis.set_minor_locator(ticker.NullLocator())
            axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    return panels


def _by_name(entries: Sequence[Entry], key: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The steps of a log, and what it says of each loss at them, thinned for a panel."""
    steps = of_steps(entries)
    return (thinned([x["step"] for x in steps], POINTS // 5),
            {name: thinned([x[key].get(name, np.nan) for x in steps], POINTS // 5)
             for name in steps[-1][key]})
