"""What samplers of frames cut out, and how it is distributed, against NumPy."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.views.frame_sampling import (
    ORDER_CLASSES,
    PERMUTATIONS,
    MotionTuples,
    OddSubsequences,
    ShuffledPatches,
    in_proportion,
    motion_maps,
    permutation,
    window_motion,
)

FRAMES, SIZE = 8, 6
MANY = 3000  # draws, to see how they are distributed
RNG = np.random.Generator(np.random.PCG64(4))


def seeds(count, first=0):
    return tf.constant(np.stack([np.full(count, 7), first + np.arange(count)], 1), tf.int32)


def clips(count=5, frames=FRAMES, size=SIZE):
    return (RNG.normal(size=(count, frames, size, size, 3)).astype("f"),
            RNG.normal(size=(count, frames, size, size, 2)).astype("f"))


def sample(sampler, sources, own):
    sources = [tf.constant(x) for x in sources[:len(sampler.sources)]]
    result = tf.function(sampler.__call__)(sources, own)
    return result.items.numpy(), {name: x.numpy() for name, x in result.truth.items()}


def many(sampler, clip, flow=None):
    """The truth of many draws from one clip."""
    sources = [np.broadcast_to(x, (MANY, *x.shape[1:])) for x in (clip, flow) if x is not None]
    return sample(sampler, sources, seeds(MANY))


def assert_shares(values, expected):
    """Each value occurs as often as its share says, within five standard deviations."""
    found, counts = np.unique(values, axis=0, return_counts=True)
    found = [tuple(x) if np.ndim(x) else x for x in found.tolist()]
    counts = dict(zip(found, counts, strict=True))
    assert set(counts) <= set(expected)
    for value, share in expected.items():
        deviation = np.sqrt(len(values) * share * (1 - share))
        assert abs(counts.get(value, 0) - len(values) * share) <= 5 * deviation + 1, value


def uniformly(values):
    return dict.fromkeys(values, 1 / len(values))


def still(flow_at):
    """A clip with a flow of length `flow_at[t]` from frame t on, everywhere."""
    flow = np.zeros((1, len(flow_at), 2, 2, 2), np.float32)
    flow[..., 1] = np.reshape(flow_at, (1, -1, 1, 1))
    return np.zeros((1, len(flow_at), 2, 2, 3), np.float32), flow


def test_motion():
    clip, flow = clips()
    by_flow = np.sqrt((flow.astype("d") ** 2).sum(-1))[:, :-1]
    by_frames = np.abs(np.diff(clip.astype("d"), axis=1)).mean(-1)
    np.testing.assert_allclose(motion_maps(clip, flow), by_flow, rtol=1e-5)
    np.testing.assert_allclose(motion_maps(clip), by_frames, rtol=1e-4)
    expected = [[one[s:s + 4].mean() for s in range(4)] for one in by_flow]
    np.testing.assert_allclose(window_motion(tf.constant(by_flow, tf.float32), 5), expected,
                               rtol=1e-5)


def test_in_proportion():
    weights = np.array([[0, 3, 0, 1], [0, 0, 0, 0], [2, 0, 0, 0]], "f")
    draws = np.arange(0.025, 1, 0.05, "f")
    chosen = [in_proportion(tf.constant(weights), tf.fill([3], d)).numpy() for d in draws]
    first, none, last = np.transpose(chosen)
    np.testing.assert_array_equal(first, np.where(draws < 0.75, 1, 3))
    np.testing.assert_array_equal(none, draws // 0.25)
    assert not last.any()
    assert in_proportion(tf.constant(weights[:1]), tf.constant([1 - 2.0**-23])).numpy() == [3]


@pytest.mark.parametrize("size", (3, 4, 5))
def test_permutations_in_their_order(size):
    every = np.array(list(itertools.permutations(range(size))))
    np.testing.assert_array_equal(permutation(tf.range(len(every)), size), every)


def test_an_order_and_its_reverse_are_one_of_twelve_classes():
    own = {tuple(order): kind for order, kind in zip(PERMUTATIONS, ORDER_CLASSES, strict=True)}
    assert len(own) == 24 and set(own.values()) == set(range(12))
    for one, other in itertools.combinations(own, 2):
        assert (own[one] == own[other]) == (one == other[::-1])


SAMPLERS = {
    "tuples": MotionTuples(window=6, motion="flow"),
    "tuples_by_frames": MotionTuples(window=6, motion="frames"),
    "odd": OddSubsequences(length=4), "odd_neighbours": OddSubsequences(sampling="consecutive"),
    "patches": ShuffledPatches(window=5), "patches_by_frames": ShuffledPatches(motion="frames"),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_draw_depends_on_the_clip_and_its_seed_alone(name):
    sources, own = clips(), seeds(5)
    items, truth = sample(SAMPLERS[name], sources, own)
    rows = [3, 1]
    part, part_truth = sample(SAMPLERS[name], [x[rows] for x in sources], tf.gather(own, rows))
    np.testing.assert_array_equal(part, items[rows])
    for key, value in truth.items():
        np.testing.assert_array_equal(part_truth[key], value[rows])
        assert value.dtype == np.int32
    assert items.dtype == np.float32
    other, _ = sample(SAMPLERS[name], sources, seeds(5, 50))
    assert (other != items).any()


@pytest.mark.parametrize("motion", ("flow", "frames"))
@pytest.mark.parametrize("sampler", (MotionTuples, ShuffledPatches))
def test_windows_are_drawn_in_proportion_to_their_motion(sampler, motion):
    moves = [0, 0, 4, 1, 0, 0, 3, 5]  # from each frame on; the last one's does not count
    if motion == "flow":
        sources = still(moves)
    else:
        level = np.concatenate([[0], np.cumsum(moves)[:-1]])
        clip = np.zeros((1, 8, 4, 4, 3), "f") + np.reshape(level, (1, 8, 1, 1, 1))
        sources = (clip.astype("f"),)
    # As small as can be, so that the frames tell the window.
    own = sampler(window=sampler.least, motion=motion)
    _, truth = many(own, *sources)
    starts = 8 - sampler.least + 1
    weights = np.array([sum(moves[s:s + sampler.least - 1]) for s in range(starts)], float)
    assert_shares(truth["frames"].min(1), dict(enumerate(weights / weights.sum())))


@pytest.mark.parametrize(("span", "gap"), ((5, 1), (3, 2)))
def test_all_tuples_are_equally_likely(span, gap):
    allowed = [five for five in itertools.combinations(range(8), 5)
               if five[3] - five[1] <= span and five[1] - five[0] >= gap
               and five[4] - five[3] >= gap]
    clip, flow = clips(1, size=2)
    _, truth = many(MotionTuples(span=span, gap=gap), clip, flow)
    assert_shares(truth["frames"], uniformly(allowed))


@pytest.mark.parametrize("repeats", (1, 3))
def test_tuples_are_frames_of_the_clip(repeats):
    clip, flow = clips()
    items, truth = sample(MotionTuples(repeats=repeats), (clip, flow), seeds(5))
    assert items.shape == (5, 5, repeats, SIZE, SIZE, 3)
    for one, own, frames in zip(items, clip, truth["frames"], strict=True):
        for shown in range(repeats):
            np.testing.assert_array_equal(one[:, shown], own[frames])


@pytest.mark.parametrize("sampling", ("random", "consecutive"))
def test_sub_sequences_are_of_the_clip_and_one_is_out_of_order(sampling):
    clip, _ = clips(40, size=2)
    items, truth = sample(OddSubsequences(sampling=sampling, length=5), (clip,), seeds(40))
    assert items.shape == (40, 6, 5, 2, 2, 3)
    for one, own, frames, odd in zip(items, clip, truth["frames"], truth["odd"], strict=True):
        np.testing.assert_array_equal(one, own[frames])
        steps = np.diff(frames, axis=1)
        np.testing.assert_array_equal((steps > 0).all(1), np.arange(6) != odd)
        assert not (steps[odd] < 0).all()
        if sampling == "consecutive":
            assert (np.sort(frames, axis=1) == frames.min(1)[:, None] + np.arange(5)).all()


def test_differences_of_frames_are_what_the_network_sees():
    clip, _ = clips()
    items, truth = sample(OddSubsequences(length=5, encoding="differences"), (clip,), seeds(5))
    for one, own, frames in zip(items, clip, truth["frames"], strict=True):
        np.testing.assert_array_equal(one, own[frames[:, 1:]] - own[frames[:, :-1]])


@pytest.mark.parametrize("sampling", ("random", "consecutive"))
def test_only_the_order_tells_the_odd_one(sampling):
    clip, _ = clips(1, frames=5, size=1)
    _, truth = many(OddSubsequences(length=3, items=4, sampling=sampling), clip)
    assert_shares(truth["odd"], uniformly(range(4)))
    chosen = uniformly(list(itertools.combinations(range(5), 3)) if sampling == "random"
                       else [(0, 1, 2), (1, 2, 3), (2, 3, 4)])
    inside = np.sort(truth["frames"], axis=2)
    rows = np.arange(MANY)
    for item in range(2):
        assert_shares(inside[rows, (truth["odd"] + item) % 4], chosen)
    order = np.argsort(truth["frames"][rows, truth["odd"]], axis=1)
    assert_shares(order, uniformly([(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)]))


@pytest.mark.parametrize("split", ("frame", "example"))
def test_patches_are_of_the_clip(split):
    clip, flow = clips(40, size=20)
    sampler = ShuffledPatches(patch=0.4, jitter=0.2, split=split, repeats=2)
    items, truth = sample(sampler, (clip, flow), seeds(40))
    assert items.shape == (40, 4, 2, 8, 8, 3)
    for i, k in itertools.product(range(40), range(4)):
        (y, x), frame, channel = (truth[n][i, k] for n in ("place", "frames", "channel"))
        assert {y, x} <= set(range(13))
        patch = clip[i, frame, y:y + 8, x:x + 8, channel]
        np.testing.assert_array_equal(items[i, k], np.broadcast_to(patch[..., None], (2, 8, 8, 3)))
    spread = np.ptp(truth["place"], axis=1)
    assert spread.max() == 2 and spread.min() == 0  # a fifth of 8 pixels, to either side: at most
    assert (np.ptp(truth["channel"], axis=1) == 0).all() == (split == "example")
    assert set(truth["channel"].ravel()) == {0, 1, 2}


def test_all_orders_of_four_frames_are_equally_likely():
    clip, flow = clips(1, frames=6, size=2)
    _, truth = many(ShuffledPatches(window=6), clip, flow)
    order = np.argsort(np.argsort(truth["frames"], axis=1), axis=1)
    assert_shares(order, uniformly(list(itertools.permutations(range(4)))))
    assert_shares(truth["order"], uniformly(range(12)))
    own = {tuple(one): kind for one, kind in zip(PERMUTATIONS, ORDER_CLASSES, strict=True)}
    assert [own[tuple(one)] for one in order.tolist()] == truth["order"].tolist()
    assert_shares(np.sort(truth["frames"], axis=1),
                  uniformly(list(itertools.combinations(range(6), 4))))
    assert_shares(truth["channel"][:, 2], uniformly(range(3)))


def test_patches_lie_in_proportion_to_the_motion_in_them():
    clip, flow = clips(1, frames=4, size=5)
    _, truth = many(ShuffledPatches(window=4, patch=0.6, jitter=0.0), clip, flow)
    motion = np.sqrt((flow[0].astype("d") ** 2).sum(-1))[:-1].mean(0)
    weights = {(y, x): motion[y:y + 3, x:x + 3].sum() for y in range(3) for x in range(3)}
    total = sum(weights.values())
    assert (truth["place"] == truth["place"][:, :1]).all()
    assert_shares(truth["place"][:, 0], {place: w / total for place, w in weights.items()})


@pytest.mark.parametrize(("sampler", "frames"), (
    (MotionTuples(window=5), 4), (ShuffledPatches(), 7), (OddSubsequences(), 5)))
def test_clips_that_are_too_short_are_refused(sampler, frames):
    clip, flow = clips(2, frames=frames)
    with pytest.raises(UserError, match=f"ClipSpec.frames is {frames}"):
        sampler.check(frames)
    with pytest.raises(UserError, match=f"ClipSpec.frames is {frames}"):
        sampler([clip, flow][:len(sampler.sources)], seeds(2))
    sampler.check(8)


@pytest.mark.parametrize(("make", "options", "said"), (
    (MotionTuples, {"motion": "sound"}, "MotionTuples.motion is 'sound'"),
    (MotionTuples, {"window": 4}, "MotionTuples.window is 4; it must be at least 5"),
    (MotionTuples, {"gap": 3}, "MotionTuples.gap is 3; it must be from 1 to 2"),
    (MotionTuples, {"span": 1}, "MotionTuples.span is 1"),
    (MotionTuples, {"repeats": 0}, "MotionTuples.repeats is 0"),
    (OddSubsequences, {"length": 2}, "OddSubsequences.length is 2"),
    (OddSubsequences, {"length": 11}, "OddSubsequences.length is 11"),
    (OddSubsequences, {"items": 1}, "OddSubsequences.items is 1"),
    (OddSubsequences, {"sampling": "any"}, "OddSubsequences.sampling is 'any'"),
    (OddSubsequences, {"encoding": "sum"}, "OddSubsequences.encoding is 'sum'"),
    (ShuffledPatches, {"window": 3}, "ShuffledPatches.window is 3; it must be at least 4"),
    (ShuffledPatches, {"patch": 0.95}, "ShuffledPatches.patch is 0.95"),
    (ShuffledPatches, {"split": "no"}, "ShuffledPatches.split is 'no'"),
))
def test_options_without_sense_are_refused(make, options, said):
    with pytest.raises(UserError, match=said):
        make(**options)
