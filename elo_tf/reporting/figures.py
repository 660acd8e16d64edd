"""The charts of the report that are not of the search alone: weights, losses, accuracy, panels.

Every function takes plain values of a result and returns a matplotlib figure, `width` CSS pixels
wide, in the stand-in colours of `elo_tf.reporting.svg`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from elo_tf.reporting import svg
from elo_tf.reporting.svg import color

Values = Sequence[float] | np.ndarray
NARROW = 420        # below this width a figure is for a phone
NOTABLE = 0.1       # losses of a weight above this are the ones a training must lower


def split_name(name: str) -> tuple[str, str]:
    """(family, modality) of a loss: `rgb/shuffle` is of ("shuffle", "rgb").

    `distill/flow/block1` is of ("distill block1", "flow"), where the modality is the source.
    """
    parts = name.split("/")
    if len(parts) == 3 and parts[0] == "distill":
        return f"distill {parts[2]}", parts[1]
    if len(parts) == 2:
        return parts[1], parts[0]
    return "other", name


def protocol_name(protocol: str) -> str:
    """What people call a protocol of `evaluation.json`."""
    return {"kmeans": "k-means", "linear": "linear classifier", "knn": "nearest neighbours",
            "finetune": "fine-tuned"}.get(protocol, protocol)


def families(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """{family: {modality: name}}, in the order of `names`."""
    grouped: dict[str, dict[str, str]] = {}
    for name in names:
        family, modality = split_name(name)
        grouped.setdefault(family, {})[modality] = name
    return grouped


def sources(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """{modality: {task: name}}, in the order of `names`; distillations apart, by their source."""
    grouped: dict[str, dict[str, str]] = {}
    for name in names:
        family, modality = split_name(name)
        kind, _, site = family.partition(" ")
        if kind == "distill" and site:
            grouped.setdefault(f"distill {modality}", {})[site] = name
        else:
            grouped.setdefault(modality, {})[family] = name
    return grouped


def legend_above(figure: Figure, *, columns: int = 3) -> None:
    """One legend for the whole figure, over it; use in `svg.style`."""
    figure.legend(loc="outside upper left", ncols=columns, handletextpad=0.5, columnspacing=1.4,
                  borderaxespad=0)


def family_panels(places: Values, values: Mapping[str, Values], *,
                  label: Callable[[float], str], limits: tuple[float, float] = (0.0, 1.0),
                  log: bool = False, width: int = 220) -> dict[str, Figure]:
    """One small figure for each family of losses, a line a modality; see `line_panels`."""
    return line_panels(places, values, families(list(values)), tint=color, label=label,
                       limits=limits, log=log, width=width)


def line_panels(places: Values, values: Mapping[str, Values],
                groups: Mapping[str, Mapping[str, str]], *, tint: Callable[[str], str],
                label: Callable[[float], str], limits: tuple[float, float] = (0.0, 1.0),
                log: bool = False, width: int = 220) -> dict[str, Figure]:
    """One small figure for each group of losses, all on the same axes; use in `svg.style`.

    Args:
      places: generations or steps, at least one.
      values: by name of the loss, for each of the places.
      groups: {title: {what the line is called: name of the loss}}.
      tint: the colour of a line by what it is called.
      label: of the last value, written beside the line.
      limits: of the vertical axis.
      log: whether that axis is logarithmic; lower values, and 0, then lie on its lower limit.
      width: of one panel in CSS pixels.
    """
    panels = {}
    for title, members in groups.items():
        ends = {line: values[name][-1] for line, name in members.items()}
        longest = max(len(f"{line} {label(end)}") for line, end in ends.items())
        figure, axes = svg.new_figure(width, max(168, 40 + 18 * len(members)),
                                      margins=(34, 12 + 5.6 * longest, 22, 24))
        axes.set(title=title, yscale="log" if log else "linear", ylim=limits)
        axes.set_xlim(places[0], max(places[-1], places[0] + 1))
        for line, name in members.items():
            drawn = np.maximum(values[name], limits[0]) if log else values[name]
            axes.plot(places, drawn, color=tint(line), linewidth=1.8, label=line,
                      marker="o" if len(places) < 12 else "", markersize=3.5, clip_on=False)
        heights = {key: _height(x, limits, log) for key, x in ends.items()}
        for line, height in _spread(heights, least=0.13).items():
            axes.annotate(f"{line} {label(ends[line])}", (1, height), xytext=(7, 0),
                          xycoords="axes fraction", textcoords="offset points",
                          va="center", color=tint(line), size=10)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(3, integer=True))
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        panels[title] = figure
    return panels


def _height(value: float, limits: tuple[float, float], log: bool) -> float:
    """Where a value lies between the limits of an axis, from 0 to 1."""
    scaled = np.array([value, *limits], float).clip(*limits)
    value, low, high = np.log10(scaled) if log else scaled
    return float((value - low) / (high - low))


def _spread(heights: Mapping[str, float], *, least: float) -> dict[str, float]:
    """Heights in [0, 1] moved apart until neighbours are `least` away, their order kept."""
    names = sorted(heights, key=lambda x: heights[x])
    placed = np.nan_to_num(np.array([heights[x] for x in names], float))
    least = min(least, 1 / max(len(names) - 1, 1))
    for _ in range(500):
        push = np.clip(least - np.diff(placed), 0, None) / 2
        if not (push > 1e-4).any():
            break
        placed[:-1] -= push
        placed[1:] += push
        placed = placed.clip(0, 1)
    return dict(zip(names, placed, strict=True))


def weight_bars(weights: Mapping[str, float], *, width: int = 680) -> Figure:
    """The weights of a loss, largest first, coloured by modality.

    Args:
      weights: {name: weight in [0, 1]}.
      width: of the figure in CSS pixels.
    """
    ranked = sorted(weights.items(), key=lambda x: -x[1])
    columns = 1 if width < NARROW or len(ranked) < 12 else 2
    rows = math.ceil(len(ranked) / columns)
    with svg.style():
        figure, _ = svg.new_figure(width, 24 + 17 * rows)
        figure.clear()
        figure.get_layout_engine().set(wspace=0.06)
        for column, axes in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
            part = ranked[column * rows:(column + 1) * rows]
            place = np.arange(len(part))
            values = [x for _, x in part]
            axes.barh(place, values, height=0.62, alpha=0.85,
                      color=[color(split_name(name)[1]) for name, _ in part])
            for y, value in zip(place, values, strict=True):
                axes.annotate(f"{value:.2f}", (value, y), xytext=(4, 0), va="center",
                              textcoords="offset points", size=9, color=color("muted"))
            axes.set_yticks(place, [name for name, _ in part], color=color("ink"))
            axes.set(xlim=(0, 1.08), ylim=(rows - 0.5, -0.5), xticks=[])
            axes.spines[["bottom", "left"]].set_visible(False)
    return figure


def heldout_losses(heldout: Mapping[str, Mapping[str, float]], *, width: int = 680) -> Figure:
    """Every loss in use on unseen clips before and after the training.

    Args:
      heldout: {"weights": {name: w}, "before": {name: loss}, "after": {name: loss}}.
      width: of the figure in CSS pixels.
    """
    weights, before, after = heldout["weights"], heldout["before"], heldout["after"]
    used = [x for x in sorted(weights, key=lambda x: -weights[x]) if x in before and x in after]
    place = np.arange(len(used))
    values = np.array([[before[x], after[x]] for x in used], float).reshape(-1, 2)
    fell = values[:, 1] < values[:, 0]
    positive = values[np.isfinite(values) & (values > 0)]
    with svg.style():
        figure, axes = svg.new_figure(width, 70 + 17 * len(used))
        for row, (name, good) in enumerate(zip(used, fell, strict=True)):
            tint, alpha = color("accent" if good else "bad"), 1 if weights[name] > NOTABLE else 0.4
            axes.plot(values[row], [row, row], color=tint, alpha=alpha, linewidth=1.6)
            axes.plot(values[row, 1:], [row], "o", color=tint, alpha=alpha, markersize=6)
        axes.plot(values[:, 0], place, "o", color=color("muted"), markersize=4.5,
                  markerfacecolor=color("paper"), markeredgewidth=1.1, label="before")
        axes.plot([], [], "o", color=color("accent"), markersize=6, label="after, lower")
        if not fell.all():
            axes.plot([], [], "o", color=color("bad"), markersize=6, label="after, not lower")
        axes.set_yticks(place, [f"{x}  {weights[x]:.2f}" for x in used], color=color("ink"))
        axes.set(ylim=(len(used) - 0.5, -0.5), xlabel="loss on unseen clips")
        if positive.size and positive.max() > 50 * positive.min():
            axes.set_xscale("log")
        else:
            axes.set_xlim(left=min(0.0, np.nanmin(values, initial=0.0)))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        legend_above(figure)
    return figure


def accuracy_bars(evaluation: Mapping[str, Any], *, width: int = 680) -> Figure:
    """Accuracy in percent of each protocol, trained beside untrained, with chance as a line.

    Args:
      evaluation: as in `evaluation.json`: `chance` and `rows` of network, protocol, mean, std.
      width: of the figure in CSS pixels.
    """
    protocols = list(dict.fromkeys(x["protocol"] for x in evaluation["rows"]))
    networks = sorted(dict.fromkeys(x["network"] for x in evaluation["rows"]),
                      key=lambda x: (x != "trained", x))
    chance = 100 * evaluation["chance"]
    height = 0.8 / len(networks)
    with svg.style():
        figure, axes = svg.new_figure(width, 76 + 26 * len(protocols) * len(networks))
        for number, network in enumerate(networks):
            rows = [x for x in evaluation["rows"] if x["network"] == network]
            place = [protocols.index(x["protocol"]) + (number - (len(networks) - 1) / 2) * height
                     for x in rows]
            mean = [100 * x["mean"] for x in rows]
            spread = [100 * x["std"] for x in rows]
            trained = network == "trained"
            axes.barh(place, mean, height * 0.86, xerr=spread, label=network,
                      color=color("accent" if trained else "muted"), alpha=0.9 if trained else 0.45,
                      error_kw={"ecolor": color("ink"), "elinewidth": 1})
            for y, value, error in zip(place, mean, spread, strict=True):
                axes.annotate(f"{value:.1f}", (value + error, y), xytext=(5, 0), va="center",
                              textcoords="offset points",
                              color=color("ink" if trained else "muted"))
        axes.axvline(chance, color=color("bad"), linewidth=1.2, linestyle=(0, (4, 3)),
                     label=f"chance, {chance:.1f}")
        top = max([chance, *(100 * (x["mean"] + x["std"]) for x in evaluation["rows"])])
        axes.set(xlim=(0, min(108, 1.18 * top)), xlabel="accuracy, %",
                 ylim=(len(protocols) - 0.5, -0.5))
        axes.set_yticks(range(len(protocols)), map(protocol_name, protocols), color=color("ink"))
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        legend_above(figure)
    return figure
