"""Writes clips as SequenceExamples with the keys of `schema.py`, in shards that appear whole."""

import os
import pathlib
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from elo_tf import files
from elo_tf.data import schema
from elo_tf.data.encoding import EncodedClip
from elo_tf.errors import UserError


def encode_example(clip: EncodedClip, *, example_id: str, path: str = "", dataset: str = "",
                   label: int | None = None, label_name: str | None = None) -> bytes:
    """Assembles the record of a clip.

    Args:
      clip: the encoded frames, flow and sound.
      example_id: the clip's unique and stable name.
      path: where its file lies below the data set's root.
      dataset: the data set's name; left out if empty.
      label: index of the class, or None.
      label_name: name of the class, or None.

    Returns:
      A serialised `tf.train.SequenceExample`, the same bytes for the same clip.
    """
    example = tf.train.SequenceExample()
    start = round(clip.start * schema.MICROSECONDS)
    times = [start + round(k / clip.fps * schema.MICROSECONDS) for k in range(len(clip.images) + 1)]
    context = {
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
        feature.float_list.value.extend(np.atleast_1d(value).astype(np.float32))


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
    path = pathlib.Path(path)
    count = 0
    try:
        with (files.atomic_path(path) as temporary,
              tf.io.TFRecordWriter(str(temporary)) as writer):
            for example in examples:
                writer.write(example)
                count += 1
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot write {path}: {error}; free the space or choose another "
                        "--output") from error
    return count
