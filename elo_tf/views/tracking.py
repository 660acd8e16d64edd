"""Patches that are tracked through a clip (Wang and Gupta, ICCV 2015).

The paper finds a patch where tracked points move, leaves out frames in which too few do or in
which all do (the camera), and follows it by the KCF tracker. Here the dense flow that clips come
with does both: what moves is what differs from the frame's median flow, which is the camera's, and
a patch goes where the flow inside of it goes.
"""

from collections.abc import Sequence

import gin
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.views.clip_views import FLOW_SCALE
from elo_tf.views.patch_sampling import below, check_frames, check_patch, cut
from elo_tf.views.samplers import Sample, ViewKey, uniform

NEAR_BEST = 0.9  # of the largest motion: where a patch may start (our choice)
MEDIAN_SIDE = 32  # pixels of a row that a median is taken over; all of them would take long
EPSILON = 1e-6


@gin.register
class TrackedPatches:
    """A moving patch of the first frame of a clip, and the same in the last.

    Attributes:
      sources: the intact clip and its flow.
    """

    sources: tuple[ViewKey, ...] = (("rgb", "intact"), ("flow", "intact"))

    def __init__(self, *, patch: float = 0.5, least_motion: float = 0.5,
                 least_moving: float = 0.01, frames: int = 1):
        """Makes the sampler.

        Args:
          patch: side of a patch, as a share of the frame's (our choice).
          least_motion: pixels a step, relative to the camera, from which a pixel counts as moving
            (0.5: from memory, unproven).
          least_moving: share of the first frame's pixels that must move for a clip to be usable.
            Our choice: the paper's bounds are shares of interest points, a quarter to three
            quarters (from memory, unproven). Camera motion alone counts as none.
          frames: t, of an item: the first t of the track, and the last.
        """
        self._patch = patch
        self._least_motion = least_motion
        self._least_moving = least_moving
        self._frames = frames

    def geometry(self, size: int, frames: int) -> int:
        """Side of a patch in pixels, for a clip of `size` and `frames`.

        Raises:
          UserError: if patches would be too small, or the clip is too short.
        """
        patch = round(size * self._patch)
        check_patch("TrackedPatches", self._patch, patch, size)
        check_frames("TrackedPatches", self._frames, frames)
        if frames < 2:
            raise UserError(f"ClipSpec.frames is {frames}; a patch is tracked over 2 and more")
        return patch

    def __call__(self, sources: Sequence[tf.Tensor], seeds: tf.Tensor) -> Sample:
        """Cuts patches.

        Args:
          sources: the clip, float32 [B, T, S, S, 3], and its flow [B, T, S, S, 2], which is of
            unknown value where absent.
          seeds: int64 [B, 2].

        Returns:
          Items [B, 2, t, s, s, 3], the first patch of the track and the last; truth: "track"
          int32 [B, T, 2], top and left in every frame; "moving" float32 [B], share of the first
          frame's pixels that move; "usable" int32 [B], 1 where that is enough.
        """
        clip, flow = sources
        frames = clip.shape[1]
        patch = self.geometry(clip.shape[2], frames)
        flow *= FLOW_SCALE
        motion = tf.norm(flow[:, 0] - median_flow(flow[:, :1]), axis=-1)  # [B, S, S]
        start = moving_patch(motion, patch, uniform(seeds, []))
        track = follow(flow, start, patch)

        ends = [*range(self._frames), *range(frames - self._frames, frames)]
        place = tf.gather(track, ends, axis=1)
        shape = [-1, 2, self._frames]
        number = tf.tile(tf.reshape(tf.constant(ends), [1, 2, self._frames]),
                         [tf.shape(place)[0], 1, 1])
        items = cut(clip, number, tf.reshape(place, [*shape, 2]), patch)
        moving = tf.reduce_mean(tf.cast(motion > self._least_motion, tf.float32), axis=[1, 2])
        usable = tf.cast(moving >= self._least_moving, tf.int32)
        return Sample(items, {"track": track, "moving": moving, "usable": usable})


def median_flow(flow: tf.Tensor) -> tf.Tensor:
    """The median of each component in each frame, of every so many pixels where there are many.

    Args:
      flow: float32 [B, T, H, W, 2].

    Returns:
      float32 [B, T, 1, 2].
    """
    _, frames, height, width, _ = flow.shape
    flow = flow[:, :, ::max(height // MEDIAN_SIDE, 1), ::max(width // MEDIAN_SIDE, 1)]
    pixels = flow.shape[2] * flow.shape[3]
    ordered = tf.sort(tf.reshape(flow, [-1, frames, pixels, 2]), axis=2)
    return ordered[:, :, pixels // 2, tf.newaxis]


def moving_patch(motion: tf.Tensor, patch: int, draws: tf.Tensor) -> tf.Tensor:
    """Draws a place for a patch among those with nearly the most motion inside.

    Args:
      motion: float32 [B, S, S], of each pixel, none negative.
      patch: its side.
      draws: float32 [B] in [0, 1).

    Returns:
      int32 [B, 2]: top and left.
    """
    inside = tf.nn.avg_pool2d(motion[..., tf.newaxis], patch, 1, "VALID")
    columns = inside.shape[2]
    inside = tf.reshape(inside, [-1, inside.shape[1] * columns])
    allowed = inside >= NEAR_BEST * tf.reduce_max(inside, axis=1, keepdims=True)
    rank = tf.cumsum(tf.cast(allowed, tf.int32), axis=1)
    drawn = below(draws, rank[:, -1])
    found = tf.argmax(rank > drawn[:, tf.newaxis], axis=1, output_type=tf.int32)
    return tf.stack([found // columns, found % columns], axis=-1)


def follow(flow: tf.Tensor, start: tf.Tensor, patch: int) -> tf.Tensor:
    """Moves a patch from frame to frame, as the flow inside of it, bounded by the frame.

    Pixels weigh as much as they move relative to the camera: those of the background, which are
    inside of every patch around an object, would hold it back.

    Args:
      flow: float32 [B, T, H, W, 2], (x, y) in pixels from each frame to the next.
      start: int32 [B, 2], top and left in the first frame.
      patch: its side.

    Returns:
      int32 [B, T, 2]: top and left in every frame, inside of it whatever the flow.
    """
    camera = median_flow(flow)
    last = tf.constant([flow.shape[2] - patch, flow.shape[3] - patch])
    exact = tf.cast(start, tf.float32)
    track = [start]
    for step in range(flow.shape[1] - 1):
        frame = tf.fill([tf.shape(start)[0], 1, 1], step)
        inside = cut(flow, frame, track[-1][:, tf.newaxis], patch)
        inside = tf.reshape(inside, [-1, patch * patch, 2])
        weight = tf.norm(inside - camera[:, step], axis=-1, keepdims=True) + EPSILON
        moved = tf.reduce_sum(weight * inside, axis=1) / tf.reduce_sum(weight, axis=1)
        exact = tf.clip_by_value(exact + moved[:, ::-1], 0.0, tf.cast(last, tf.float32))
        # Once more as integers: flow that is not a number stays none, but an index must be one.
        track.append(tf.clip_by_value(tf.cast(tf.round(exact), tf.int32), 0, last))
    return tf.stack(track, axis=1)
