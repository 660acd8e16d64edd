"""The sound of a window against NumPy, and resampled sound against SciPy."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import signal

from elo_tf.data import sound
from elo_tf.data.clip_spec import ClipSpec


@pytest.mark.parametrize(("start", "track"), [(0, 10), (3, 10), (8, 10), (0, 2), (1, 3)])
@pytest.mark.parametrize("fps", [6.0, 7.0])
def test_sound_is_cut_on_the_clock_of_the_frames(start, track, fps):
    spec = ClipSpec(frames=4, fps=fps)
    waveform = np.random.default_rng(0).normal(size=round(track / fps * 16000) - 50).astype("f")
    cut = sound.waveform_window(
        tf.constant(waveform), tf.constant(16000.0), tf.constant(start), tf.constant(track), 4,
        spec).numpy()
    period = round(track * 16000 / fps)
    repeated = np.tile(np.concatenate([waveform, np.zeros(period - len(waveform))]), 8)
    first = round(start * 16000 / fps)
    assert len(cut) == round(4 * 16000 / fps) + 400  # and one analysis window of 25 ms
    assert np.array_equal(cut, repeated[first:first + len(cut)].astype("f"))


def speech(rate: int, seconds: float, highest: float) -> np.ndarray:
    """Noise below `highest` Hz that swells and fades."""
    noise = np.random.default_rng(1).normal(size=round(rate * seconds))
    low = signal.sosfiltfilt(signal.butter(12, highest, fs=rate, output="sos"), noise)
    return (low * (1.2 + np.sin(7 * np.arange(len(low)) / rate))).astype("f")


@pytest.mark.parametrize("rate", [48000, 44100, 22050, 8000, 11025])
@pytest.mark.parametrize("start", [0, 5, 11])
def test_sound_at_another_rate_is_resampled(rate, start):
    spec = ClipSpec(frames=4, fps=6.0)
    waveform = speech(rate, 3.0, min(rate, 16000) * 0.25)
    cut = sound.waveform_window(tf.constant(waveform), tf.constant(float(rate)),
                                tf.constant(start), tf.constant(18), 4, spec).numpy()
    common = math.gcd(rate, 16000)
    whole = signal.resample_poly(waveform, 16000 // common, rate // common,
                                 window=("kaiser", 8.0))
    first = round(start * 16000 / 6)
    expected = whole[first:first + len(cut)]
    assert len(cut) == len(expected) == round(4 * 16000 / 6) + 400
    inner = slice(0 if start else 200, None)  # at its beginning, a waveform starts abruptly
    error = cut[inner] - expected[inner]
    assert np.abs(error).max() < 0.02 * expected.std()
    assert np.abs(error[:-50]).std() < 0.005 * expected.std()


def test_resampled_sound_that_is_repeated_or_ends_early():
    spec = ClipSpec(frames=8, fps=4.0)
    rate = 48000
    waveform = speech(rate, 0.75, 4000.0)  # of a track of 1 s
    cut = sound.waveform_window(tf.constant(waveform), tf.constant(float(rate)), tf.constant(2),
                                tf.constant(4), 8, spec).numpy()
    period = np.concatenate([waveform, np.zeros(rate // 4)])
    expected = signal.resample_poly(np.tile(period, 4), 1, 3, window=("kaiser", 8.0))
    expected = expected[8000:8000 + len(cut)]
    assert len(cut) == 8 * 4000 + 400
    assert np.abs(cut - expected).std() < 0.01 * waveform.std()
    assert np.abs(cut[4200:7800]).max() < 0.02 * waveform.std()  # silent from 0.75 s to 1 s


def test_sound_of_the_same_rate_is_copied_to_the_bit():
    spec = ClipSpec(frames=4, fps=6.0)
    waveform = np.random.default_rng(0).normal(size=48000).astype("f")
    cut = sound.waveform_window(tf.constant(waveform), tf.constant(16000.0), tf.constant(3),
                                tf.constant(18), 4, spec)
    assert np.array_equal(cut, waveform[8000:8000 + len(cut)])
