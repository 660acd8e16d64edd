"""Matplotlib figures as inline SVG that takes its colours and font from the page.

A figure is drawn in stand-in colours, one for each role; in the SVG they become CSS variables, so
the same picture is readable on a light and on a dark page. Text stays text.
"""

import contextlib
import html
import io
import re
from collections.abc import Iterator, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Role -> (colour on a light page, on a dark page). The colours of the modalities are told apart
# by colour-blind readers too (after Okabe and Ito), and are always named beside the line.
ROLES = {
    "paper": ("#ffffff", "#15171a"),
    "ink": ("#1d2125", "#e7e9ec"),
    "muted": ("#646b73", "#99a1aa"),
    "grid": ("#e4e7ea", "#2b2f35"),
    "accent": ("#2458b8", "#82aefc"),
    "bad": ("#b3261e", "#ff897d"),
    "rgb": ("#c2410c", "#ff9f66"),
    "flow": ("#0369a1", "#5cc0f5"),
    "gray": ("#6b7280", "#a9b0ba"),
    "audio": ("#047857", "#4fd1a1"),
    # Lines that are no modality, such as the tasks of one.
    "line1": ("#2458b8", "#82aefc"),
    "line2": ("#c2410c", "#ff9f66"),
    "line3": ("#047857", "#4fd1a1"),
    "line4": ("#a2266f", "#f08cc4"),
    "line5": ("#8a6d00", "#e0c341"),
    "line6": ("#0e7490", "#67d5ea"),
    "line7": ("#6d3fb5", "#bf9df5"),
    "line8": ("#6b7280", "#a9b0ba"),
}
LINES = 8
_STAND_INS = {role: f"#0a0b{i + 16:02x}" for i, role in enumerate(ROLES)}
_FONT_SIZE = 11

_STYLE = {
    "font.size": _FONT_SIZE,
    "axes.titlesize": _FONT_SIZE,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": _STAND_INS["ink"],
    "axes.labelcolor": _STAND_INS["muted"],
    "axes.labelsize": _FONT_SIZE - 1,
    "axes.edgecolor": _STAND_INS["muted"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _STAND_INS["grid"],
    "grid.linewidth": 0.8,
    "text.color": _STAND_INS["ink"],
    "xtick.color": _STAND_INS["muted"],
    "ytick.color": _STAND_INS["muted"],
    "xtick.labelsize": _FONT_SIZE - 1,
    "ytick.labelsize": _FONT_SIZE - 1,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": _FONT_SIZE - 1,
    "lines.solid_capstyle": "round",
    "path.simplify": False,     # it would leave out lines of no length, which are dots
    "svg.fonttype": "none",
}


def color(role: str) -> str:
    """The stand-in of a role of `ROLES`, to draw with; of a name without one, that of ink."""
    return _STAND_INS.get(role, _STAND_INS["ink"])


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Within it, figures are made in the one style of the report."""
    with mpl.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float,
               margins: tuple[float, float, float, float] | None = None) -> tuple[Figure, Axes]:
    """A figure of so many CSS pixels, without pyplot and so without any display; use in `style`.

    Args:
      width: of the figure.
      height: likewise.
      margins: left, right, below and above the axes; None: as much as is needed, which takes as
        long to find out as it takes to draw.
    """
    size = (width / 72, height / 72)
    if margins is not None:
        left, right, below, above = margins
        figure = Figure(figsize=size, dpi=72)
        figure.subplots_adjust(left=left / width, right=1 - right / width, bottom=below / height,
                               top=1 - above / height)
        return figure, figure.subplots()
    figure = Figure(figsize=size, dpi=72, layout="constrained")
    figure.get_layout_engine().set(w_pad=4 / 72, h_pad=4 / 72)
    return figure, figure.subplots()


def dots(axes: Axes, x: Sequence[float], y: Sequence[float], *, size: float, label: str,
         **style) -> None:
    """Draws round points as one path: thousands of them stay small on the page and quick to show.

    Args:
      axes: to draw on.
      x: places; every third value of the line's data is one of them.
      y: likewise.
      size: diameter in CSS pixels.
      label: in the legend; that of the line itself has an underscore before it.
      **style: color and alpha.
    """
    def spread(values: Sequence[float]) -> np.ndarray:
        each = np.asarray(values, float)
        return np.stack([each, each, np.full_like(each, np.nan)], axis=1).ravel()

    axes.plot(spread(x), spread(y), linewidth=size, solid_capstyle="round", label=f"_{label}",
              **style)
    axes.plot([], [], "o", markersize=5, markeredgewidth=0, label=label, **style)


def to_svg(figure: Figure, *, name: str, description: str) -> str:
    """The figure as an `<svg>` element.

    Args:
      figure: drawn in the colours of `color`.
      name: unique on the page; prefixes every id of the SVG.
      description: what it shows, for those who do not see it.

    Returns:
      The element: no size but its proportions, no outside reference, the same bytes each time.
    """
    for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
        patch.set_visible(False)
    file = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        # `savefig` would draw the figure once more before.
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg "):]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*(; )?", "", text)
    text = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', text)
    text = text.replace('xlink:href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', _shorter, text)
    for role, stand_in in _STAND_INS.items():
        text = text.replace(stand_in, f"var(--{role})")
    width, height = (72 * x for x in figure.get_size_inches())
    head = (f'<svg viewBox="0 0 {width:g} {height:g}" role="img" '
            f'aria-label="{html.escape(description)}" style="max-width:{1.25 * width:g}px">')
    return re.sub(r"\s*\n\s*", "\n", head + text[text.index(">") + 1:].rstrip())


def _shorter(attribute: re.Match[str]) -> str:
    """Coordinates to a hundredth of a pixel."""
    return re.sub(r"(\.\d\d)\d+", r"\1", attribute[0])
