"""Samplers of tiles and patches of single frames, for tasks that ask where they belong.

Positions are whole pixels, so that an item is exactly a slice of its frame. Sizes are shares of the
frame, since clips come in many sizes.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import gin
import numpy as np
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.views.samplers import Sample, ViewKey, uniform

SMALLEST = 4  # pixels; less shows nothing but a colour
GREY_LEVEL = 1 / (255 * 0.225)  # one of 256, in normalised frames
NOISE = 0.01  # of what replaces a channel; the paper's hundredth of the channel's own deviation


@gin.register
class JigsawTiles:
    """The tiles of one frame in one of a fixed set of orders (Noroozi and Favaro, ECCV 2016).

    The frame is divided into cells; each tile is cut at a random place of its cell, which leaves
    random gaps, so that edges that continue give nothing away; each tile is normalised by itself
    (a channel at a time), so that brightness does not either. Some clips are shown in gray,
    against chromatic aberration. The paper's shifts of the colour channels are left out.

    Attributes:
      sources: the intact clip.
      tiles: K, of a frame.
      classes: P, the number of orders.
    """

    sources: tuple[ViewKey, ...] = (("rgb", "intact"),)

    def __init__(self, *, grid: int = 3, permutations: int = 100, tile: float = 0.85,
                 gray: float = 0.3, frames: int = 1, seed: int = 0):
        """Makes the sampler.

        Args:
          grid: cells in a row and in a column: the paper's 3, or 2.
          permutations: P; the paper tries several, up to 1000 (from memory, unproven); 100 is our
            choice.
          tile: side of a tile, as a share of its cell's; the paper's 64 of 75 pixels (from
            memory, unproven).
          gray: share of the clips in gray (0.3: from memory, unproven).
          frames: t, of an item.
          seed: of the set of permutations.

        Raises:
          UserError: if there are no such tiles or permutations.
        """
        if grid not in (2, 3):
            raise UserError(f"JigsawTiles.grid is {grid}; it must be 2 or 3")
        self.tiles = grid ** 2
        if not 2 <= permutations <= math.factorial(self.tiles):
            raise UserError(f"JigsawTiles.permutations is {permutations}; it must be 2 to "
                            f"{math.factorial(self.tiles)}, all orders of {self.tiles} tiles")
        self.classes = permutations
        self.grid = grid
        self._tile = tile
        self._gray = gray
        self._frames = frames
        self._seed = seed

    @property
    def permutations(self) -> np.ndarray:
        """Int32 [P, K]: in the order `i`, the k-th item is the tile of the cell [i, k]."""
        return permutation_set(self.tiles, self.classes, self._seed)

    def geometry(self, size: int, frames: int) -> tuple[int, int]:
        """Sides of a cell and of a tile in pixels, for a clip of `size` and `frames`.

        Raises:
          UserError: if the tiles would be too small or the clip is too short.
        """
        cell = size // self.grid
        tile = round(cell * self._tile)
        check_frames("JigsawTiles", self._frames, frames)
        if tile < SMALLEST or tile > cell:
            raise UserError(f"JigsawTiles.tile is {self._tile}: in frames of {size} pixels "
                            f"(ClipSpec.size), tiles would have {tile} of the {cell} pixels of "
                            f"their cell; {SMALLEST} to {cell} will do")
        return cell, tile

    def __call__(self, sources: Sequence[tf.Tensor], seeds: tf.Tensor) -> Sample:
        """Cuts tiles.

        Args:
          sources: the clip, float32 [B, T, S, S, 3].
          seeds: int64 [B, 2].

        Returns:
          Items [B, K, t, s, s, 3] in the order shown; truth, int32: "order" [B], the class;
          "first" [B], frame; "top" and "left" [B, K], of the items; "gray" [B], 1 or 0.
        """
        (clip,) = sources
        cell, tile = self.geometry(clip.shape[2], clip.shape[1])
        draws = uniform(seeds, [5 + 2 * self.tiles])
        order = below(draws[:, 0], self.classes)
        first = below(draws[:, 1], clip.shape[1] - self._frames + 1)
        gray = tf.cast(draws[:, 2] < self._gray, tf.int32)
        corner = below(draws[:, 3:5], clip.shape[2] - self.grid * cell + 1)  # of the grid
        offset = below(tf.reshape(draws[:, 5:], [-1, self.tiles, 2]), cell - tile + 1)
        cells = tf.gather(tf.constant(self.permutations), order)  # [B, K]
        rows_columns = tf.stack([cells // self.grid, cells % self.grid], axis=-1)
        place = corner[:, tf.newaxis] + cell * rows_columns + offset

        items = cut(clip, frames_from(first, self.tiles, self._frames), place, tile)
        luma = tf.repeat(tf.image.rgb_to_grayscale(items), 3, axis=-1)
        items = tf.where(_each(gray > 0, items), luma, items)
        mean, variance = tf.nn.moments(items, axes=[2, 3, 4], keepdims=True)
        items = (items - mean) * tf.math.rsqrt(variance + GREY_LEVEL ** 2)
        return Sample(items, {"order": order, "first": first, "top": place[..., 0],
                              "left": place[..., 1], "gray": gray})


@gin.register
class NeighbourPatches:
    """A patch of a frame and one of its eight neighbours (Doersch et al., ICCV 2015).

    The two are apart and each is moved a little, so that edges that continue give nothing away.
    Where the block of nine lies in the frame is drawn whichever neighbour is taken, so that it
    does not tell. Against chromatic aberration, which tells where in a frame a patch was, colours
    are dropped or projected. The paper's resampling of some patches is left out.

    Attributes:
      sources: the intact clip.
    """

    sources: tuple[ViewKey, ...] = (("rgb", "intact"),)

    def __init__(self, *, patch: float = 0.22, gap: float = 0.5, jitter: float = 0.073,
                 colour: str = "drop", frames: int = 1):
        """Makes the sampler.

        Args:
          patch: side of a patch, as a share of the frame's (our choice).
          gap: between patches, as a share of their side (the paper's half).
          jitter: the farthest that a patch is moved, in each direction, as a share of its side;
            the paper's 7 of 96 pixels (from memory, unproven).
          colour: "drop" two of the three channels, the same of both patches, for noise around
            gray; "project" out green against magenta; or "keep".
          frames: t, of an item.

        Raises:
          UserError: if there is no such colour.
        """
        if colour not in ("drop", "project", "keep"):
            raise UserError(f"NeighbourPatches.colour is {colour!r}; it must be 'drop', 'project' "
                            "or 'keep'")
        self._patch = patch
        self._gap = gap
        self._jitter = jitter
        self._colour = colour
        self._frames = frames

    def geometry(self, size: int, frames: int) -> tuple[int, int, int]:
        """Side of a patch, gap and largest jitter in pixels, for a clip of `size` and `frames`.

        Raises:
          UserError: if patches would be too small, overlap or leave the frame, or the clip is too
            short.
        """
        patch = round(size * self._patch)
        gap, jitter = round(patch * self._gap), round(patch * self._jitter)
        check_frames("NeighbourPatches", self._frames, frames)
        check_patch("NeighbourPatches", self._patch, patch, size)
        if 2 * jitter > gap:
            raise UserError(f"NeighbourPatches.jitter is {self._jitter}: two patches of {patch} "
                            f"pixels, {gap} apart and each moved by up to {jitter}, could overlap; "
                            "set it to half of NeighbourPatches.gap or less")
        if self._block(patch, gap, jitter) > size:
            raise UserError(f"NeighbourPatches.patch is {self._patch}: three patches of {patch} "
                            f"pixels, {gap} apart, with {jitter} to move at both ends, need "
                            f"{self._block(patch, gap, jitter)} of the frame's {size} pixels "
                            "(ClipSpec.size); make it smaller")
        return patch, gap, jitter

    @staticmethod
    def _block(patch: int, gap: int, jitter: int) -> int:
        return 3 * patch + 2 * gap + 2 * jitter

    def __call__(self, sources: Sequence[tf.Tensor], seeds: tf.Tensor) -> Sample:
        """Cuts patches.

        Args:
          sources: the clip, float32 [B, T, S, S, 3].
          seeds: int64 [B, 2].

        Returns:
          Items [B, 2, t, s, s, 3], the centre and its neighbour; truth, int32: "direction" [B],
          0 to 7, row by row from the upper left; "first" [B], frame; "top" and "left" [B, 2];
          "channel" [B], the one that is kept, -1 if all are.
        """
        (clip,) = sources
        size = clip.shape[2]
        patch, gap, jitter = self.geometry(size, clip.shape[1])
        draws = uniform(seeds, [9])
        direction = below(draws[:, 0], 8)
        first = below(draws[:, 1], clip.shape[1] - self._frames + 1)
        corner = below(draws[:, 2:4], size - self._block(patch, gap, jitter) + 1)
        moved = below(tf.reshape(draws[:, 5:], [-1, 2, 2]), 2 * jitter + 1)
        cell = direction + tf.cast(direction >= 4, tf.int32)  # of nine; the fifth is the centre
        neighbour = tf.stack([cell // 3, cell % 3], axis=-1)
        cells = tf.stack([tf.ones_like(neighbour), neighbour], axis=1)  # [B, 2, 2]
        place = corner[:, tf.newaxis] + (patch + gap) * cells + moved

        items = cut(clip, frames_from(first, 2, self._frames), place, patch)
        channel = tf.fill(tf.shape(first), -1)
        if self._colour == "drop":
            channel = below(draws[:, 4], 3)
            kept = tf.one_hot(channel, 3)[:, tf.newaxis, tf.newaxis, tf.newaxis, tf.newaxis]
            noise = NOISE * _normal(seeds, items.shape[1:])
            items = tf.where(kept > 0, items, noise)
        elif self._colour == "project":
            axis = tf.constant([[-1.0, 2.0, -1.0]])
            items -= tf.einsum("...c,dc->...d", items, tf.transpose(axis) @ axis / 6.0)
        return Sample(items, {"direction": direction, "first": first, "top": place[..., 0],
                              "left": place[..., 1], "channel": channel})


@functools.lru_cache(maxsize=8)
def permutation_set(tiles: int, number: int, seed: int = 0) -> np.ndarray:
    """Permutations that are far from each other (Noroozi and Favaro, algorithm 1).

    Starting with a random one, the next is always that of the largest average Hamming distance to
    those chosen so far; among equals, that of the largest minimum (our choice), then the first.

    Args:
      tiles: n, of at most 9; all n! are compared.
      number: of permutations, at most n!.
      seed: of the first.

    Returns:
      int32 [number, n], read-only.
    """
    count = math.factorial(tiles)
    numbers = itertools.chain.from_iterable(itertools.permutations(range(tiles)))
    every = np.fromiter(numbers, np.int8, count * tiles).reshape(count, tiles)
    places = np.ascontiguousarray(every.T)
    total = np.zeros(count, np.int32)
    least = np.full(count, tiles, np.int8)
    chosen = [int(np.random.Generator(np.random.PCG64(seed)).integers(count))]
    while len(chosen) < number:
        distance = np.zeros(count, np.int8)
        for place in places:
            distance += place != place[chosen[-1]]
        total += distance
        np.minimum(least, distance, out=least)
        rank = total * (tiles + 1) + least
        rank[chosen] = -1
        chosen.append(int(np.argmax(rank)))
    found = every[chosen].astype(np.int32)
    found.flags.writeable = False
    return found


def cut(video: tf.Tensor, frames: tf.Tensor, place: tf.Tensor, size: int) -> tf.Tensor:
    """Cuts squares out of frames: exactly their pixels.

    Args:
      video: [B, T, H, W, C], all but B static.
      frames: int32 [B, K, t], of each item.
      place: int32 [B, K, 2] or, of each frame of an item, [B, K, t, 2]: top and left.
      size: of the squares; they lie inside of the frame.

    Returns:
      [B, K, t, size, size, C].
    """
    _, length, height, width, channels = video.shape
    if place.shape.rank == 3:
        place = place[:, :, tf.newaxis]
    side = tf.range(size)
    rows = (frames * height + place[..., 0])[..., tf.newaxis] + side
    columns = place[..., 1, tf.newaxis] + side
    pixels = rows[..., tf.newaxis] * width + columns[..., tf.newaxis, :]
    # One gather of pixels: to gather frames first would copy each for every item.
    return tf.gather(tf.reshape(video, [-1, length * height * width, channels]), pixels,
                     axis=1, batch_dims=1)


def frames_from(first: tf.Tensor, items: int, frames: int) -> tf.Tensor:
    """The frames of items that all begin at `first`, int32 [B] -> [B, items, frames]."""
    frames = first[:, tf.newaxis, tf.newaxis] + tf.range(frames)
    return tf.tile(frames, [1, items, 1])


def below(draws: tf.Tensor, number: int | tf.Tensor) -> tf.Tensor:
    """Draws in [0, 1) -> int32 in [0, number), all equally likely; the same shape."""
    scaled = tf.cast(draws * tf.cast(number, tf.float32), tf.int32)
    return tf.minimum(scaled, number - 1)


def check_frames(sampler: str, frames: int, available: int) -> None:
    """Raises a UserError if a clip is shorter than an item."""
    if not 1 <= frames <= available:
        raise UserError(f"{sampler}.frames is {frames}; it must be 1 to {available}, the frames "
                        "of a clip (ClipSpec.frames)")


def check_patch(sampler: str, share: float, patch: int, size: int) -> None:
    """Raises a UserError if a patch is too small, or larger than the frame."""
    if not SMALLEST <= patch <= size:
        raise UserError(f"{sampler}.patch is {share}: in frames of {size} pixels (ClipSpec.size), "
                        f"patches would have {patch}; {SMALLEST} to {size} will do")


def _normal(seeds: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Standard normal draws for every example, [B, *shape]; independent of `uniform`'s first."""
    fold = tf.random.experimental.stateless_fold_in
    return tf.map_fn(lambda own: tf.random.stateless_normal(shape, fold(own, 1)), seeds,
                     fn_output_signature=tf.TensorSpec(shape, tf.float32))


def _each(flags: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
    return tf.reshape(flags, [-1, *[1] * (items.shape.rank - 1)])
