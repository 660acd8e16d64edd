"""A contact sheet: a few clips of a record set on one picture, with all that is stored of them.

For each clip its frames, the optical flow as colours with the wheel that is their key, the waveform
and its log-mel spectrogram, all over the same seconds. The picture is laid out in pixels, so that
it is sharp at its own size.
"""

import dataclasses
import functools
import io
import os
import warnings
from collections.abc import Sequence

import numpy as np
import PIL.Image
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator

from elo_tf import files
from elo_tf.data import flow as flow_lib
from elo_tf.data import schema
from elo_tf.data.inspection import record_checks
from elo_tf.data.inspection.record_values import Record
from elo_tf.reporting import samples
from elo_tf.reporting.svg import ROLES
from elo_tf.views.log_mel import LogMel

DPI = 100
MARGIN = 24         # around the sheet and between its columns
LABELS = 96         # to the left of the strips
STRIP = 868         # width of the strips
HEAD = 44           # the sheet's own title
TITLE = 28          # of a clip
WAVE = 60
MEL = 84
SPACE = 8           # between the strips of a clip
SECONDS = 44        # the axis under a clip, and the space after it
LEAST, MOST = 72, 150   # height of a film strip

INK, MUTED, SOUND, GRID = (ROLES[role][0] for role in ("ink", "muted", "audio", "grid"))
EMPTY = "#f3f4f6"


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip to draw.

    Attributes:
      id: of the clip.
      frames: uint8 [T, H, W, 3], up to 8 of its frames, evenly spaced.
      flow: float [T, h, w, 2] in pixels, that of the same frames; None where there is none.
      waveform: float32 [S]; None where there is no sound.
      sample_rate: of the waveform.
      fps: frames a second of all that are stored; 0 if the record does not say.
      seconds: length of the clip; 0 likewise.
      size: (width, height) of the stored frames.
      label: names of the classes.
      split: which set it is of.
    """

    id: str
    frames: np.ndarray
    flow: np.ndarray | None = None
    waveform: np.ndarray | None = None
    sample_rate: float = float(schema.SAMPLE_RATE)
    fps: float = 0.0
    seconds: float = 0.0
    size: tuple[int, int] = (0, 0)
    label: str = ""
    split: str = ""


def read_clip(data: bytes, names: Sequence[str] | None = None, split: str = "") -> Clip:
    """A serialised record without errors -> what is drawn of it.

    Args:
      data: the record.
      names: the label map, for records that have no names of their own.
      split: which set it is of.
    """
    record = Record(tf.train.SequenceExample.FromString(data))
    encoded = [values[0] for _, values in record.feature_list(schema.IMAGE_ENCODED) or ()]
    count = min(samples.SHOWN_FRAMES, len(encoded))
    picked = (2 * np.arange(count) + 1) * len(encoded) // (2 * count)
    frames = np.stack([_decode(encoded[i]) for i in picked])
    fps = float(record.scalar(schema.IMAGE_FRAME_RATE) or 0.0)
    flows = record.feature_list(schema.FLOW_ENCODED)
    flow = None
    if flows:
        clip = record.scalar(schema.FLOW_SATURATION) or schema.FLOW_CLIP
        flow = np.stack([flow_lib.dequantise(_decode(flows[min(i, len(flows) - 1)][1][0]), clip)
                         for i in picked])
    sound = record.feature_list(schema.WAVEFORM)
    labels = [text.decode(errors="replace") for text in
              record.values(schema.LABEL_TEXT) or record.values(schema.LABEL_STRING)]
    indices = record.values(schema.LABEL_INDEX)
    if not labels:
        labels = [names[i] if names else f"label {i}" for i in indices]
    return Clip(
        id=(record.scalar(schema.EXAMPLE_ID) or b"").decode(errors="replace"),
        frames=frames, flow=flow,
        waveform=np.array(sound[0][1], np.float32) if sound else None,
        sample_rate=float(record.scalar(schema.WAVEFORM_SAMPLE_RATE) or schema.SAMPLE_RATE),
        fps=fps, seconds=len(encoded) / fps if fps else 0.0,
        size=(frames.shape[2], frames.shape[1]), label=", ".join(labels), split=split)


@functools.lru_cache
def _log_mel(sample_rate: int) -> tuple[LogMel, tf.types.experimental.GenericFunction]:
    """The spectrogram, and as a function that is traced once for waveforms of all lengths."""
    mel = LogMel(sample_rate=sample_rate, fmax=min(7500.0, sample_rate / 2))
    return mel, tf.function(mel.__call__, input_signature=[tf.TensorSpec([None, None])])


def _decode(data: bytes) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))


def draw(clips: Sequence[Clip], path: str | os.PathLike, *, title: str = "") -> None:
    """Draws the sheet, in two columns where there is more than one clip, as a PNG.

    Args:
      clips: at least one.
      path: of the PNG, which appears only when it is whole.
      title: the line above all.
    """
    sheet = _Sheet(clips)
    with warnings.catch_warnings():
        # The font lacks some letters of some file names; a box is drawn for each.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        sheet.text(MARGIN, MARGIN + 12, title, size=14, weight="bold")
        for index, clip in enumerate(clips):
            sheet.clip(index, clip)
        with files.atomic_path(path) as temporary:
            sheet.figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


class _Sheet:
    """A figure whose things are placed in pixels, counted from the upper left corner."""

    def __init__(self, clips: Sequence[Clip]):
        self._columns = min(2, len(clips))
        # Clips beside each other have strips of one height, as the tallest of them needs.
        self._heights, self._tops, top = [], [], MARGIN + HEAD
        for first in range(0, len(clips), self._columns):
            shape = max(clip.size[1] / clip.size[0] for clip in clips[first:first + self._columns])
            self._heights.append(int(np.clip(STRIP / samples.SHOWN_FRAMES * shape, LEAST, MOST)))
            self._tops.append(top)
            top += TITLE + 2 * (self._heights[-1] + SPACE) + WAVE + SPACE + MEL + SECONDS
        self.width = MARGIN + self._columns * (LABELS + STRIP + MARGIN)
        self.height = top
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI,
                             facecolor="white")
        self._renderer = FigureCanvasAgg(self.figure).get_renderer()

    def place(self, index: int) -> tuple[int, int, int]:
        """Where a clip's title and strips begin, left and top, and how high its film strips are."""
        row, column = divmod(index, self._columns)
        left = MARGIN + column * (LABELS + STRIP + MARGIN) + LABELS
        return left, self._tops[row], self._heights[row]

    def clip(self, index: int, clip: Clip) -> None:
        """Draws one clip."""
        left, top, height = self.place(index)
        self._titles(left, top, clip)
        top += TITLE
        self._label(left, top, height, "frames")
        self.image(left, top, samples.filmstrip(clip.frames, height=height, width=STRIP))
        top += height + SPACE
        self._flow(left, top, height, clip)
        top += height + SPACE
        self._sound(left, top, clip)

    def _titles(self, left: int, top: int, clip: Clip) -> None:
        facts = [clip.label, clip.split, f"{clip.fps:g} fps" if clip.fps else "",
                 f"{clip.seconds:.3g} s" if clip.seconds else "",
                 f"{clip.size[0]} x {clip.size[1]}"]
        text = "   ".join(_printable(fact) for fact in facts if fact)
        text = self._shortened(text, STRIP * 2 // 3, size=11)
        x = left + STRIP - self.text(left + STRIP, top + TITLE / 2 - 3, text, size=11, color=MUTED,
                                     align="right")
        name = _printable(clip.id) or "(no id)"
        self.text(left, top + TITLE / 2 - 3,
                  self._shortened(name, x - left - 20, size=12, weight="bold"), size=12,
                  weight="bold")

    def _flow(self, left: int, top: int, height: int, clip: Clip) -> None:
        if clip.flow is None:
            self._label(left, top, height, "flow")
            self._nothing(left, top, height, "no optical flow")
            return
        lengths = np.hypot(clip.flow[..., 0], clip.flow[..., 1])
        # Of the longest, a few wrong pixels would make all others pale.
        rim = max(1.0, float(np.percentile(lengths, 99)))
        colours = samples.flow_colors(clip.flow, longest=rim)
        self.image(left, top, samples.filmstrip(colours, height=height, width=STRIP, border=True))
        wheel = samples.color_wheel(min(44, height - 30))
        right = left - 12
        self.text(right - wheel.shape[1] - 6, top + wheel.shape[0] / 2, "flow", size=11,
                  align="right")
        self.image(right - wheel.shape[1], top, wheel)
        self.text(right, top + wheel.shape[0] + 9, f"rim {rim:.1f} px", size=9, color=MUTED,
                  align="right")
        self.text(right, top + wheel.shape[0] + 22, f"max {lengths.max():.1f} px", size=9,
                  color=MUTED, align="right")

    def _sound(self, left: int, top: int, clip: Clip) -> None:
        length = 0.0 if clip.waveform is None else len(clip.waveform) / clip.sample_rate
        seconds = clip.seconds or length or 1.0
        if clip.waveform is None:
            self._label(left, top, WAVE + SPACE + MEL, "sound")
            axes = self._nothing(left, top, WAVE + SPACE + MEL, "no sound")
        else:
            peak = float(np.abs(clip.waveform).max())
            rms = float(np.sqrt(np.mean(np.square(clip.waveform, dtype=np.float64))))
            level = f"{record_checks.decibels(rms):.0f} dB" if rms else "all zero"
            self._label(left, top, WAVE, "sound", level, f"peak {peak:.2f}")
            wave = self.axes(left, top, WAVE)
            times, low, high = envelope(clip.waveform, clip.sample_rate, STRIP)
            wave.fill_between(times, low, high, color=SOUND, linewidth=0.6)
            wave.set(xlim=(0, seconds), ylim=(-max(peak, 1e-4) * 1.05, max(peak, 1e-4) * 1.05))
            wave.set_xticks([])
            self._label(left, top + WAVE + SPACE, MEL, "log-mel")
            axes = self.axes(left, top + WAVE + SPACE, MEL)
            mel, spectrogram = _log_mel(int(clip.sample_rate))
            picture = samples.spectrogram(spectrogram(clip.waveform[None])[0].numpy())
            axes.imshow(picture, aspect="auto", extent=(0, length, 0, 1), interpolation="bilinear")
            for height, hertz in ((6, mel.fmax), (MEL - 6, mel.fmin)):
                self.text(left - 12, top + WAVE + SPACE + height, f"{hertz:g} Hz", size=9,
                          color=MUTED, align="right")
        axes.set_xlim(0, seconds)
        if not clip.seconds and not length:
            return
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} s")
        axes.tick_params(axis="x", length=3, colors=MUTED, labelsize=9)

    def axes(self, left: int, top: int, height: int) -> Axes:
        """Axes over a strip, without frame or vertical ticks."""
        axes = self.figure.add_axes((left / self.width, 1 - (top + height) / self.height,
                                     STRIP / self.width, height / self.height))
        axes.set_yticks([])
        axes.spines[:].set_color(GRID)
        return axes

    def _nothing(self, left: int, top: int, height: int, text: str) -> Axes:
        axes = self.axes(left, top, height)
        axes.set_facecolor(EMPTY)
        axes.set_xticks([])
        self.text(left + STRIP / 2, top + height / 2, text, size=11, color=MUTED, align="center")
        return axes

    def image(self, left: int, top: int, image: np.ndarray) -> None:
        """An image, uint8 [h, w, 4], pixel by pixel."""
        self.figure.figimage(image, left, self.height - top - image.shape[0], origin="upper")

    def _label(self, left: int, top: int, height: int, *lines: str) -> None:
        """What a strip is, to its left, and in smaller lines what it measures."""
        first = top + height / 2 - 7 * (len(lines) - 1)
        for i, line in enumerate(lines):
            self.text(left - 12, first + 14 * i, line, size=9 if i else 11,
                      color=MUTED if i else INK, align="right")

    def text(self, x: float, y: float, text: str, *, size: int, color: str = INK,
             weight: str = "normal", align: str = "left") -> float:
        """Text at a place, by its vertical middle; gives its width."""
        self.figure.text(x / self.width, 1 - y / self.height, text, size=size, color=color,
                         weight=weight, ha=align, va="center_baseline", parse_math=False)
        return self._measure(text, size, weight)

    def _measure(self, text: str, size: int, weight: str) -> float:
        font = FontProperties(size=size, weight=weight)
        return self._renderer.get_text_width_height_descent(text, font, ismath=False)[0]

    def _shortened(self, text: str, width: float, *, size: int, weight: str = "normal") -> str:
        """The text without as much of its middle as is needed to fit."""
        short, kept = text, len(text)
        while self._measure(short, size, weight) > width and kept > 2:
            kept -= 1
            short = f"{text[:kept // 3]}…{text[len(text) - (kept - kept // 3):]}"
        return short


def envelope(waveform: np.ndarray, sample_rate: float,
             columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The least and the largest sample of each column of a picture.

    Args:
      waveform: float [S].
      sample_rate: samples a second.
      columns: at most so many.

    Returns:
      The middle of each column in seconds, its least and its largest sample.
    """
    edges = np.linspace(0, len(waveform), min(columns, len(waveform)) + 1).astype(int)
    starts = edges[:-1]
    return ((starts + edges[1:]) / 2 / sample_rate, np.minimum.reduceat(waveform, starts),
            np.maximum.reduceat(waveform, starts))


def _printable(text: str) -> str:
    """Text without line ends and other characters that have no picture."""
    return "".join(c if c.isprintable() else " " for c in text)
