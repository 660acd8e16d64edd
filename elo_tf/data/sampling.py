"""Which frames of a record make a clip, and which samples of its waveform: one clock for both.

Records are stored at their own frame rate. A *track* is the record resampled to the clip's rate:
its entry j is the stored frame shown at j / fps seconds. Windows are placed on the track, so that
frames, flow and sound of a window span the same seconds. A record shorter than a window is
repeated, all modalities at the same instant.
"""

import tensorflow as tf

from elo_tf import model_garden
from elo_tf.data.clip_spec import ClipSpec


def track_of(frames: tf.Tensor, frame_rate: tf.Tensor, fps: float) -> tf.Tensor:
    """Stored frame indices at the clip's rate.

    Args:
      frames: int32 [], number of stored frames.
      frame_rate: float32 [], of the record.
      fps: of the clip.

    Returns:
      int32 [M], at least one entry, never past the last frame.
    """
    length = tf.cast(tf.round(tf.cast(frames, tf.float32) / frame_rate * fps), tf.int32)
    # The small number keeps j * frame_rate / fps from falling under an integer by rounding.
    track = tf.floor(
        tf.range(tf.maximum(length, 1), dtype=tf.float32) * frame_rate / fps + 1e-3)
    track = tf.cast(track, tf.int32)
    return tf.minimum(track, frames - 1)


def random_windows(length: tf.Tensor, spec: ClipSpec,
                   draw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draws where a clip starts, and where its `other` window does.

    Args:
      length: int32 [], entries of the track.
      spec: the clip's size; a window is `spec.window` long, the other one `spec.frames`.
      draw: float32 [2], uniform in [0, 1).

    Returns:
      start: int32 [], uniform over the places where the window fits; 0 if it fits nowhere.
      other: int32 [], uniform over the places at least `spec.other_gap` seconds from `start`;
        `start` if there is none.
      has_other: bool [].
    """
    places = tf.maximum(length - spec.window, 0) + 1
    start = pick(draw[0], places)
    gap = max(round(spec.other_gap * spec.fps), 1)
    before = tf.maximum(start - gap + 1, 0)
    after = tf.maximum(length - spec.frames - (start + gap) + 1, 0)
    choice = pick(draw[1], tf.maximum(before + after, 1))
    other = tf.where(choice < before, choice, start + gap + choice - before)
    has_other = before + after > 0
    return start, tf.where(has_other, other, start), has_other


def pick(uniform: tf.Tensor, choices: tf.Tensor) -> tf.Tensor:
    """A uniform number in [0, 1) -> an int32 in [0, choices)."""
    chosen = tf.cast(tf.floor(uniform * tf.cast(choices, tf.float32)), tf.int32)
    return tf.minimum(chosen, choices - 1)


def window_of(track: tf.Tensor, start: tf.Tensor, frames: int) -> tf.Tensor:
    """Stored frame indices int32 [frames] of a window; past the end the track starts again."""
    places = tf.math.floormod(start + tf.range(frames), tf.shape(track)[0])
    return tf.ensure_shape(tf.gather(track, places), [frames])


@tf.autograph.experimental.do_not_convert
def spread_windows(track: tf.Tensor, windows: int, frames: int) -> tf.Tensor:
    """Windows for testing: `windows` of them, evenly spread, the middle one if there is one.

    Args:
      track: int32 [M].
      windows: how many.
      frames: of each.

    Returns:
      int32 [windows, frames], places on the track (not stored frames).
    """
    places = model_garden.clip_ops().sample_linspace_sequence(
        tf.range(tf.shape(track)[0]), num_windows=windows if windows > 1 else 3,
        num_steps=frames, stride=1)
    places = tf.reshape(places, [-1, frames])
    return places if windows > 1 else places[1:2]
