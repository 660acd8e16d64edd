"""Sample clips of a record set, as the networks see them."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from elo_tf.data import schema, streams
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.decoding import decode_window, spread_box
from elo_tf.data.parsing import parse, record_id
from elo_tf.data.pipeline import reading, testing_clips
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.data.sampling import spread_windows
from elo_tf.reporting.samples import Sample
from elo_tf.views.clip_views import FLOW_SCALE, RGB_MEAN, RGB_SCALE, ClipViews


def read_samples(records: Records | MixedRecords, split: str, clip: ClipSpec,
                 count: int = 4) -> list[Sample]:
    """Reads clips, those with sound and flow first among the first few dozen.

    Args:
      records: the record set.
      split: of the records.
      clip: the clip's size.
      count: how many.

    Returns:
      At most `count` samples.
    """
    clips = testing_clips(records, split, clip, batch_size=1).take(8 * count)
    with reading(records, split):
        batches = sorted(clips, key=lambda b: -(int(b["has_audio"][0]) + int(b["has_flow"][0])))
    names = records.labels()
    return [sample_of(batch, clip, names) for batch in batches[:count]]


def read_frames(records: Records | MixedRecords, split: str, clip: ClipSpec, ids: Iterable[str], *,
                size: int = 64) -> dict[str, np.ndarray]:
    """Reads the frames of given clips in one pass over the shards; only these are decoded.

    Args:
      records: the record set.
      split: of the records.
      clip: the clip's size.
      ids: of the clips, as `testing_clips` gives them.
      size: side of the frames in pixels, S.

    Returns:
      uint8 [T, S, S, 3] of the middle window by id; an id that is not there, or cannot be decoded,
      is left out. Of several clips of one id, the first.
    """
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    stream = streams.Stream(records, split)
    clip = dataclasses.replace(clip, size=size, host_size=0)
    contexts = {name: schema.context_spec()[name] for name in (
        schema.EXAMPLE_ID, schema.FILENAME, schema.START_TIMESTAMP)}

    def name_of(example: tf.Tensor) -> tf.Tensor:
        context, _ = tf.io.parse_single_sequence_example(example, contexts)
        return record_id(context, example)

    @streams.plain
    def named(place: tf.Tensor, example: tf.Tensor):
        return example, stream.rates(place)["frame_rate"], *streams.attempt(name_of, example)

    def decode(example: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        parsed = parse(example, clip, modalities=("rgb",), frame_rate=rate)
        start = spread_windows(parsed["track"], 1, clip.frames)[0, 0]
        box = spread_box(parsed["height"], parsed["width"], clip)
        return decode_window(parsed, start, clip.frames, box, size, clip, modalities=("rgb",),
                             scaled=True)["rgb"]

    @streams.plain
    def decoded(example: tf.Tensor, rate: tf.Tensor, name: tf.Tensor, good: tf.Tensor):
        return name, *streams.attempt(decode, example, rate)

    chosen = stream.once().map(named).filter(streams.plain(
        lambda example, rate, name, good: good & tf.reduce_any(name == tf.constant(wanted))))
    found: dict[str, np.ndarray] = {}
    with reading(records, split):
        for name, frames, good in chosen.map(decoded):
            if good:
                found.setdefault(name.numpy().decode(errors="replace"), frames.numpy())
            if len(found) == len(wanted):
                break
    return found


def sample_of(batch: dict[str, tf.Tensor], clip: ClipSpec, names: list[str]) -> Sample:
    """A batch of one clip -> what the report shows of it."""
    views = ClipViews(batch, clip)
    frames = (views.view("rgb", "intact")[0] * RGB_SCALE + RGB_MEAN) * 255.0
    label = int(batch["label"][0])
    return Sample(
        id=batch["id"][0].numpy().decode(errors="replace"),
        frames=tf.cast(tf.clip_by_value(tf.round(frames), 0, 255), tf.uint8).numpy(),
        flow=(views.view("flow", "intact")[0] * FLOW_SCALE).numpy() if batch["has_flow"][0]
        else None,
        log_mel=views.view("audio", "intact")[0].numpy() if batch["has_audio"][0] else None,
        label=names[label] if 0 <= label < len(names) else "")
