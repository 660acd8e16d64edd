import numpy as np
import pytest
import tensorflow as tf

from elo_tf.views import log_mel


def reference_log_mel(waveform, mel_bins=64, fmin=125.0, fmax=7500.0, top_db=80.0):
    """One example in NumPy, float64: frames, Hann window, |FFT|, HTK mel triangles, decibels."""
    window, hop, fft, rate = 400, 160, 512, 16000
    frames = -(-len(waveform) // hop)
    padded = np.concatenate([waveform, np.zeros(frames * hop + window - len(waveform))])
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    cut = np.stack([padded[i * hop : i * hop + window] * hann for i in range(frames)])
    spectrum = np.abs(np.fft.rfft(cut, fft))

    def mel(hertz):
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(fmin), mel(fmax), mel_bins + 2)
    bins = mel(np.arange(fft // 2 + 1) * rate / fft)
    matrix = np.zeros((len(bins), mel_bins))
    for j in range(mel_bins):
        low, centre, high = edges[j : j + 3]
        matrix[:, j] = np.maximum(
            0.0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
        )
    matrix[0] = 0.0
    decibels = 20 * np.log10(np.maximum(spectrum @ matrix, 1e-2))
    decibels = np.maximum(decibels, decibels.max() - top_db)
    return (decibels + 15.0) / 15.0


def sounds(seed, examples=3, samples=8000):
    """A chirp in noise: every mel bin has something in it."""
    generator = np.random.Generator(np.random.PCG64(seed))
    time = np.arange(samples) / 16000
    noise = generator.normal(0.0, 0.02, (examples, samples))
    start = generator.uniform(200, 2000, (examples, 1))
    return (0.3 * np.sin(2 * np.pi * (start + 2000 * time) * time) + noise).astype(np.float32)


@pytest.mark.parametrize("samples", [8000, 8037])
def test_values_match_an_independent_computation(samples):
    waveform = sounds(1, samples=samples)
    values = log_mel.LogMel()(waveform).numpy()
    expected = np.stack([reference_log_mel(x.astype(np.float64)) for x in waveform])
    assert values.shape == expected.shape == (3, log_mel.LogMel().frames(samples), 64)
    np.testing.assert_allclose(values, expected, atol=2e-3)


def test_other_settings_reach_the_library():
    waveform = sounds(2)
    values = log_mel.LogMel(mel_bins=40, fmin=60.0, fmax=7000.0, top_db=30.0)(waveform).numpy()
    expected = [reference_log_mel(x.astype(np.float64), 40, 60.0, 7000.0, 30.0) for x in waveform]
    np.testing.assert_allclose(values, np.stack(expected), atol=2e-3)


def test_a_tone_peaks_in_its_own_bin():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)[None].astype(np.float32)
    peak = int(np.argmax(log_mel.LogMel()(tone).numpy()[0, 50]))
    edges = np.linspace(1127 * np.log1p(125 / 700), 1127 * np.log1p(7500 / 700), 66)
    assert peak == int(np.argmin(np.abs(edges[1:-1] - 1127 * np.log1p(1000 / 700))))


def test_an_example_does_not_depend_on_its_neighbours():
    quiet = sounds(3, examples=1) * 1e-3
    transform = log_mel.LogMel(top_db=40.0)
    alone = transform(quiet).numpy()
    for neighbour in (np.ones((1, 8000)) * np.sign(np.sin(np.arange(8000))), np.zeros((1, 8000))):
        together = transform(np.concatenate([neighbour.astype(np.float32), quiet])).numpy()
        np.testing.assert_array_equal(together[1], alone[0])


def test_silence_is_finite_and_order_one():
    values = log_mel.LogMel()(np.zeros((2, 4000), np.float32)).numpy()
    np.testing.assert_allclose(values, (-40 + 15) / 15, atol=1e-6)
    loudest = log_mel.LogMel()(np.sign(np.sin(np.arange(16000)))[None].astype(np.float32))
    assert np.abs(loudest).max() < 5


def test_an_empty_batch_stays_empty():
    assert log_mel.LogMel()(tf.zeros([0, 4000])).shape == (0, 25, 64)


def test_shapes_in_a_graph():
    transform = log_mel.LogMel()
    shapes = []

    @tf.function
    def call(waveform):
        result = transform(waveform)
        shapes.append(result.shape)
        return result

    fixed = call.get_concrete_function(tf.TensorSpec([None, 16000], tf.float32))
    free = call.get_concrete_function(tf.TensorSpec([4, None], tf.float32))
    assert shapes[0].as_list() == [None, 100, 64]
    assert shapes[1].as_list() == [4, None, 64]
    waveform = sounds(4, examples=4, samples=16000)
    eager = transform(waveform)
    np.testing.assert_allclose(fixed(tf.constant(waveform)), eager, atol=1e-4)
    np.testing.assert_allclose(free(tf.constant(waveform)), eager, atol=1e-4)
    assert not fixed.variables


def test_under_a_mirrored_strategy():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    transform = log_mel.LogMel()
    waveform = tf.constant(sounds(5, examples=2))

    dataset = tf.data.Dataset.from_tensors(waveform).unbatch().batch(2)

    @tf.function
    def distributed(batch):
        return strategy.experimental_local_results(strategy.run(transform, (batch,)))

    for batch in strategy.experimental_distribute_dataset(dataset):
        values = tf.concat(distributed(batch), axis=0)
        np.testing.assert_allclose(values, transform(waveform), atol=1e-4)


@pytest.mark.parametrize("samples, frames", [(1, 1), (160, 1), (161, 2), (16000, 100)])
def test_frames(samples, frames):
    transform = log_mel.LogMel()
    assert transform.frames(samples) == frames
    assert transform(tf.zeros([1, samples])).shape[1] == frames
