"""Writes clips as SequenceExamples with the keys of `schema.py`, in shards that appear whole."""

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np
import tensorflow as tf

from elo_tf import files
from elo_tf.data import schema
from elo_tf.data.encoding import EncodedClip
from elo_tf.errors import UserError


def encode_example(clip: EncodedClip, *, example_id: str, path: str = "", dataset: str = "",
                   label: int | None = None, label_name: str | None = None,
                   caption: str | None = None, melspec: np.ndarray | None = None) -> bytes:
    """Assembles the record of a clip.

    Args:
      clip: the encoded frames, flow and sound.
      example_id: the clip's unique and stable name.
      path: where its file lies below the data set's root; all clips of a file share it.
      dataset: the data set's name; left out if empty.
      label: index of the class, or None.
      label_name: name of the class, or None.
      caption: what is said about the clip, or None.
      melspec: float32 [seconds, 100, 128], see `melspec.py`; None to leave it out.

    Returns:
      A serialised `tf.train.SequenceExample`, the same bytes for the same clip.
    """
    example = tf.train.SequenceExample()
    start = round(clip.start * schema.MICROSECONDS)
    times = [start + round(k / clip.fps * schema.MICROSECONDS) for k in range(len(clip.images) + 1)]
    context: dict[str, bytes | str | int | float | np.ndarray] = {
        schema.EXAMPLE_ID: example_id,
        schema.DATA_PATH: path or example_id,
        schema.MEDIA_ID: path or example_id,
        schema.FILENAME: os.path.basename(path or example_id),
        schema.START_TIMESTAMP: start,
        schema.END_TIMESTAMP: times[-1],
        schema.IMAGE_FORMAT: "JPEG",
        schema.IMAGE_COLORSPACE: "RGB",
        schema.IMAGE_CHANNELS: 3,
        schema.IMAGE_HEIGHT: clip.height,
        schema.IMAGE_WIDTH: clip.width,
        schema.IMAGE_FRAME_RATE: float(clip.fps),
    }
    if dataset:
        context[schema.DATASET_NAME] = dataset
    if label is not None:
        context[schema.LABEL_INDEX] = label
        context[schema.LABEL_TEXT] = context[schema.LABEL_STRING] = label_name or str(label)
    if caption is not None:
        context[schema.CAPTION] = caption
    if clip.damaged:
        context[schema.DAMAGED] = 1
    _add_list(example, schema.IMAGE_ENCODED, clip.images)
    _add_list(example, schema.IMAGE_TIMESTAMP, times[:-1])
    if clip.flows is not None:
        context |= {
            schema.FLOW_FORMAT: "PNG",
            schema.FLOW_CHANNELS: 3,
            schema.FLOW_HEIGHT: clip.height,
            schema.FLOW_WIDTH: clip.width,
            schema.FLOW_FRAME_RATE: float(clip.fps),
            schema.FLOW_SATURATION: schema.FLOW_CLIP,
        }
        _add_list(example, schema.FLOW_ENCODED, clip.flows)
        _add_list(example, schema.FLOW_TIMESTAMP, times[:-1])
    if clip.audio is not None:
        context |= {
            schema.WAVEFORM_SAMPLE_RATE: float(schema.SAMPLE_RATE),
            schema.WAVEFORM_CHANNELS: 1,
            schema.WAVEFORM_SAMPLES: len(clip.audio),
        }
        _add_list(example, schema.WAVEFORM, [clip.audio])
    if melspec is not None:
        _add_list(example, schema.MELSPEC, melspec)
    for key, value in context.items():
        _fill(example.context.feature[key], value)
    return example.SerializeToString(deterministic=True)


def _add_list(example: tf.train.SequenceExample, key: str, values: Iterable) -> None:
    feature_list = example.feature_lists.feature_list[key]
    for value in values:
        _fill(feature_list.feature.add(), value)


def _fill(feature: tf.train.Feature, value: bytes | str | int | float | np.ndarray) -> None:
    if isinstance(value, str):
        # Names of files are bytes: those that are not UTF-8 are kept as they are.
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        feature.bytes_list.value.append(value)
    elif isinstance(value, int):
        feature.int64_list.value.append(value)
    else:
        feature.float_list.ParseFromString(_float_list(np.asarray(value, "<f4").tobytes()))


def _float_list(data: bytes) -> bytes:
    """The coded `tf.train.FloatList` of little-endian floats.

    The same bytes as by `value.extend`, which takes 30 ms for ten seconds of sound, 200 times as
    long.
    """
    length = bytearray()
    rest = len(data)
    while rest > 127:
        length.append(rest & 127 | 128)
        rest >>= 7
    length.append(rest)
    # Field 1 of the message, as one run of bytes: its floats are packed.
    return b"\x0a" + bytes(length) + data


class _AbortedError(Exception):
    """Ends the writing of a file that is not wanted any more."""


class ShardFile:
    """A TFRecord file that is being written, and that appears only when it is whole.

    Either `close` completes it, or `abort` leaves nothing; at the end of a `with` statement, the
    one or the other as it ended.

    Attributes:
      path: the file.
      count: records written so far.
      bytes: the size of these records.
      largest: the size of the largest of them.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self.count = self.bytes = self.largest = 0
        with self._naming_errors(), contextlib.ExitStack() as stack:
            temporary = stack.enter_context(files.atomic_path(self.path))
            # The record writer closes, with what it still holds, before the file takes its name.
            self._writer = stack.enter_context(tf.io.TFRecordWriter(str(temporary)))
            self._stack = stack.pop_all()

    def write(self, record: bytes) -> None:
        """Appends a serialised record.

        Raises:
          UserError: if the file cannot be written, as by a full disk.
        """
        with self._naming_errors():
            self._writer.write(record)
        self.count += 1
        self.bytes += len(record)
        self.largest = max(self.largest, len(record))

    def close(self) -> None:
        """Completes the file.

        Raises:
          UserError: if the file cannot be written; nothing remains.
        """
        with self._naming_errors():
            self._stack.close()

    def abort(self) -> None:
        """Removes what was written."""
        # What broke before says it all: a full disk is still full when the writer closes.
        with contextlib.suppress(OSError, tf.errors.OpError, _AbortedError):
            self._stack.__exit__(_AbortedError, _AbortedError(), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            # TensorFlow puts the temporary file's name before the reason.
            reason = (error.message.rpartition("; ")[2] if isinstance(error, tf.errors.OpError)
                      else error.strerror or error)
            raise UserError(f"cannot write {self.path}: {reason}; free the space or choose "
                            "another --output") from error


def write_shard(path: str | os.PathLike, examples: Iterable[bytes]) -> int:
    """Writes serialised records to a TFRecord file, which appears only when it is whole.

    Args:
      path: the file.
      examples: the records, in their order; drawn one by one.

    Returns:
      How many were written.

    Raises:
      UserError: if the file cannot be written.
    """
    with ShardFile(path) as shard:
        for example in examples:
            shard.write(example)
    return shard.count
