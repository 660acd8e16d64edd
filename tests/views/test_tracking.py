"""Tracked patches: on synthetic motion with its true flow, and against slices of the clip."""

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.views.clip_views import FLOW_SCALE
from elo_tf.views.tracking import TrackedPatches, follow, median_flow, moving_patch

SIZE = 32
FRAMES = 5
SIDE = 6
# Of each clip: top and left of a square, its motion (down, right) a step, and the camera's.
SCENES = (
    ((4, 3), (2, 3), (0, 0)),
    ((20, 18), (-3, -2), (0, 0)),
    ((10, 20), (1.5, -2.5), (0, 0)),  # half pixels
    ((8, 6), (2, 2), (-1, 1)),  # the camera moves too
    ((2, 22), (3, 2), (0, 0)),  # out of the frame, to the right
)


def square(scene, frame):
    start, motion, _ = scene
    return np.round(np.array(start) + frame * np.array(motion)).astype(int)


@pytest.fixture(scope="module")
def clips():
    """Noise with a square of other noise that moves: frames and true flow in pixels / 2."""
    generator = np.random.Generator(np.random.PCG64(0))
    video = generator.normal(size=(len(SCENES), FRAMES, SIZE, SIZE, 3)).astype(np.float32)
    flow = np.zeros((len(SCENES), FRAMES, SIZE, SIZE, 2), np.float32)
    for i, scene in enumerate(SCENES):
        texture = 5 + generator.normal(size=(SIDE, SIDE, 3))
        flow[i] = scene[2][::-1]
        for t in range(FRAMES):
            top, left = square(scene, t)
            bottom, right = min(top + SIDE, SIZE), min(left + SIDE, SIZE)
            video[i, t, top:bottom, left:right] = texture[:bottom - top, :right - left]
            flow[i, t, top:bottom, left:right] = scene[1][::-1]
    return video, flow / FLOW_SCALE


def seeds(number, first=0):
    return tf.stack([tf.range(first, first + number), tf.fill([number], 9)], axis=1)


def draw(sampler, clips, first=0):
    items, truth = sampler([tf.constant(x) for x in clips], seeds(len(clips[0]), first))
    return items.numpy(), {name: value.numpy() for name, value in truth.items()}


def test_a_track_begins_and_ends_on_the_moving_square(clips):
    patch = 8  # the square and two pixels more, which may be on either side
    _, truth = draw(TrackedPatches(patch=0.25), clips)
    track = truth["track"]
    assert track.shape == (len(SCENES), FRAMES, 2)
    for own, scene in zip(track, SCENES, strict=True):
        for t in (0, FRAMES - 1):
            top_left = square(scene, t)
            visible = np.minimum(top_left + SIDE, SIZE)
            assert (own[t] - 1 <= top_left).all(), (scene, t, own[t])
            assert (visible <= own[t] + patch + 1).all(), (scene, t, own[t])
    assert truth["usable"].all()
    assert track.min() >= 0 and track.max() + patch <= SIZE
    # A square and the patch as large: the start is exact, and so is every step of whole pixels.
    _, truth = draw(TrackedPatches(patch=SIDE / SIZE), clips)
    for own, scene in zip(truth["track"][:2], SCENES[:2], strict=True):
        np.testing.assert_array_equal(own, [square(scene, t) for t in range(FRAMES)])


@pytest.mark.parametrize("frames", (1, 2))
def test_items_are_slices_at_both_ends_of_the_track(clips, frames):
    items, truth = draw(TrackedPatches(patch=0.25, frames=frames), clips)
    assert items.shape == (len(SCENES), 2, frames, 8, 8, 3)
    for b, own in enumerate(truth["track"]):
        for end, numbers in enumerate((range(frames), range(FRAMES - frames, FRAMES))):
            for t, number in enumerate(numbers):
                top, left = own[number]
                np.testing.assert_array_equal(
                    items[b, end, t], clips[0][b, number, top:top + 8, left:left + 8])


def test_following_is_the_weighted_mean_flow_in_the_patch():
    generator = np.random.Generator(np.random.PCG64(5))
    flow = generator.normal(0.3, 2, (3, 4, 10, 12, 2)).astype(np.float32)
    start = np.array([[1, 2], [5, 7], [0, 6]])
    track = follow(tf.constant(flow), tf.constant(start, tf.int32), 4).numpy()
    for b in range(3):
        exact = start[b].astype(float)
        for t in range(3):
            ordered = np.sort(flow[b, t].reshape(-1, 2), axis=0)
            top, left = track[b, t]
            inside = flow[b, t, top:top + 4, left:left + 4].reshape(-1, 2).astype(float)
            weight = np.linalg.norm(inside - ordered[60], axis=1)
            right, down = (weight[:, None] * inside).sum(0) / weight.sum()
            exact = np.clip(exact + [down, right], 0, [6, 8])
            np.testing.assert_array_equal(track[b, t + 1], np.round(exact))


def test_a_patch_with_one_flow_everywhere_goes_with_it():
    flow = np.broadcast_to(np.float32([1.0, -2.0]), (1, 4, 16, 16, 2))
    track = follow(tf.constant(flow), tf.constant([[12, 1]]), 4)
    np.testing.assert_array_equal(track[0], [[12, 1], [10, 2], [8, 3], [6, 4]])


def test_the_median_is_numpys_for_each_component():
    flow = np.random.Generator(np.random.PCG64(2)).normal(size=(2, 3, 5, 7, 2)).astype(np.float32)
    np.testing.assert_array_equal(
        median_flow(tf.constant(flow))[:, :, 0], np.median(flow, axis=(2, 3)))
    # In large frames, of every so many pixels in each direction; of an odd number of them here.
    large = np.random.Generator(np.random.PCG64(3)).normal(size=(1, 1, 65, 97, 2)).astype("f")
    np.testing.assert_array_equal(median_flow(tf.constant(large))[0, 0, 0],
                                  np.median(large[0, 0, ::2, ::3].reshape(-1, 2), axis=0))


def test_a_patch_starts_wherever_motion_is_nearly_the_largest():
    motion = np.random.Generator(np.random.PCG64(6)).uniform(size=(12, 12)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(motion, (4, 4)).mean((2, 3))
    allowed = {tuple(p) for p in np.argwhere(windows >= 0.9 * windows.max())}
    assert 3 < len(allowed) < 30
    draws = tf.constant((np.arange(200) + 0.5) / 200, tf.float32)
    found = moving_patch(tf.tile(tf.constant(motion)[tf.newaxis], [200, 1, 1]), 4, draws)
    places, counts = np.unique(found.numpy(), axis=0, return_counts=True)
    assert {tuple(p) for p in places} == allowed
    assert counts.max() - counts.min() <= 1


def test_still_clips_and_mere_camera_motion_are_not_usable_and_unknown_flow_does_no_harm(clips):
    video, flow = (np.repeat(x[:1], 4, 0) for x in clips)
    flow = flow.copy()
    flow[1], flow[2], flow[3] = 0.0, (3.0, -4.0), np.nan
    flow[3, :, ::2] = np.inf
    items, truth = draw(TrackedPatches(patch=0.25), (video, flow))
    np.testing.assert_array_equal(truth["usable"], [1, 0, 0, 0])
    np.testing.assert_allclose(truth["moving"], [SIDE ** 2 / SIZE ** 2, 0, 0, 0])
    assert truth["track"].min() >= 0 and truth["track"].max() <= SIZE - 8
    assert np.isfinite(items).all()
    strict = draw(TrackedPatches(patch=0.25, least_moving=0.04), (video, flow))[1]
    assert not strict["usable"].any()
    fast = draw(TrackedPatches(patch=0.25, least_motion=3.7), (video, flow))[1]
    assert not fast["usable"].any()  # the square moves by 3.6 pixels


def test_draws_depend_on_the_seed_alone(clips):
    sampler = TrackedPatches()
    items, truth = draw(sampler, clips)
    part_items, part_truth = draw(sampler, [x[1:3] for x in clips], first=1)
    np.testing.assert_array_equal(items[1:3], part_items)
    np.testing.assert_array_equal(truth["track"][1:3], part_truth["track"])
    assert not np.array_equal(truth["track"], draw(sampler, clips, first=50)[1]["track"])


@pytest.mark.parametrize(("options", "size", "frames", "message"), [
    ({"patch": 0.2}, 16, 4, "TrackedPatches.patch is 0.2: .* patches would have 3"),
    ({"patch": 1.2}, 32, 4, "patches would have 38"),
    ({"frames": 5}, 32, 4, "TrackedPatches.frames is 5"),
    ({}, 32, 1, "ClipSpec.frames is 1")])
def test_what_cannot_be_tracked_is_said(options, size, frames, message):
    with pytest.raises(UserError, match=message):
        TrackedPatches(**options).geometry(size, frames)
