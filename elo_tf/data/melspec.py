"""The log-mel spectrogram that MBT (Nagrani et al. 2021) reads from records, an optional key.

Only for exchange with Scenic: the networks here compute theirs from the waveform. Known from the
MBT paper and from Scenic's reader: 128 mel bins of a 25 ms Hamming window every 10 ms, as one step
of [100, 128] floats for each second. The rest is our choice: magnitudes (not powers), triangular
filters on the HTK mel scale from 125 to 7500 Hz as in VGGish, the natural logarithm of the sum
plus 0.01, and a transform of 2048 points, so that the narrowest filters hold several of its bins.
"""

import functools

import numpy as np
import scipy.fft
import scipy.signal
import scipy.sparse

from elo_tf.data import schema

STEPS = 100
"""Spectra a second."""

BINS = 128
"""Mel bins of a spectrum."""

_WINDOW = 400
_HOP = schema.SAMPLE_RATE // STEPS
_FFT = 2048
_LOWEST, _HIGHEST = 125.0, 7500.0  # Hz
_OFFSET = 0.01


def log_mel_seconds(waveform: np.ndarray) -> np.ndarray:
    """Computes the spectrogram, cut into seconds.

    A window starts every hundredth of a second and may reach into the next second. After the end
    of the sound follows silence, as much as fills the last second.

    Args:
      waveform: float32 [S] in [-1, 1], mono at `schema.SAMPLE_RATE`.

    Returns:
      float32 [ceil(S / 16000), 100, 128]: second, spectrum, mel bin; silence is log(0.01).
    """
    seconds = -(-len(waveform) // schema.SAMPLE_RATE)
    padded = np.zeros(seconds * schema.SAMPLE_RATE + _WINDOW - _HOP)
    padded[:len(waveform)] = waveform
    result = np.empty((seconds, STEPS, BINS), np.float32)
    hamming = scipy.signal.get_window("hamming", _WINDOW)
    filters = _filters()
    for second in range(seconds):
        begin = second * schema.SAMPLE_RATE
        part = padded[begin:begin + (STEPS - 1) * _HOP + _WINDOW]
        windows = np.lib.stride_tricks.sliding_window_view(part, _WINDOW)[::_HOP] * hamming
        magnitudes = np.abs(scipy.fft.rfft(windows, _FFT))
        # Sparse, and so the same on every machine: no threads share the sum.
        result[second] = np.log((filters @ magnitudes.T).T + _OFFSET)
    return result


@functools.cache
def _filters() -> scipy.sparse.csr_array:
    """Triangles of height 1, evenly spaced in mel; float64 [128, 1025]."""
    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(_LOWEST), mel(_HIGHEST), BINS + 2)
    spacing = edges[1] - edges[0]
    frequencies = mel(np.arange(_FFT // 2 + 1) * schema.SAMPLE_RATE / _FFT)
    distances = np.abs(frequencies - edges[1:-1, None]) / spacing
    return scipy.sparse.csr_array(np.maximum(1.0 - distances, 0.0))
