"""What a batch becomes on the device: the views that tasks ask for.

| view       | what it is                                                         |
|------------|--------------------------------------------------------------------|
| intact     | the clip, T frames                                                 |
| next       | the N frames that follow it                                        |
| shuffled   | the clip's frames (sound: its T pieces) in a drawn order           |
| reversed   | the clip played backwards                                          |
| other_time | T frames of another time of the same video                         |

A view is made when it is first asked for, once. Every draw is a function of (seed, position in the
stream, example id), and the same for all modalities of a clip.
"""

from collections.abc import Callable, Mapping

import tensorflow as tf

from elo_tf.data import schema
from elo_tf.data.clip_spec import ANALYSIS_SECONDS, ClipSpec
from elo_tf.views.log_mel import LogMel

RGB_MEAN = 0.45
RGB_SCALE = 0.225
FLOW_SCALE = 2.0  # pixels a step; brings flow to order 1


class ClipViews:
    """The views of one replica's batch, cast and normalised."""

    def __init__(self, batch: Mapping[str, tf.Tensor], spec: ClipSpec, seed: int = 0,
                 log_mel: Callable[..., LogMel] = LogMel):
        """Wraps a batch; nothing is computed yet.

        Args:
          batch: of `data.pipeline.training_clips`, or of `testing_clips`, which has only `intact`.
          spec: the clip's size.
          seed: of the drawn orders.
          log_mel: makes the spectrogram for the clip's sample rate, bins, hop and window.
        """
        self._batch = batch
        self._spec = spec
        self._seed = seed
        self._log_mel = log_mel(sample_rate=spec.sample_rate, mel_bins=spec.mel_bins,
                                hop_seconds=spec.mel_hop_seconds,
                                window_seconds=ANALYSIS_SECONDS)
        self._made: dict[tuple[str, str], tf.Tensor] = {}

    def view(self, modality: str, view: str) -> tf.Tensor:
        """A view: float32 [B, T, H, W, C] (N frames for `next`), or log-mel [B, F, M] for audio."""
        key = (modality, view)
        if key not in self._made:
            self._made[key] = self._make(modality, view)
        return self._made[key]

    @staticmethod
    def always_present(modality: str, view: str) -> bool:
        """Whether every example has this view."""
        return modality in ("rgb", "gray") and view != "other_time"

    def present(self, modality: str, view: str = "intact") -> tf.Tensor:
        """Bool [B]: the examples that have this view."""
        size = tf.shape(self._batch["key"])
        if modality in ("rgb", "gray"):
            present = tf.ones(size, tf.bool)
        else:
            present = self._batch[f"has_{modality}"]
        if view == "other_time":
            present = tf.logical_and(present, self._batch["has_other"])
        return present

    def _make(self, modality: str, view: str) -> tf.Tensor:
        if modality == "gray":
            return tf.image.rgb_to_grayscale(self.view("rgb", view))
        if view == "shuffled":
            return self._shuffled(modality)
        if view == "reversed":
            # Flow of a video played backwards: the flow between the same two frames, the other
            # way round. (It then belongs to the frames one step later.)
            sign = -1.0 if modality == "flow" else 1.0
            return sign * tf.reverse(self.view(modality, "intact"), [1])
        spec = self._spec
        stored = self._batch[f"other_{modality}" if view == "other_time" else modality]
        first, frames = (spec.frames, spec.next_frames) if view == "next" else (0, spec.frames)
        if modality == "audio":
            start = spec.offset(first)
            mel = self._log_mel(stored[:, start:start + spec.samples(frames)])
            return mel[:, :frames * spec.mel_per_frame]
        stored = stored[:, first:first + frames]
        if modality == "flow":
            return decode_flow(stored) / FLOW_SCALE
        return (tf.cast(stored, tf.float32) / 255.0 - RGB_MEAN) / RGB_SCALE

    def _shuffled(self, modality: str) -> tf.Tensor:
        intact = self.view(modality, "intact")
        order = self._order()
        if modality != "audio":
            return tf.gather(intact, order, axis=1, batch_dims=1)
        frames, per_frame, bins = self._spec.frames, self._spec.mel_per_frame, self._spec.mel_bins
        pieces = tf.reshape(intact, [-1, frames, per_frame, bins])
        pieces = tf.gather(pieces, order, axis=1, batch_dims=1)
        return tf.reshape(pieces, [-1, frames * per_frame, bins])

    def _order(self) -> tf.Tensor:
        """A drawn order of the T frames of each clip, int32 [B, T], never the identity."""
        key = ("clip", "order")
        if key not in self._made:
            self._made[key] = frame_orders(
                self._batch["index"], self._batch["key"], self._spec.frames, self._seed)
        return self._made[key]


def frame_orders(index: tf.Tensor, key: tf.Tensor, frames: int, seed: int) -> tf.Tensor:
    """Draws a permutation of `frames` for each example.

    Args:
      index: int64 [B], positions in the stream.
      key: int64 [B], hashes of the ids.
      frames: T, at least 2 for a permutation other than the identity to exist.
      seed: of the run.

    Returns:
      int32 [B, T]; the identity, if it is drawn, becomes the reverse.
    """
    fold = tf.random.experimental.stateless_fold_in

    def draw(example: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        own = fold(fold(tf.constant([seed, 1]), example[0]), example[1])
        return tf.argsort(tf.random.stateless_uniform([frames], own))

    orders = tf.map_fn(draw, (index, key), fn_output_signature=tf.TensorSpec([frames], tf.int32))
    identity = tf.reduce_all(orders == tf.range(frames), axis=1, keepdims=True)
    return tf.where(identity, orders[:, ::-1], orders)


def decode_flow(coded: tf.Tensor) -> tf.Tensor:
    """Flow in pixels of the clip from its code, uint8 [..., 2] -> float32 [..., 2].

    The code has no zero: still pixels are half a level off it, always to the same side. Negating
    that for a reversed clip would tell the arrow of time, so the two middle levels count as zero.
    """
    centred = tf.cast(coded, tf.float32) - 127.5
    centred = tf.where(tf.abs(centred) < 1.0, 0.0, centred)
    return centred * (schema.FLOW_CLIP / 127.5)
