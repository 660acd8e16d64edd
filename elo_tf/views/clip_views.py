"""What a batch becomes on the device: the views that tasks ask for.

| view       | what it is                                                         |
|------------|--------------------------------------------------------------------|
| intact     | the clip, T frames                                                 |
| next       | the N frames that follow it                                        |
| shuffled   | the clip's frames (sound: its T pieces) in a drawn order           |
| reversed   | the clip played backwards                                          |
| other_time | T frames of another time of the same video                         |

A view is made when it is first asked for, once. Every draw is a function of (seed, position in the
stream, example id), and the same for all modalities of a clip. Encoders see a view through
`encoder_input`, where augmentation may have blurred or masked it; decoders' targets never are.
Tasks bring views of their own, which samplers cut out of these (`views.samplers`).
"""

import functools
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import tensorflow as tf

from elo_tf.data import schema
from elo_tf.data.clip_spec import ANALYSIS_SECONDS, ClipSpec
from elo_tf.views.augmentation import Augmentation, ClipDraws, resize, resize_flow
from elo_tf.views.log_mel import LogMel
from elo_tf.views.samplers import Sample, Sampler, example_seeds

RGB_MEAN = 0.45
RGB_SCALE = 0.225
FLOW_SCALE = 2.0  # pixels a step; brings flow to order 1
REARRANGED = ("shuffled", "reversed")  # views that are made from the intact one
NONE: Mapping[str, Any] = MappingProxyType({})


class ClipViews:
    """The views of one replica's batch, cast and normalised."""

    def __init__(self, batch: Mapping[str, tf.Tensor], spec: ClipSpec, seed: int = 0,
                 log_mel: Callable[..., LogMel] = LogMel,
                 augmentation: Augmentation | None = None,
                 samplers: Mapping[str, Sampler] = NONE):
        """Wraps a batch; nothing is computed yet.

        Args:
          batch: of `data.pipeline.training_clips`, or of `testing_clips`, which has only `intact`;
            of the modalities and windows that are asked for. Frames of another size than the
            network's are resized.
          spec: the clip's size.
          seed: of the drawn orders and the augmentation.
          log_mel: makes the spectrogram for the clip's sample rate, bins, hop and window.
          augmentation: varies the clips, where they are trained on.
          samplers: of the tasks' own views, by name.
        """
        self._batch = batch
        self._spec = spec
        self._seed = seed
        self._log_mel = log_mel(sample_rate=spec.sample_rate, mel_bins=spec.mel_bins,
                                hop_seconds=spec.mel_hop_seconds,
                                window_seconds=ANALYSIS_SECONDS)
        self._augmentation = augmentation if augmentation and augmentation.active else None
        self._samplers = samplers
        self._drawn: ClipDraws | None = None
        self._made: dict[tuple[str, ...], tf.Tensor | Sample] = {}

    def view(self, modality: str, view: str) -> tf.Tensor:
        """A view: float32 [B, T, H, W, C] (N frames for `next`), or log-mel [B, F, M] for audio.

        Of a sampler, its items: [B, K, t, h, w, C].
        """
        if view in self._samplers:
            return self._sample(modality, view).items
        return self._once((modality, view), lambda: self._make(modality, view))

    def truth(self, modality: str, view: str) -> Mapping[str, tf.Tensor]:
        """What the sampler of a view has drawn, [B, ...] by name."""
        return self._sample(modality, view).truth

    def labels(self) -> tf.Tensor:
        """Int64 [B]: the examples' classes, -1 where there is none."""
        return self._batch["label"]

    def position(self) -> tf.Tensor:
        """Int64 [B]: the examples' places in the stream of training clips."""
        return self._batch["index"]

    def _sample(self, modality: str, view: str) -> Sample:
        sampler = self._samplers[view]

        def cut() -> Sample:
            seeds = example_seeds(self._seed, self._batch["index"], self._batch["key"],
                                  zlib.crc32(view.encode()) >> 1)
            return sampler([self.view(*key) for key in sampler.sources], seeds)

        return self._once((modality, view), cut)

    def encoder_input(self, modality: str, view: str) -> tf.Tensor:
        """The same as an encoder sees it: perhaps blurred, perhaps masked."""
        augmentation, key = self._augmentation, self._input_key(modality, view)
        if key[2:] == ("blurred",):
            return self._once(key, lambda: self._blurred(modality, view))
        if key[2:] == ("masked",) and augmentation is not None:
            return self._once(key, lambda: augmentation.mask(
                self.view("audio", view), view, self._batch["index"], self._batch["key"],
                self._seed))
        return self.view(modality, view)

    def _input_key(self, modality: str, view: str) -> tuple[str, ...]:
        """What a view is called where an encoder sees it."""
        augmentation = self._augmentation
        if view in self._samplers:
            return modality, view
        if augmentation is not None and augmentation.blurs and modality in ("rgb", "gray"):
            return modality, view, "blurred"
        if augmentation is not None and augmentation.masks and modality == "audio":
            return modality, view, "masked"
        return modality, view

    def always_present(self, modality: str, view: str) -> bool:
        """Whether every example has this view."""
        if view in self._samplers:
            return all(self.always_present(*key) for key in self._samplers[view].sources)
        return modality in ("rgb", "gray") and view != "other_time"

    def present(self, modality: str, view: str = "intact") -> tf.Tensor:
        """Bool [B]: the examples that have this view."""
        if view in self._samplers:
            return functools.reduce(tf.logical_and, [
                self.present(*key) for key in self._samplers[view].sources])
        size = tf.shape(self._batch["key"])
        if modality in ("rgb", "gray"):
            present = tf.ones(size, tf.bool)
        else:
            present = self._batch[f"has_{modality}"]
        if view == "other_time":
            present = tf.logical_and(present, self._batch["has_other"])
        return present

    def _once(self, key: tuple[str, ...], make: Callable[[], tf.Tensor]) -> tf.Tensor:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _make(self, modality: str, view: str) -> tf.Tensor:
        if view in REARRANGED:
            return self._rearranged(modality, view, self.view(modality, "intact"))
        if modality == "gray":
            return tf.image.rgb_to_grayscale(self.view("rgb", view))
        spec = self._spec
        stored = f"other_{modality}" if view == "other_time" else modality
        first, frames = (spec.frames, spec.next_frames) if view == "next" else (0, spec.frames)
        if modality == "audio":
            start = spec.offset(first)
            mel = self._log_mel(self._batch[stored][:, start:start + spec.samples(frames)])
            return mel[:, :frames * spec.mel_per_frame]
        video = self._placed(stored)[:, first:first + frames]
        if modality == "flow":
            return video / FLOW_SCALE
        return (tf.cast(video, tf.float32) / 255.0 - RGB_MEAN) / RGB_SCALE

    def _blurred(self, modality: str, view: str) -> tf.Tensor:
        if view in REARRANGED:
            return self._rearranged(modality, view, self.encoder_input(modality, "intact"))
        if modality == "gray":
            return tf.image.rgb_to_grayscale(self.encoder_input("rgb", view))
        assert self._augmentation is not None
        return self._augmentation.soften(self.view("rgb", view), self._draws())

    def _placed(self, stored: str) -> tf.Tensor:
        """A stored window at the network's size, augmented: colours of 0 to 255, or pixels."""
        return self._once((stored, "window", "placed"), lambda: self._place(stored))

    def _place(self, stored: str) -> tf.Tensor:
        size, augmentation = self._spec.size, self._augmentation
        if stored.endswith("flow"):
            flow = decode_flow(self._batch[stored])
            if augmentation is None:
                return resize_flow(flow, size)
            return augmentation.place_flow(flow, self._draws(), size)
        if augmentation is None:
            return resize(self._batch[stored], size)
        if not augmentation.colours:
            return augmentation.place(self._batch[stored], self._draws(), size)
        # Both windows at once: contrast turns around the mean colour of all that it is given.
        names = [name for name in ("rgb", "other_rgb") if name in self._batch]
        frames = augmentation.place(
            tf.concat([self._batch[name] for name in names], axis=1), self._draws(), size)
        frames = augmentation.recolour(frames, self._draws())
        lengths = [self._batch[name].shape[1] for name in names]
        for name, part in zip(names, tf.split(frames, lengths, axis=1), strict=True):
            self._made[name, "window", "placed"] = part
        return self._made[stored, "window", "placed"]

    def _draws(self) -> ClipDraws:
        if self._drawn is None:
            assert self._augmentation is not None
            self._drawn = self._augmentation.draw(
                self._batch["index"], self._batch["key"], self._seed)
        return self._drawn

    def _rearranged(self, modality: str, view: str, intact: tf.Tensor) -> tf.Tensor:
        if view == "reversed":
            # Flow of a video played backwards: the flow between the same two frames, the other
            # way round. (It then belongs to the frames one step later.)
            sign = -1.0 if modality == "flow" else 1.0
            return sign * tf.reverse(intact, [1])
        order = self._order()
        if modality != "audio":
            return tf.gather(intact, order, axis=1, batch_dims=1)
        frames, per_frame, bins = self._spec.frames, self._spec.mel_per_frame, self._spec.mel_bins
        pieces = tf.reshape(intact, [-1, frames, per_frame, bins])
        pieces = tf.gather(pieces, order, axis=1, batch_dims=1)
        return tf.reshape(pieces, [-1, frames * per_frame, bins])

    def _order(self) -> tf.Tensor:
        """A drawn order of the T frames of each clip, int32 [B, T], never the identity."""
        return self._once(("clip", "order"), lambda: frame_orders(
            self._batch["index"], self._batch["key"], self._spec.frames, self._seed))


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
    orders = tf.map_fn(
        lambda own: tf.argsort(tf.random.stateless_uniform([frames], own)),
        example_seeds(seed, index, key, 1),
        fn_output_signature=tf.TensorSpec([frames], tf.int32))
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
