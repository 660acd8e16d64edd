"""Samplers for tasks about the order of frames: tuples of frames, sub-sequences, patches.

Where a window of frames is chosen by its motion, its probability is in proportion to that (our
choice; the papers say that windows with much motion are taken). Motion is the mean length of the
optical flow, as in the papers, or for records without flow the mean absolute difference of
successive frames (our choice).
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import gin
import numpy as np
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.views.patch_sampling import below, cut
from elo_tf.views.samplers import Sample, ViewKey, uniform

STILL = 1e-6  # motion that every place has, so that a still clip is cut at random
LONGEST = 10  # frames in an order that is drawn; 10! numbers still differ as float32


class MotionSampler:
    """What chooses a window of frames by its motion.

    Attributes:
      sources: the clip, and its flow where that tells the motion.
    """

    least: int = 2  # frames that a window must have

    def __init__(self, window: int, motion: str, repeats: int):
        """Takes the options of the subclass."""
        self._window = window
        self._motion = motion
        self._repeats = repeats
        if motion not in ("flow", "frames"):
            raise self._wrong("motion", motion, "'flow' or 'frames'")
        if window < self.least:
            raise self._wrong("window", window, f"at least {self.least} frames")
        if repeats < 1:
            raise self._wrong("repeats", repeats, "1 or more")
        flow = (("flow", "intact"),) if motion == "flow" else ()
        self.sources: tuple[ViewKey, ...] = (("rgb", "intact"), *flow)

    def _wrong(self, name: str, value: object, right: str) -> UserError:
        return UserError(f"{type(self).__name__}.{name} is {value!r}; it must be {right}")

    def check(self, frames: int) -> None:
        """Raises UserError if a clip of so many frames is shorter than the window."""
        if frames < self._window:
            raise UserError(
                f"{type(self).__name__}.window is {self._window} frames, but ClipSpec.frames is "
                f"{frames}; shorten the window (to no less than {self.least}) or lengthen clips")

    def _place(self, sources: Sequence[tf.Tensor], draw: tf.Tensor
               ) -> tuple[tf.Tensor, tf.Tensor]:
        """The window's first frame int32 [B] and the mean motion in it [B, H, W].

        Args:
          sources: the views.
          draw: float32 [B], uniform in [0, 1).
        """
        self.check(sources[0].shape[1])
        maps = motion_maps(*sources)
        start = in_proportion(window_motion(maps, self._window), draw)
        steps = start[:, tf.newaxis] + tf.range(self._window - 1)
        return start, tf.reduce_mean(tf.gather(maps, steps, axis=1, batch_dims=1), axis=1)


@gin.register
class MotionTuples(MotionSampler):
    """Five frames a < b < c < d < e of a window with motion (Misra et al., ECCV 2016).

    All fives that the options allow are equally likely (our choice). The items are single frames;
    truth: `frames` int32 [B, 5], where they stand in the clip.
    """

    least = 5

    def __init__(self, *, window: int = 8, span: int = 5, gap: int = 1,
                 motion: Literal["flow", "frames"] = "flow", repeats: int = 1):
        """Makes the sampler.

        Args:
          window: frames, among which the five are (our choice).
          span: most frames from b to d, their tau_max (60 at 30 a second from memory, unproven).
          gap: least frames from a to b and from d to e, their tau_min (15, as above).
          motion: what tells it.
          repeats: frames of the still clip as which a frame is encoded. With 1, the paper's single
            frames, the temporal filters of a video network learn in their middle alone.

        Raises:
          UserError: if the options exclude each other.
        """
        super().__init__(window, motion, repeats)
        if span < 2:
            raise self._wrong("span", span, "at least 2 frames")
        if not 1 <= gap <= (window - 3) // 2:
            raise self._wrong("gap", gap, f"from 1 to {(window - 3) // 2} in a window of {window}")
        pairs = [(b, d) for b in range(gap, window) for d in range(b + 2, window - gap)
                 if d - b <= span]
        self._pairs = np.array(pairs, np.int32)
        self._gap = gap
        ways = np.array([(b - gap + 1) * (d - b - 1) * (window - gap - d) for b, d in pairs])
        self._shares = (ways / ways.sum()).astype(np.float32)

    def __call__(self, sources: Sequence[tf.Tensor], seeds: tf.Tensor) -> Sample:
        """Cuts five frames out of every clip."""
        draws = tf.unstack(uniform(seeds, [5]), axis=1)
        start, _ = self._place(sources, draws[0])
        pair = in_proportion(tf.constant(self._shares)[tf.newaxis], draws[1])
        b, d = tf.unstack(tf.gather(self._pairs, pair), axis=1)
        a = below(draws[2], b - self._gap + 1)
        c = b + 1 + below(draws[3], d - b - 1)
        e = d + self._gap + below(draws[4], self._window - self._gap - d)
        frames = start[:, tf.newaxis] + tf.stack([a, b, c, d, e], axis=1)
        items = tf.gather(sources[0], frames, axis=1, batch_dims=1)[:, :, tf.newaxis]
        return Sample(tf.repeat(items, self._repeats, axis=2), {"frames": frames})


@gin.register
class OddSubsequences:
    """Sub-sequences of one clip, one of them in a wrong order (Fernando et al., CVPR 2017).

    The frames of the odd one are drawn as those of the others are: only their order tells it.
    Every order is as likely as any other, except the right one and its reverse, which never occur:
    much that moves may as well move backwards (our choice; of the paper we only know that the order
    is wrong). Truth: `odd` int32 [B], its position; `frames` int32 [B, K, length], as shown.
    """

    sources: tuple[ViewKey, ...] = (("rgb", "intact"),)

    def __init__(self, *, items: int = 6, length: int = 6,
                 sampling: Literal["random", "consecutive"] = "random",
                 encoding: Literal["frames", "differences"] = "frames"):
        """Makes the sampler.

        Args:
          items: sub-sequences, N + 1 (6 from memory, unproven).
          length: frames of each (6 from memory, unproven).
          sampling: any frames of the clip, or neighbours (our choice).
          encoding: what the network sees: the frames, as it will after the training (our choice),
            or their differences (the paper's best encoder stacks them: from memory, unproven).

        Raises:
          UserError: if an option has no such value.
        """
        for name, value, known in (("sampling", sampling, ("random", "consecutive")),
                                   ("encoding", encoding, ("frames", "differences"))):
            if value not in known:
                raise UserError(f"OddSubsequences.{name} is {value!r}; it must be one of {known}")
        if items < 2:
            raise UserError(f"OddSubsequences.items is {items}; it must be 2 or more")
        if not 3 <= length <= LONGEST:
            raise UserError(f"OddSubsequences.length is {length} frames; it must be from 3, since "
                            f"two have no other order than forwards and backwards, to {LONGEST}")
        self.items = items
        self._length = length
        self._sampling = sampling
        self._encoding = encoding

    def check(self, frames: int) -> None:
        """Raises UserError if a clip of so many frames is shorter than a sub-sequence."""
        if frames < self._length:
            raise UserError(
                f"OddSubsequences.length is {self._length} frames, but ClipSpec.frames is "
                f"{frames}; shorten sub-sequences (to no less than 3) or lengthen clips")

    def __call__(self, sources: Sequence[tf.Tensor], seeds: tf.Tensor) -> Sample:
        """Cuts the sub-sequences out of every clip."""
        (clip,), length = sources, self._length
        frames = clip.shape[1]
        self.check(frames)
        if self._sampling == "random":
            inside = some_of(uniform(seeds, [self.items, frames]), length)
        else:
            start = below(uniform(seeds, [self.items]), frames - length + 1)
            inside = start[..., tf.newaxis] + tf.range(length)

        draws = uniform(seeds, [2], 1)
        odd = below(draws[:, 0], self.items)
        wrong = permutation(1 + below(draws[:, 1], math.factorial(length) - 2), length)
        is_odd = tf.one_hot(odd, self.items, on_value=True, off_value=False)[..., tf.newaxis]
        order = tf.where(is_odd, wrong[:, tf.newaxis], tf.range(length))
        inside = tf.gather(inside, order, axis=2, batch_dims=2)
        items = tf.gather(clip, inside, axis=1, batch_dims=1)
        if self._encoding == "differences":
            items = items[:, :, 1:] - items[:, :, :-1]
        return Sample(items, {"odd": odd, "frames": inside})


PERMUTATIONS = np.array(list(itertools.permutations(range(4))), np.int32)  # [24, 4]
_FORWARD = [tuple(order) for order in PERMUTATIONS if order[0] < order[-1]]
ORDERS = len(_FORWARD)
# An order and its reverse are one class, int32 [24].
ORDER_CLASSES = np.array([_FORWARD.index(min(tuple(order), tuple(order[::-1])))
                          for order in PERMUTATIONS], np.int32)


@gin.register
class ShuffledPatches(MotionSampler):
    """Patches of four frames in a drawn order (Lee et al., ICCV 2017).

    All 24 orders are equally likely. A patch lies where there is motion, its probability in
    proportion (our choice), and is moved a little in every frame, so that the edges of things do
    not tell the order. One colour channel takes the place of all three, so that the drift of
    colours does not either. Truth: `order` int32 [B], the class of 12; `frames` int32 [B, 4], as
    shown; `place` int32 [B, 4, 2], the upper left corners; `channel` int32 [B, 4].
    """

    least = 4

    def __init__(self, *, window: int = 8, patch: float = 0.5, jitter: float = 0.0625,
                 split: Literal["frame", "example"] = "frame",
                 motion: Literal["flow", "frames"] = "flow", repeats: int = 1):
        """Makes the sampler.

        Args:
          window: frames, among which the four are (our choice).
          patch: its side as a share of the frame's (80 pixels in the authors' code; our choice).
          jitter: most that a patch is moved, as a share of its side (5 of 80 pixels in the
            authors' code).
          split: whether each frame has a channel of its own, as in the authors' code, or all four
            have the same.
          motion: what tells it.
          repeats: as in `MotionTuples`.

        Raises:
          UserError: if an option has no such value.
        """
        super().__init__(window, motion, repeats)
        if split not in ("frame", "example"):
            raise self._wrong("split", split, "'frame' or 'example'")
        if jitter < 0 or not 0 < patch * (1 + 2 * jitter) <= 1:
            raise self._wrong("patch", patch, f"a share, with a jitter of {jitter} to all sides")
        self._patch = patch
        self._jitter = jitter
        self._split = split

    def __call__(self, sources: Sequence[tf.Tensor], seeds: tf.Tensor) -> Sample:
        """Cuts four patches out of every clip."""
        clip = sources[0]
        side = max(1, math.floor(self._patch * min(clip.shape[2:4])))
        shift = math.floor(self._jitter * side)
        draws = tf.unstack(uniform(seeds, [3]), axis=1)
        start, motion = self._place(sources, draws[0])
        inside = some_of(uniform(seeds, [self._window], 1), 4)
        rank = below(draws[1], len(PERMUTATIONS))
        order = tf.gather(PERMUTATIONS, rank)
        frames = start[:, tf.newaxis] + tf.gather(inside, order, axis=1, batch_dims=1)

        corner = self._corner(motion, side, shift, draws[2])
        moved = below(uniform(seeds, [4, 2], 2), 2 * shift + 1) - shift
        place = corner[:, tf.newaxis] + moved
        # Drawn for the places in the shown order: they know nothing of the frames.
        channel = below(uniform(seeds, [4 if self._split == "frame" else 1], 3), clip.shape[-1])
        channel = tf.broadcast_to(channel, tf.shape(frames))

        patches = cut(clip, frames[..., tf.newaxis], place, side)
        patches = tf.gather(patches, channel[..., tf.newaxis], axis=5, batch_dims=2)
        patches = tf.repeat(patches, clip.shape[-1], axis=5)
        return Sample(tf.repeat(patches, self._repeats, axis=2), {
            "order": tf.gather(ORDER_CLASSES, rank), "frames": frames, "place": place,
            "channel": channel})

    @staticmethod
    def _corner(motion: tf.Tensor, side: int, shift: int, draw: tf.Tensor) -> tf.Tensor:
        """The unmoved patch's upper left corner int32 [B, 2], by the motion [B, H, W] in it."""
        height, width = motion.shape[1:]
        rows, columns = (_windows(size, side, shift) for size in (height, width))
        inside = tf.einsum("yh,bhw,xw->byx", rows, motion, columns)
        places = tf.reshape(inside, [-1, len(rows) * len(columns)])
        chosen = in_proportion(places, draw)
        return shift + tf.stack([chosen // len(columns), chosen % len(columns)], axis=1)


def motion_maps(clip: tf.Tensor, flow: tf.Tensor | None = None) -> tf.Tensor:
    """How much every pixel moves from each frame to the next.

    Args:
      clip: float32 [B, T, H, W, C].
      flow: float32 [B, T, H, W, 2], from each frame to the next; without it, frames differ.

    Returns:
      float32 [B, T - 1, H, W].
    """
    if flow is None:
        return tf.reduce_mean(tf.abs(clip[:, 1:] - clip[:, :-1]), axis=-1)
    return tf.norm(flow[:, :-1], axis=-1)


def window_motion(maps: tf.Tensor, window: int) -> tf.Tensor:
    """Mean motion [B, T - window + 1] of every window, of motion maps [B, T - 1, H, W]."""
    steps = tf.reduce_mean(maps, axis=[2, 3])
    return tf.stack([tf.reduce_mean(steps[:, first:first + window - 1], axis=1)
                     for first in range(maps.shape[1] - window + 2)], axis=1)


def in_proportion(weights: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    """Indices int32 [B], each as likely as its weight says.

    Args:
      weights: float32 [B or 1, n], not negative; where all are 0, all are equally likely.
      draw: float32 [B], uniform in [0, 1).
    """
    sums = tf.cumsum(weights + STILL, axis=1)
    passed = sums <= draw[:, tf.newaxis] * sums[:, -1:]
    return tf.minimum(tf.reduce_sum(tf.cast(passed, tf.int32), axis=1), weights.shape[1] - 1)


def some_of(draws: tf.Tensor, count: int) -> tf.Tensor:
    """So many of n indices in ascending order, int32 [..., count], from draws [..., n]."""
    return tf.sort(tf.argsort(draws, axis=-1)[..., :count], axis=-1)


def permutation(rank: tf.Tensor, size: int) -> tf.Tensor:
    """The permutations of `size` with these ranks in lexicographic order, int32 [B, size].

    Args:
      rank: int32 [B], from 0, the identity, to size! - 1, its reverse.
      size: at most `LONGEST`.
    """
    order = [rank // math.factorial(size - 1 - i) % (size - i) for i in range(size)]
    for i in reversed(range(size - 1)):  # each digit counts among what the ones before it left
        for j in range(i + 1, size):
            order[j] += tf.cast(order[j] >= order[i], tf.int32)
    return tf.stack(order, axis=-1)


def _windows(size: int, side: int, margin: int) -> np.ndarray:
    """Which pixels the stretches of `side` cover that keep a margin: 0 or 1, [n, size]."""
    first = np.arange(margin, size - side - margin + 1)[:, np.newaxis]
    pixel = np.arange(size)
    return ((pixel >= first) & (pixel < first + side)).astype(np.float32)
