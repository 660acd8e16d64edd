"""The log-mel spectrogram, made in the graph by tensorflow-io."""

import gin
import tensorflow as tf
import tensorflow_io as tfio


@gin.register
class LogMel:
    """Turns waveforms into standardised log-mel spectrograms.

    Magnitudes of a short-time Fourier transform (periodic Hann window), summed by a triangular
    mel filterbank, in decibels: dB = 20 log10(max(mel, floor)), no lower than `top_db` below the
    example's own maximum. The result is (dB - mean_db) / std_db, with constants instead of
    statistics of the batch, so that an example never depends on its neighbours and loudness
    stays visible.

    The paper draws its audio input as a waveform and gives no settings: all of them are our
    choice. Window, hop, bins and band are those of AudioSet's VGGish; `mean_db` and `std_db` are
    rounded from recordings of speech and sounds, where silence becomes -1.7 and peaks about 3.

    Attributes:
        sample_rate: of the waveforms, Hz.
        window_seconds: length of a window.
        hop_seconds: from the start of a window to the next.
        mel_bins: M.
        fmin: lower edge of the lowest filter, Hz.
        fmax: upper edge of the highest filter, Hz.
        floor: least mel magnitude; quieter is as silent as silence.
        top_db: dynamic range of an example, dB.
        mean_db: decibels that become 0.
        std_db: decibels that become a difference of 1.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        window_seconds: float = 0.025,
        hop_seconds: float = 0.010,
        mel_bins: int = 64,
        fmin: float = 125.0,
        fmax: float = 7500.0,
        floor: float = 1e-2,
        top_db: float = 80.0,
        mean_db: float = -15.0,
        std_db: float = 15.0,
    ):
        self.sample_rate = sample_rate
        self.window_seconds = window_seconds
        self.hop_seconds = hop_seconds
        self.mel_bins = mel_bins
        self.fmin = fmin
        self.fmax = fmax
        self.floor = floor
        self.top_db = top_db
        self.mean_db = mean_db
        self.std_db = std_db
        self._window = round(window_seconds * sample_rate)
        self._hop = round(hop_seconds * sample_rate)
        self._fft = 1 << (self._window - 1).bit_length()

    def frames(self, samples: int) -> int:
        """The number F of spectrogram frames of a waveform of `samples` samples.

        A frame starts every hop as long as there are samples; the last ones are padded with
        zeros.
        """
        return -(-samples // self._hop)

    def __call__(self, waveform: tf.Tensor) -> tf.Tensor:
        """Computes the spectrograms.

        Args:
            waveform: float32 [B, S], in [-1, 1]; B may be 0, S is at least 1.

        Returns:
            float32 [B, F, M], of order 1; F is static where S is.
        """
        # One silent example more, taken off at the end: the FFT refuses an empty batch.
        padded = tf.pad(waveform, [[0, 1], [0, 0]])
        spectrum = tfio.audio.spectrogram(padded, self._fft, self._window, self._hop)
        mel = tfio.audio.melscale(
            spectrum, self.sample_rate, self.mel_bins, self.fmin, self.fmax
        )
        # dbscale cuts below the maximum of all it is given: it must see one example at a time.
        # It squares, so its least value is that of a power.
        decibels = tf.vectorized_map(
            lambda x: tfio.audio.dbscale(x, self.top_db, amin=self.floor**2), mel
        )
        log_mel = (decibels[:-1] - self.mean_db) / self.std_db
        samples = waveform.shape[-1]
        log_mel.set_shape(
            [waveform.shape[0], None if samples is None else self.frames(samples), self.mel_bins]
        )
        return log_mel
