"""Tiles and patches against slices of the clip, from the places that the sampler says it drew."""

import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from scipy.spatial.distance import cdist, pdist

from elo_tf.errors import UserError
from elo_tf.views.patch_sampling import JigsawTiles, NeighbourPatches, cut, permutation_set

CLIPS = 6
FRAMES = 3


@pytest.fixture(scope="module")
def clip():
    generator = np.random.Generator(np.random.PCG64(4))
    return generator.normal(size=(CLIPS, FRAMES, 32, 32, 3)).astype(np.float32)


def seeds(number, first=0):
    return tf.stack([tf.range(first, first + number), tf.fill([number], 9)], axis=1)


def draw(sampler, clip, first=0):
    items, truth = sampler([tf.constant(clip)], seeds(len(clip), first))
    return items.numpy(), {name: value.numpy() for name, value in truth.items()}


def slices(clip, truth, size, frames=1):
    return np.stack([[
        clip[b, truth["first"][b]:truth["first"][b] + frames, top:top + size, left:left + size]
        for top, left in zip(truth["top"][b], truth["left"][b], strict=True)]
        for b in range(len(clip))])


def many(sampler, size=32, frames=2, number=600):
    """The truth of many draws."""
    shape = (number, frames, size, size, 3)
    truth = tf.function(lambda own: sampler([tf.zeros(shape)], own).truth)(seeds(number))
    return {name: value.numpy() for name, value in truth.items()}


# --- jigsaw ---------------------------------------------------------------------------------------

def jigsaw_expected(clip, truth, size, frames=1):
    tiles = slices(clip, truth, size, frames).astype(np.float64)
    luma = (tiles @ [0.2989, 0.587, 0.114])[..., np.newaxis]
    gray = truth["gray"][:, None, None, None, None, None] > 0
    tiles = np.where(gray, luma, tiles)
    axes = (2, 3, 4)
    mean, variance = tiles.mean(axes, keepdims=True), tiles.var(axes, keepdims=True)
    return (tiles - mean) / np.sqrt(variance + (1 / 255 / 0.225) ** 2)


@pytest.mark.parametrize(("options", "tile"), [
    ({"gray": 0.5}, 8), ({"grid": 2, "permutations": 24, "tile": 0.5, "frames": 2}, 8)])
def test_tiles_are_slices_of_the_frame_each_normalised(clip, options, tile):
    sampler = JigsawTiles(**options)
    items, truth = draw(sampler, clip)
    frames = options.get("frames", 1)
    assert items.shape == (CLIPS, sampler.tiles, frames, tile, tile, 3)
    np.testing.assert_allclose(
        items, jigsaw_expected(clip, truth, tile, frames), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(items.mean((2, 3, 4)), 0, atol=1e-5)
    np.testing.assert_allclose(items.std((2, 3, 4)), 1, atol=2e-3)
    if "gray" in options:
        assert 0 < truth["gray"].sum() < CLIPS
        grays = items[truth["gray"] > 0]
        np.testing.assert_array_equal(grays, np.repeat(grays[..., :1], 3, -1))


def test_every_tile_lies_in_the_cell_that_its_order_says():
    sampler = JigsawTiles(permutations=7)
    truth = many(sampler)
    cell, tile = sampler.geometry(32, 2)
    assert (cell, tile) == (10, 8)
    cells = sampler.permutations[truth["order"]]
    top, left = truth["top"] - cells // 3 * cell, truth["left"] - cells % 3 * cell
    # The grid's corner is 0 to 2, for the pixels that three cells leave; the place in a cell, too.
    offsets = np.stack([top, left], -1)
    assert offsets.min() == 0 and offsets.max() == 4
    within = offsets - offsets.min(1, keepdims=True)
    assert within.max() == 2 and offsets.min(1).max() >= 2
    # Where the nine tiles show it, each is at all three places of its cell.
    shown = within[within.max((1, 2)) == 2]
    assert len(shown) > 500 and (np.stack([(shown == i).any(0) for i in range(3)])).all()
    assert truth["top"].min() >= 0 and truth["top"].max() + tile <= 32
    # Gaps: neighbours are 0 to 4 pixels apart, and all of these occur.
    grid = np.take_along_axis(truth["left"], np.argsort(cells, axis=1), axis=1).reshape(-1, 3, 3)
    assert set(np.unique(np.diff(grid, axis=2) - tile)) == {0, 1, 2, 3, 4}


def test_orders_frames_and_gray_are_drawn_evenly_and_apart():
    truth = many(JigsawTiles(permutations=7), frames=4, number=1000)
    for name, values in (("order", 7), ("first", 4)):
        counts = np.bincount(truth[name], minlength=values)
        assert len(counts) == values and scipy.stats.chisquare(counts).pvalue > 1e-3
    assert abs(truth["gray"].mean() - 0.3) < 0.06
    together = np.histogram2d(truth["order"], truth["first"], bins=(7, 4))[0]
    assert scipy.stats.chi2_contingency(together).pvalue > 1e-3


def test_all_orders_of_four_tiles_are_all_permutations():
    found = permutation_set(4, 24)
    assert {tuple(p) for p in found} == set(itertools.permutations(range(4)))
    # Four are possible of which no two share a place (a Latin square): the greedy choice has them.
    assert pdist(found[:4], "hamming").min() == 1.0
    # By brute force over all sets of four: none is farther on average.
    everything = np.array(list(itertools.permutations(range(4))))
    distance = cdist(everything, everything, "hamming")
    pairs = np.array(list(itertools.combinations(range(4), 2)))
    sets = np.array(list(itertools.combinations(range(24), 4)))
    average = distance[sets[:, pairs[:, 0]], sets[:, pairs[:, 1]]].mean(1)
    assert pdist(found[:4], "hamming").mean() == average.max() > np.median(average)


@pytest.mark.parametrize(("tiles", "number"), [(4, 24), (9, 6)])
def test_each_permutation_is_the_farthest_from_those_before(tiles, number):
    found = permutation_set(tiles, number, seed=3)
    assert found.shape == (number, tiles) and (np.sort(found, 1) == np.arange(tiles)).all()
    everything = np.array(list(itertools.permutations(range(tiles))), np.int8)
    sums = np.zeros(len(everything), int)
    taken = np.zeros(len(everything), bool)
    for chosen in found:
        own = (everything == chosen).all(1)
        if taken.any():
            assert sums[own] == sums[~taken].max()
        taken |= own
        sums += (everything != chosen).sum(1)
    assert taken.sum() == number
    again = permutation_set.__wrapped__(tiles, number, 3)
    np.testing.assert_array_equal(found, again)
    assert not np.array_equal(found, permutation_set(tiles, number, seed=4))


# --- neighbours -----------------------------------------------------------------------------------

@pytest.mark.parametrize("frames", (1, 2))
@pytest.mark.parametrize("colour", ("keep", "drop", "project"))
def test_patches_are_slices_of_the_frame(clip, colour, frames):
    sampler = NeighbourPatches(colour=colour, frames=frames)
    items, truth = draw(sampler, clip)
    patch, _, _ = sampler.geometry(32, FRAMES)
    assert items.shape == (CLIPS, 2, frames, patch, patch, 3) and patch == 7
    expected = slices(clip, truth, patch, frames)
    if colour == "keep":
        np.testing.assert_array_equal(items, expected)
        np.testing.assert_array_equal(truth["channel"], -1)
    elif colour == "drop":
        assert len(set(truth["channel"])) == 3
        for item, source, channel in zip(items, expected, truth["channel"], strict=True):
            np.testing.assert_array_equal(item[..., channel], source[..., channel])
            others = np.delete(item, channel, -1)
            assert abs(others.mean()) < 0.003 and 0.008 < others.std() < 0.012
            assert abs(np.corrcoef(others[..., 0].ravel(), others[..., 1].ravel())[0, 1]) < 0.4
        first, second = (np.delete(items[b], truth["channel"][b], -1) for b in (0, 1))
        assert not np.array_equal(first, second)
    else:
        green_magenta = np.array([-1, 2, -1]) / np.sqrt(6)
        np.testing.assert_allclose(items @ green_magenta, 0, atol=1e-6)
        removed = expected - items
        np.testing.assert_allclose(
            removed, (expected @ green_magenta)[..., None] * green_magenta, atol=1e-5)


@pytest.mark.parametrize(("size", "options", "geometry"), [
    (16, {}, (4, 2, 0)), (32, {}, (7, 4, 1)), (112, {}, (25, 12, 2)),
    (32, {"patch": 0.16, "jitter": 0.2}, (5, 2, 1))])
def test_the_second_patch_is_where_its_direction_says(size, options, geometry):
    sampler = NeighbourPatches(**options)
    assert sampler.geometry(size, 2) == geometry
    patch, gap, jitter = geometry
    truth = many(sampler, size, number=60 if size > 32 else 600)
    places = np.stack([truth["top"], truth["left"]], -1)
    assert places.min() >= 0 and places.max() + patch <= size
    offset = places[:, 1] - places[:, 0]
    directions = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])
    error = offset - directions[truth["direction"]] * (patch + gap)
    assert np.abs(error).max() <= 2 * jitter
    if size <= 32:
        assert set(np.unique(error)) == set(range(-2 * jitter, 2 * jitter + 1))
        assert set(truth["direction"]) == set(range(8))
    # Never overlapping: apart by the gap less the two jitters, in the direction's own axis.
    assert (np.abs(offset).max(1) - patch).min() >= gap - 2 * jitter >= 0


def test_directions_are_drawn_evenly_and_the_centre_does_not_tell_them():
    truth = many(NeighbourPatches(patch=0.14), frames=4, number=1000)
    for name, values in (("direction", 8), ("first", 4), ("channel", 3)):
        counts = np.bincount(truth[name], minlength=values)
        assert len(counts) == values and scipy.stats.chisquare(counts).pvalue > 1e-3
    for axis in ("top", "left"):
        centre = truth[axis][:, 0]
        assert len(set(centre)) > 8
        together = np.histogram2d(truth["direction"], centre, bins=(8, 6))[0]
        assert scipy.stats.chi2_contingency(together).pvalue > 1e-3


# --- both -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("sampler", [JigsawTiles(permutations=5), NeighbourPatches()])
def test_draws_depend_on_the_seed_alone(clip, sampler):
    items, truth = draw(sampler, clip)
    part_items, part_truth = draw(sampler, clip[2:4], first=2)
    # The last bits of a mean may depend on the batch.
    np.testing.assert_allclose(items[2:4], part_items, atol=1e-6)
    for name, values in truth.items():
        np.testing.assert_array_equal(values[2:4], part_truth[name])
    other_items, other_truth = draw(sampler, clip, first=100)
    assert not np.array_equal(items, other_items)
    assert not np.array_equal(truth["top"], other_truth["top"])


def test_cut_is_a_slice_with_a_place_for_each_frame():
    generator = np.random.Generator(np.random.PCG64(1))
    video = generator.normal(size=(2, 4, 9, 7, 2)).astype(np.float32)
    frames = generator.integers(4, size=(2, 3, 2))
    place = np.stack([generator.integers(7, size=(2, 3, 2)), generator.integers(5, size=(2, 3, 2))],
                     -1)
    found = cut(tf.constant(video), tf.constant(frames, tf.int32), tf.constant(place, tf.int32), 3)
    for b, k, t in np.ndindex(2, 3, 2):
        top, left = place[b, k, t]
        np.testing.assert_array_equal(
            found[b, k, t], video[b, frames[b, k, t], top:top + 3, left:left + 3])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: JigsawTiles(grid=4), "JigsawTiles.grid is 4"),
    (lambda: JigsawTiles(grid=2, permutations=25), "2 to 24"),
    (lambda: JigsawTiles().geometry(12, 4), "tiles would have 3 of the 4 pixels"),
    (lambda: JigsawTiles(frames=5).geometry(32, 4), "JigsawTiles.frames is 5"),
    (lambda: NeighbourPatches(colour="sepia"), "NeighbourPatches.colour is 'sepia'"),
    (lambda: NeighbourPatches().geometry(14, 4), "patches would have 3"),
    (lambda: NeighbourPatches(patch=0.3).geometry(32, 4), "need 42 of the frame's 32 pixels"),
    (lambda: NeighbourPatches(jitter=0.4).geometry(32, 4), "NeighbourPatches.jitter is 0.4"),
    (lambda: NeighbourPatches(frames=0).geometry(32, 4), "NeighbourPatches.frames is 0")])
def test_what_cannot_be_cut_is_said(make, message):
    with pytest.raises(UserError, match=message):
        make()
