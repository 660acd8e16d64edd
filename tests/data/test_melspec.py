import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data import melspec, schema


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(size=samples).astype(np.float32) * 0.1


def by_tensorflow(waveform):
    """The same spectrogram by the operations of TensorFlow."""
    padded = tf.pad(waveform, [[0, 240]])
    spectra = tf.abs(tf.signal.stft(
        padded, 400, 160, 2048, window_fn=lambda n, dtype: tf.signal.hamming_window(
            n, periodic=True, dtype=dtype)))
    weights = tf.signal.linear_to_mel_weight_matrix(128, 1025, 16000, 125.0, 7500.0)
    return tf.reshape(tf.math.log(spectra @ weights + 0.01), [-1, 100, 128]).numpy()


def test_values_are_those_of_tensorflow():
    waveform = noise(48000)
    found = melspec.log_mel_seconds(waveform)
    assert found.dtype == np.float32
    assert found.shape == (3, 100, 128)
    assert np.abs(found - by_tensorflow(waveform)).max() < 2e-3
    assert np.array_equal(found, melspec.log_mel_seconds(waveform))


@pytest.mark.parametrize("hertz", [200, 440, 1000, 4000, 7000])
def test_a_tone_is_loudest_in_its_bin(hertz):
    tone = np.sin(2 * np.pi * hertz * np.arange(16000) / 16000).astype(np.float32) / 2
    (second,) = melspec.log_mel_seconds(tone)
    mel = 2595 * np.log10(1 + np.array([125, 7500, hertz]) / 700)
    place = (mel[2] - mel[0]) / (mel[1] - mel[0]) * 129 - 1
    assert np.abs(second[:98].argmax(-1) - place).max() <= 1


def test_every_filter_hears_something():
    weights = melspec._filters().toarray()
    assert weights.shape == (128, 1025)
    assert (weights.sum(1) > 1).all()
    assert np.abs(weights[:, 17:959].sum(0) - 1)[8:-40].max() < 1e-9  # They add up to one.


def test_spectra_lie_where_their_sound_is():
    waveform = np.zeros(40000, np.float32)
    waveform[24000:24160] = noise(160)  # Half a second into the second second.
    found = melspec.log_mel_seconds(waveform)
    assert found.shape == (3, 100, 128)  # 2.5 seconds; silence fills the third.
    loud = np.flatnonzero((found > np.log(0.01) + 1e-3).any(-1).reshape(-1))
    # The windows that start at 24000 - 399 .. 24159 samples.
    assert loud.tolist() == [148, 149, 150]
    assert np.allclose(found[2], np.log(0.01))


def test_a_window_hears_the_next_second():
    waveform = np.zeros(32000, np.float32)
    waveform[16000:16200] = noise(200)
    found = melspec.log_mel_seconds(waveform)
    assert (found[0, 98:] > np.log(0.01) + 1e-3).any(-1).all()
    assert np.allclose(found[0, :97], np.log(0.01))


@pytest.mark.parametrize(("samples", "seconds"), [(0, 0), (1, 1), (16000, 1), (16001, 2)])
def test_seconds(samples, seconds):
    assert melspec.log_mel_seconds(np.zeros(samples, np.float32)).shape == (seconds, 100, 128)


def test_scenic_reads_it():
    """By the specification of its reader: one step of 100 x 128 floats for each second."""
    expected = melspec.log_mel_seconds(noise(32000))
    example = tf.train.SequenceExample()
    for second in expected:
        feature = example.feature_lists.feature_list[schema.MELSPEC].feature.add()
        feature.float_list.value.extend(second.reshape(-1))
    _, lists = tf.io.parse_single_sequence_example(
        example.SerializeToString(), sequence_features={
            "melspec/feature/floats": tf.io.FixedLenSequenceFeature((100, 128), tf.float32)})
    assert np.array_equal(lists["melspec/feature/floats"], expected)
