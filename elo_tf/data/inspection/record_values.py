"""A parsed record's values by key, what is known of a record, and what is wrong with it."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from elo_tf.data import schema

ERROR, WARNING = "error", "warning"

KINDS = {
    **dict.fromkeys(
        (schema.EXAMPLE_ID, schema.IMAGE_FORMAT, schema.IMAGE_COLORSPACE, schema.FLOW_FORMAT,
         schema.LABEL_TEXT, schema.LABEL_STRING, schema.CAPTION, schema.DATASET_NAME,
         schema.DATA_PATH, schema.MEDIA_ID, schema.FILENAME), "bytes_list"),
    **dict.fromkeys(
        (schema.IMAGE_CHANNELS, schema.IMAGE_HEIGHT, schema.IMAGE_WIDTH, schema.FLOW_CHANNELS,
         schema.FLOW_HEIGHT, schema.FLOW_WIDTH, schema.WAVEFORM_CHANNELS, schema.WAVEFORM_SAMPLES,
         schema.LABEL_INDEX, schema.START_TIMESTAMP, schema.END_TIMESTAMP, schema.DAMAGED),
        "int64_list"),
    **dict.fromkeys(
        (schema.IMAGE_FRAME_RATE, schema.FLOW_FRAME_RATE, schema.FLOW_SATURATION,
         schema.WAVEFORM_SAMPLE_RATE), "float_list"),
}
"""The kind of each context key; readers refuse another."""

MANY = frozenset((schema.LABEL_INDEX, schema.LABEL_TEXT, schema.LABEL_STRING, schema.CAPTION))
"""The context keys that may have several values."""


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
      level: `ERROR` or `WARNING`.
      check: a short stable name of what was checked.
      message: what is wrong, and how to mend it.
    """

    level: str
    check: str
    message: str


class Findings(list[Finding]):
    """What is wrong with a record, in the order in which it was found."""

    def error(self, check: str, message: str) -> None:
        """Adds something that makes the record wrong."""
        self.append(Finding(ERROR, check, message))

    def warning(self, check: str, message: str) -> None:
        """Adds something that may be meant so."""
        self.append(Finding(WARNING, check, message))

    def has(self, check: str) -> bool:
        """Whether a check found something."""
        return any(finding.check == check for finding in self)


@dataclasses.dataclass
class Facts:
    """What a record holds.

    Attributes:
      id: `example/id`, "" without one.
      frames: how many.
      fps: frames a second, 0 if the record does not say.
      height: of the first frame, 0 if it does not decode.
      width: of it.
      image_bytes: of all encoded frames.
      flows: how many flow images.
      flow_clip: largest flow that can be stored, in pixels.
      flow_codes: int64 [65536], counts of 256 * (code of x) + (code of y); None without flow.
      has_audio: whether there is sound.
      sample_rate: of the sound, 0 if the record does not say.
      rms: of the samples, 0..1.
      labels: indices of the classes.
      label_names: their names, where the record has as many names as indices.
    """

    id: str = ""
    frames: int = 0
    fps: float = 0.0
    height: int = 0
    width: int = 0
    image_bytes: int = 0
    flows: int = 0
    flow_clip: float = 0.0
    flow_codes: np.ndarray | None = None
    has_audio: bool = False
    sample_rate: float = 0.0
    rms: float = 0.0
    labels: tuple[int, ...] = ()
    label_names: tuple[str, ...] = ()

    @property
    def has_flow(self) -> bool:
        """Whether there is flow."""
        return self.flows > 0

    @property
    def seconds(self) -> float:
        """Length of the clip; 0 if the frame rate is not known."""
        return self.frames / self.fps if self.fps > 0 else 0.0


class Record:
    """Values of a SequenceExample by key, without adding the keys that are asked for."""

    def __init__(self, example: tf.train.SequenceExample):
        self._context = example.context.feature
        self._lists = example.feature_lists.feature_list

    def context_kind(self, key: str) -> str | None:
        """"bytes_list", "int64_list" or "float_list" of a context key; None without values."""
        return self._context[key].WhichOneof("kind") if key in self._context else None

    def context_values(self, key: str) -> list[Any] | None:
        """The values of a context key; None if it is missing or empty."""
        kind = self.context_kind(key)
        return list(getattr(self._context[key], kind).value) or None if kind else None

    def scalar(self, key: str) -> Any:
        """The first value of a context key; None if there is none of the right kind."""
        values = self.values(key)
        return values[0] if values else None

    def values(self, key: str) -> list[Any]:
        """The values of a context key; empty if there are none of the right kind."""
        right = self.context_kind(key) == KINDS[key]
        return (self.context_values(key) or []) if right else []

    def feature_list(self, key: str) -> list[tuple[str | None, Any]] | None:
        """(kind, values) of each Feature of a feature list; None if the list is missing."""
        if key not in self._lists:
            return None
        kinds = [(feature, feature.WhichOneof("kind")) for feature in self._lists[key].feature]
        return [(kind, getattr(feature, kind).value if kind else ()) for feature, kind in kinds]
