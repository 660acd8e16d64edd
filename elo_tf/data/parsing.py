"""A serialized record -> its encoded frames, its waveform, and what is known of them.

Records of other writers are read too: what they leave out (rates, ids, sound, flow, labels) has a
stated replacement or is an error that names the record and the mend.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from elo_tf.data import schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.sampling import track_of

STORED = ("rgb", "flow", "audio")
"""The modalities of a record; gray is made of rgb."""

KEYS = 2**31 - 1  # ids are hashed to int32, the width of a stateless seed


def parse(example: tf.Tensor, spec: ClipSpec, *, modalities: Sequence[str] = STORED,
          frame_rate: tf.Tensor | float = 0.0,
          sample_rate: tf.Tensor | float = 0.0) -> dict[str, tf.Tensor]:
    """Parses a record.

    Args:
      example: string [], serialized.
      spec: the clip's size.
      modalities: of `STORED`; what is left out costs nothing and has no keys below.
      frame_rate: of the frames, if the record does not say; 0 if that is not known.
      sample_rate: of the sound, if the record does not say; 0 if that is not known.

    Returns:
      id: string []; key: int64 [], a hash of it; label: int64 [], -1 without one.
      track: int32 [M], see `sampling.track_of`.
      height, width: int32 [], of the frames.
      unsaid: string [], the name of a rate that is needed and not known, or "".
      images: string [N], JPEG files (rgb).
      flows: string [N'], PNG or JPEG files; flow_clip: float32 [], the code's largest flow;
        has_flow: bool [] (flow).
      waveform: float32 [S]; waveform_rate: float32 []; has_audio: bool [] (audio).

    Raises:
      tf.errors.InvalidArgumentError: if it is no record, or has no frames.
    """
    wanted = {schema.IMAGE_ENCODED: True, schema.FLOW_ENCODED: "flow" in modalities,
              schema.WAVEFORM: "audio" in modalities}
    context, lists = tf.io.parse_single_sequence_example(
        example, schema.context_spec(),
        {key: value for key, value in schema.sequence_spec().items() if wanted[key]})
    images = lists[schema.IMAGE_ENCODED]
    frames = tf.size(images)
    name = record_id(context, example)
    rate = first_positive(context[schema.IMAGE_FRAME_RATE], frame_rate)
    # A picture by itself is shown all the time.
    unsaid = tf.where(tf.logical_and(rate <= 0, frames > 1), "frame_rate", "")
    with tf.control_dependencies([require(frames > 0, lambda: tf.strings.join([
            "record ", name, " has no frames"]))]):
        shape = tf.io.extract_jpeg_shape(images[0])
    label = context[schema.LABEL_INDEX].values
    parsed = {
        "id": name,
        "key": hashed(name),
        "label": tf.concat([label, [tf.constant(-1, tf.int64)]], axis=0)[0],
        "track": track_of(frames, first_positive(rate, spec.fps), spec.fps),
        "images": images,
        "height": shape[0],
        "width": shape[1],
    }
    if "flow" in modalities:
        flows = lists[schema.FLOW_ENCODED]
        parsed |= {"flows": flows, "flow_clip": context[schema.FLOW_SATURATION],
                   "has_flow": tf.size(flows) > 0}
    if "audio" in modalities:
        waveform = lists[schema.WAVEFORM].values
        has_audio = tf.size(waveform) > 0
        rate = first_positive(context[schema.WAVEFORM_SAMPLE_RATE], sample_rate)
        unsaid = tf.where(tf.logical_and(rate <= 0, has_audio), "sample_rate", unsaid)
        parsed |= {"waveform": waveform, "has_audio": has_audio,
                   "waveform_rate": first_positive(rate, float(spec.sample_rate))}
    return parsed | {"unsaid": unsaid}


def first_positive(value: tf.Tensor, other: tf.Tensor | float) -> tf.Tensor:
    """A float32 [], or the other where it is 0."""
    return tf.where(value > 0, value, other)


def video_key(example: tf.Tensor) -> tf.Tensor:
    """A hash of the video that a record comes from, int64 [] in [0, KEYS).

    That of its media id, or else of its id; a foreign record without either goes by its file name,
    and one that has no name by its bytes.
    """
    names = (schema.MEDIA_ID, schema.EXAMPLE_ID, schema.FILENAME)
    context, _ = tf.io.parse_single_sequence_example(
        example, {name: schema.context_spec()[name] for name in names})
    return hashed(first_of([*(context[name] for name in names), example]))


def example_id(example: tf.Tensor) -> tf.Tensor:
    """The id that `parse` gives a record, string []; nothing else of it is parsed."""
    names = (schema.EXAMPLE_ID, schema.FILENAME, schema.START_TIMESTAMP)
    context, _ = tf.io.parse_single_sequence_example(
        example, {name: schema.context_spec()[name] for name in names})
    return record_id(context, example)


def record_id(context: dict[str, tf.Tensor], example: tf.Tensor) -> tf.Tensor:
    """A record's id, or else its file name and start, or else a fingerprint of its bytes."""
    filename = context[schema.FILENAME]

    def other() -> tf.Tensor:
        place = tf.strings.join([filename, ":", tf.strings.as_string(
            tf.cast(context[schema.START_TIMESTAMP], tf.float64) / schema.MICROSECONDS,
            precision=3)])
        fingerprint = tf.strings.as_string(tf.strings.to_hash_bucket_fast(example, 2**63 - 1))
        return tf.where(tf.strings.length(filename) > 0, place,
                        tf.strings.join(["record ", fingerprint]))

    own = context[schema.EXAMPLE_ID]
    return tf.cond(tf.strings.length(own) > 0, lambda: own, other)


def first_of(names: Sequence[tf.Tensor]) -> tf.Tensor:
    """The first string [] that is not empty."""
    found = names[-1]
    for name in reversed(names[:-1]):
        found = tf.where(tf.strings.length(name) > 0, name, found)
    return found


def hashed(name: tf.Tensor) -> tf.Tensor:
    """An int64 in [0, KEYS) for each string, the same in every process."""
    return tf.strings.to_hash_bucket_fast(name, KEYS)


def require(condition: tf.Tensor, message: Callable[[], tf.Tensor]) -> tf.Tensor:
    """Fails where the condition does not hold, with a message that is made only then."""

    def fail() -> tf.Tensor:
        with tf.control_dependencies([tf.debugging.Assert(tf.constant(False), [message()])]):
            return tf.constant(False)

    return tf.cond(condition, lambda: tf.constant(True), fail)
