"""The record format: every key of a record, its constants, and how to parse it.

A record is a `tf.train.SequenceExample` with the keys of MediaSequence and DMVR, so that DMVR,
Scenic, Model Garden and MediaPipe read it. Context features hold one value for the clip, feature
lists hold one entry for each frame, except the waveform, which is one entry for the whole clip.
A modality that the video lacks has no keys at all.
"""

from typing import Any

# Frames: one JPEG for each frame, at constant rate; frame k is at k / frame_rate seconds.
IMAGE_ENCODED = "image/encoded"
IMAGE_TIMESTAMP = "image/timestamp"
IMAGE_FORMAT = "image/format"
IMAGE_COLORSPACE = "image/colorspace"
IMAGE_CHANNELS = "image/channels"
IMAGE_HEIGHT = "image/height"
IMAGE_WIDTH = "image/width"
IMAGE_FRAME_RATE = "image/frame_rate"

# Optical flow: one PNG for each frame, red = x, green = y, blue = 0, quantised as in `flow.py`.
FLOW_ENCODED = "FORWARD_FLOW/image/encoded"
FLOW_TIMESTAMP = "FORWARD_FLOW/image/timestamp"
FLOW_FORMAT = "FORWARD_FLOW/image/format"
FLOW_CHANNELS = "FORWARD_FLOW/image/channels"
FLOW_HEIGHT = "FORWARD_FLOW/image/height"
FLOW_WIDTH = "FORWARD_FLOW/image/width"
FLOW_FRAME_RATE = "FORWARD_FLOW/image/frame_rate"
FLOW_SATURATION = "FORWARD_FLOW/image/saturation"

# Sound: the whole mono waveform, float32 in [-1, 1], in one entry; it lasts as long as the frames.
WAVEFORM = "WAVEFORM/feature/floats"
WAVEFORM_SAMPLE_RATE = "WAVEFORM/feature/sample_rate"
WAVEFORM_CHANNELS = "WAVEFORM/feature/num_channels"
WAVEFORM_SAMPLES = "WAVEFORM/feature/num_samples"

# Log-mel spectrogram as MBT reads it: one entry of 100 x 128 floats for each second of sound.
# Optional, and not read here: the networks' spectrogram is computed from the waveform.
MELSPEC = "melspec/feature/floats"

# Labels: DMVR reads `text`, MediaSequence reads `string`; both are written.
LABEL_INDEX = "clip/label/index"
LABEL_TEXT = "clip/label/text"
LABEL_STRING = "clip/label/string"

# What is said about the clip, as DMVR reads it.
CAPTION = "caption/string"

# Where the clip came from.
EXAMPLE_ID = "example/id"
DATASET_NAME = "example/dataset_name"
DATA_PATH = "clip/data_path"
MEDIA_ID = "clip/media_id"
START_TIMESTAMP = "clip/start/timestamp"
END_TIMESTAMP = "clip/end/timestamp"
FILENAME = "video/filename"

# Our own: int64 1 where parts of the source could not be decoded.
DAMAGED = "clip/damaged"

SAMPLE_RATE = 16000
"""Samples a second of every stored waveform."""

FLOW_CLIP = 20.0
"""Largest stored flow in pixels of the stored frame, per step; MediaSequence's saturation."""

MICROSECONDS = 1_000_000
"""Timestamps are whole microseconds of the source video."""

LABELS_FILE = "labels.txt"
"""The label map beside the shards: the name of label i on line i, counted from 0."""

REJECTS_FILE = "rejects.csv"
"""The videos that could not be used: path, split, reason, detail."""


def shard_name(split: str, index: int, shards: int) -> str:
    """File name of one shard, such as `train-00000-of-00010.tfrecord`."""
    return f"{split}-{index:05d}-of-{shards:05d}.tfrecord"


def summary_name(split: str) -> str:
    """File name of a split's summary: settings, counts, and whether all its shards are written."""
    return f"{split}.json"


def context_spec() -> dict[str, Any]:
    """Specification of a record's context for `tf.io.parse_single_sequence_example`.

    Returns:
      Feature specifications by key. Keys that a record lacks give 0, "" or an empty tensor:
      `LABEL_INDEX` is a sparse tensor that is empty for an unlabelled clip, `FLOW_SATURATION` is 0
      for a clip without flow, `WAVEFORM_SAMPLE_RATE` is 0 for one without sound.
    """
    import tensorflow as tf  # Here, since the processes that only encode do without it.

    def scalar(dtype: tf.DType, default: Any) -> tf.io.FixedLenFeature:
        return tf.io.FixedLenFeature([], dtype, default_value=default)

    return {
        EXAMPLE_ID: scalar(tf.string, ""),
        MEDIA_ID: scalar(tf.string, ""),
        FILENAME: scalar(tf.string, ""),
        IMAGE_FRAME_RATE: scalar(tf.float32, 0.0),
        IMAGE_HEIGHT: scalar(tf.int64, 0),
        IMAGE_WIDTH: scalar(tf.int64, 0),
        FLOW_SATURATION: scalar(tf.float32, 0.0),
        WAVEFORM_SAMPLE_RATE: scalar(tf.float32, 0.0),
        LABEL_INDEX: tf.io.VarLenFeature(tf.int64),
        START_TIMESTAMP: scalar(tf.int64, 0),
        END_TIMESTAMP: scalar(tf.int64, 0),
    }


def sequence_spec() -> dict[str, Any]:
    """Specification of a record's feature lists for `tf.io.parse_single_sequence_example`.

    Returns:
      Feature specifications by key: `IMAGE_ENCODED` and `FLOW_ENCODED` parse to string [N] (flow
      [0] for a clip without flow), `WAVEFORM` to a ragged float32 [1, S] ([0, None] for a clip
      without sound), whose `.values` are the samples in both cases.
    """
    import tensorflow as tf  # Here, since the processes that only encode do without it.

    return {
        IMAGE_ENCODED: tf.io.FixedLenSequenceFeature([], tf.string),
        FLOW_ENCODED: tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
        WAVEFORM: tf.io.RaggedFeature(tf.float32),
    }
