"""The sound of a window: cut on the clock of its frames, resampled where it is stored otherwise."""

import tensorflow as tf

from elo_tf.data.clip_spec import ClipSpec

MARGIN_SECONDS = 0.04
"""Resampled sound starts at a multiple of this before the window, and ends as much after it. It is
a whole number of samples at all usual rates, 8 to 192 kHz and those of 11.025 kHz times two."""


def waveform_window(waveform: tf.Tensor, rate: tf.Tensor, start: tf.Tensor,
                    track_length: tf.Tensor, frames: int, spec: ClipSpec) -> tf.Tensor:
    """The samples that sound while a window is shown.

    Args:
      waveform: float32 [S], from the first frame on.
      rate: float32 [], its samples a second.
      start: int32 [], of the window on the track.
      track_length: int32 []; where the frames start again, so does the sound.
      frames: of the window.
      spec: the clip's size.

    Returns:
      float32 [spec.samples(frames)] at `spec.sample_rate`; zero past the end of the waveform.
    """
    samples = spec.samples(frames)
    per_frame = spec.sample_rate / spec.fps
    first = tf.cast(tf.round(tf.cast(start, tf.float32) * per_frame), tf.int32)

    def stored() -> tf.Tensor:
        period = tf.cast(tf.round(tf.cast(track_length, tf.float32) * per_frame), tf.int32)
        return repeated(waveform, first, samples, period)

    def resampled() -> tf.Tensor:
        # Only the window is resampled, with a margin that is faded in and out, and thrown away.
        margin = round(MARGIN_SECONDS * spec.sample_rate)
        begin = (first // margin - 1) * margin
        length = margin * (-(-samples // margin) + 3)
        ratio = tf.cast(rate, tf.float64) / spec.sample_rate

        def at_rate(place: tf.Tensor | int) -> tf.Tensor:
            return tf.cast(tf.round(tf.cast(place, tf.float64) * ratio), tf.int32)

        seconds = tf.cast(track_length, tf.float64) / spec.fps
        period = tf.cast(tf.round(seconds * tf.cast(rate, tf.float64)), tf.int32)
        piece = repeated(waveform, at_rate(begin), at_rate(length), period)
        fade = tf.signal.hann_window(2 * at_rate(margin) + 1)
        faded = at_rate(margin)
        piece = tf.concat([piece[:faded] * fade[:faded], piece[faded:-faded],
                           piece[-faded:] * fade[-faded:]], axis=0)
        skipped = first - begin
        return resample(piece, length)[skipped:skipped + samples]

    sound = tf.cond(tf.equal(rate, float(spec.sample_rate)), stored, resampled)
    return tf.ensure_shape(sound, [samples])


def repeated(waveform: tf.Tensor, first: tf.Tensor, samples: tf.Tensor | int,
             period: tf.Tensor) -> tf.Tensor:
    """`samples` of a waveform that is repeated every `period` samples, from `first` on.

    Places before its beginning, or past its end and before the next period, are silent.
    """
    size = tf.shape(waveform)[0]
    last = first + samples

    def gathered() -> tf.Tensor:
        places = first + tf.range(samples)
        within = tf.minimum(tf.math.floormod(places, period), size)
        sound = tf.gather(tf.pad(waveform, [[0, 1]]), within)
        return tf.where(places < 0, 0.0, sound)

    inside = tf.logical_and(first >= 0, last <= tf.minimum(size, period))
    return tf.cond(inside, lambda: waveform[first:last], gathered)


def resample(waveform: tf.Tensor, samples: int) -> tf.Tensor:
    """Resamples float32 [S] to [samples] by its spectrum: what both rates can hold, and no more.

    (tfio.audio.resample delays the sound by a filter's length, and takes four times as long.)
    """
    size = tf.shape(waveform)[0]
    bins = samples // 2 + 1
    spectrum = tf.signal.rfft(waveform)[:bins]
    spectrum = tf.pad(spectrum, [[0, bins - tf.shape(spectrum)[0]]])
    return tf.signal.irfft(spectrum, [samples]) * tf.cast(samples / size, tf.float32)
