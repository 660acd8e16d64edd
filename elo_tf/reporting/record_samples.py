"""Sample clips of a record set, as the networks see them."""

import tensorflow as tf

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.pipeline import reading, testing_clips
from elo_tf.data.record_set import MixedRecords, Records
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
