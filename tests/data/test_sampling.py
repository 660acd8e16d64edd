"""Where clips are cut: every rule against NumPy."""

import fractions

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data import sampling
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError


@pytest.mark.parametrize(("frames", "rate", "fps"), [
    (36, 12, 6), (36, 12, 8), (100, 25, 8), (1800, 30, 7), (24, 10, 10), (9, 8, 12), (1, 12, 6),
    (2, 25, 2), (700, fractions.Fraction(30000, 1001), 6), (300, 24, 23.976), (7, 12, 6),
    (720, 12, 12)])
def test_track_has_the_frame_shown_at_each_instant(frames, rate, fps):
    track = sampling.track_of(tf.constant(frames), tf.constant(float(rate)), fps).numpy()
    seconds = frames / float(rate)
    assert abs(len(track) - seconds * fps) <= 0.5 or len(track) == 1
    shown = [min(int(fractions.Fraction(j) * fractions.Fraction(rate)
                     / fractions.Fraction(fps).limit_denominator(10**6) + 0.001), frames - 1)
             for j in range(len(track))]
    assert track.tolist() == shown


def windows(length: int, spec: ClipSpec, draws: int) -> np.ndarray:
    @tf.function
    def all_of_them():
        return tf.map_fn(
            lambda i: tf.stack([tf.cast(x, tf.int32) for x in sampling.random_windows(
                tf.constant(length), spec,
                tf.random.stateless_uniform([2], tf.stack([7, i])))]),
            tf.range(draws))

    return all_of_them().numpy()


@pytest.mark.parametrize("length", [1, 6, 7, 8, 9, 12, 20])
def test_windows_fit_and_the_other_keeps_its_distance(length):
    spec = ClipSpec(frames=4, next_frames=2, fps=6.0, other_gap=0.5)  # a gap of 3 places
    drawn = windows(length, spec, 1500)
    starts = range(max(length - spec.window, 0) + 1)
    allowed = {s: [o for o in range(length - spec.frames + 1) if abs(o - s) >= 3] for s in starts}
    assert set(drawn[:, 0]) == set(starts)
    for start, other, has_other in drawn:
        assert has_other == bool(allowed[start])
        assert other in allowed[start] if has_other else other == start
    # Every allowed pair is drawn, each equally often: within five standard errors.
    for start in starts:
        mine = drawn[drawn[:, 0] == start]
        expected = len(drawn) / len(starts)
        assert abs(len(mine) - expected) < 5 * np.sqrt(expected)
        for other in allowed[start]:
            share = len(mine) / len(allowed[start])
            assert abs((mine[:, 1] == other).sum() - share) < 5 * np.sqrt(share)


def test_a_window_past_the_end_starts_again():
    track = tf.constant([0, 2, 4])
    assert sampling.window_of(track, tf.constant(1), 7).numpy().tolist() == [2, 4, 0, 2, 4, 0, 2]


@pytest.mark.parametrize(("length", "count", "frames", "expected"), [
    (20, 1, 4, [8]), (20, 2, 4, [0, 16]), (20, 3, 4, [0, 8, 16]), (21, 1, 4, [8]),
    (4, 2, 4, [0, 0]), (3, 2, 4, [0, 0]), (1, 1, 8, [0])])
def test_testing_windows_are_spread_and_one_is_the_middle(length, count, frames, expected):
    places = sampling.spread_windows(tf.range(length) * 3, count, frames).numpy()
    assert places.shape == (count, frames)
    assert places[:, 0].tolist() == expected
    assert np.array_equal(places, (places[:, :1] + np.arange(frames)) % length)


def test_pick_is_uniform_and_never_past_the_end():
    uniform = tf.constant([0.0, 0.2499, 0.25, 0.9999999, 1.0])
    assert sampling.pick(uniform, tf.constant(4)).numpy().tolist() == [0, 0, 1, 3, 3]


@pytest.mark.parametrize("values", [{"frames": 0}, {"fps": -1.0}, {"crop": 0.0}, {"crop": 1.5}])
def test_an_impossible_clip_is_refused(values):
    with pytest.raises(UserError, match=f"ClipSpec.{next(iter(values))}"):
        ClipSpec(**values)
