"""The sound of a file: a track of which any stretch of seconds is given as mono at 16 kHz.

What is kept is mono at the track's own rate, each piece with its own time. Every stretch is
resampled by itself from the pieces it touches, so that it does not depend on where reading began,
and a track whose clock drifts stays with the picture.
"""

import collections

import av
import numpy as np

from elo_tf.data import schema

MARGIN = 0.02
"""Seconds of sound on both sides of a stretch that the resampler's filter may look at."""

_GAP = 0.05
"""Seconds by which a sound's time stamp may differ from where the samples before it ended."""

_SILENCE = 1e-3
"""Root of the mean square: -60 dB of full scale."""


class SoundTrack:
    """The seconds of a track that may still be wanted.

    Attributes:
      end: time until which the track has been read.
      overflowed: sound was lost, since it came too long before its picture.
    """

    def __init__(self, longest: float):
        """An empty track.

        Args:
          longest: seconds that are kept at most.
        """
        self.end = float("-inf")
        self.overflowed = False
        self._longest = longest
        self._pieces: collections.deque[tuple[float, int, np.ndarray]] = collections.deque()
        self._seconds = 0.0
        self._mixer: av.AudioResampler | None = None
        self._mixed: tuple | None = None

    def add(self, frames: list[av.AudioFrame], earliest: float) -> bool:
        """Adds frames that do not end before `earliest`; returns whether all could be used."""
        usable = True
        for frame in frames:
            if frame.sample_rate <= 0:
                usable = False
                continue
            time = self.end if frame.pts is None else float(frame.pts * frame.time_base)
            if not np.isfinite(time):
                time = 0.0
            seconds = frame.samples / frame.sample_rate
            self.end = time + seconds
            if self.end < earliest:
                continue
            if self._seconds + seconds > self._longest:
                self.overflowed = True
                continue
            try:
                samples = self._mono(frame)
            except (av.FFmpegError, ValueError):
                self._mixer = None
                usable = False
                continue
            self._pieces.append((time, frame.sample_rate, samples))
            self._seconds += len(samples) / frame.sample_rate
        return usable

    def forget(self, until: float) -> None:
        """Drops what ended before the time `until`."""
        while self._pieces:
            time, rate, samples = self._pieces[0]
            if time + len(samples) / rate >= until:
                break
            self._seconds -= len(samples) / rate
            self._pieces.popleft()

    def waveform(self, begin: float, samples: int) -> np.ndarray:
        """Samples from the time `begin` on, zeros where the track has none; float32 [samples]."""
        result = np.zeros(samples, np.float32)
        end = begin + samples / schema.SAMPLE_RATE
        for time, rate, pieces in self._stretches(begin - MARGIN, end + MARGIN):
            stretch = _resample(np.concatenate(pieces), rate)
            offset = round((time - begin) * schema.SAMPLE_RATE)
            first, last = max(offset, 0), min(offset + len(stretch), samples)
            if first < last:
                result[first:last] = stretch[first - offset:last - offset]
        return np.clip(np.nan_to_num(result), -1.0, 1.0)

    def _mono(self, frame: av.AudioFrame) -> np.ndarray:
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._mixer is None or form != self._mixed:
            self._mixer = av.AudioResampler("flt", "mono", frame.sample_rate)
            self._mixed = form
        return np.concatenate([part.to_ndarray()[0] for part in self._mixer.resample(frame)])

    def _stretches(self, begin: float, end: float) -> list[tuple[float, int, list[np.ndarray]]]:
        """What is without a gap between two times: (time it starts at, rate, pieces)."""
        stretches = []
        follows = float("-inf")
        for time, rate, samples in self._pieces:
            if time > end or time + len(samples) / rate < begin:
                continue
            if not stretches or rate != stretches[-1][1] or abs(time - follows) > _GAP:
                stretches.append((time, rate, []))
                follows = time
            stretches[-1][2].append(samples)
            follows += len(samples) / rate
        return stretches


def is_silent(audio: np.ndarray) -> bool:
    """Whether the loudness is below -60 dB of full scale."""
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) < _SILENCE


def _resample(samples: np.ndarray, rate: int) -> np.ndarray:
    if rate == schema.SAMPLE_RATE:
        return samples
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler("flt", "mono", schema.SAMPLE_RATE)
    parts = resampler.resample(frame) + resampler.resample(None)
    return np.concatenate([part.to_ndarray()[0] for part in parts])
