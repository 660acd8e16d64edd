"""The sound of a file: a track of which any stretch of seconds is given as mono at 16 kHz.

What is kept are the decoded frames, each with its own time. Every stretch is mixed and resampled by
itself from the frames it touches, so that it does not depend on where reading began, and a track
whose clock drifts stays with the picture.
"""

import collections

import av
import numpy as np

from elo_tf.data import schema

MARGIN = 0.02
"""Seconds of sound on both sides of a stretch that the resampler's filter may look at."""

_GAP = 0.05
"""Seconds by which a sound's time stamp may differ from where the samples before it ended."""

_BLOCK = 16_384
"""Samples that are resampled at once."""

_SILENCE = 1e-3
"""Root of the mean square: -60 dB of full scale."""


class SoundTrack:
    """The seconds of a track that may still be wanted.

    Attributes:
      end: time until which the track has been read.
      damaged: sound was lost, since it came too long before its picture or makes no sense.
    """

    def __init__(self, longest: float):
        """An empty track.

        Args:
          longest: seconds that are kept at most.
        """
        self.end = float("-inf")
        self.damaged = False
        self._longest = longest
        self._frames: collections.deque[tuple[float, float, av.AudioFrame]] = collections.deque()
        self._seconds = 0.0

    def add(self, frames: list[av.AudioFrame], earliest: float) -> None:
        """Adds what does not end before `earliest`."""
        for frame in frames:
            if frame.sample_rate <= 0:
                self.damaged = True
                continue
            time = self.end if frame.pts is None else frame.time
            if not np.isfinite(time):
                time = 0.0
            seconds = frame.samples / frame.sample_rate
            self.end = time + seconds
            if self.end < earliest:
                continue
            if self._seconds + seconds > self._longest:
                self.damaged = True
                continue
            # AudioFifo counts samples itself.
            frame.pts = None
            self._frames.append((time, self.end, frame))
            self._seconds += seconds

    def forget(self, until: float) -> None:
        """Drops what ended before the time `until`."""
        while self._frames and self._frames[0][1] < until:
            time, end, _ = self._frames.popleft()
            self._seconds -= end - time

    def waveform(self, begin: float, samples: int) -> np.ndarray:
        """Samples from the time `begin` on, zeros where the track has none; float32 [samples]."""
        result = np.zeros(samples, np.float32)
        end = begin + samples / schema.SAMPLE_RATE
        for time, frames in self._stretches(begin - MARGIN, end + MARGIN):
            try:
                stretch = _convert(frames)
            except (av.FFmpegError, ValueError):
                self.damaged = True
                continue
            offset = round((time - begin) * schema.SAMPLE_RATE)
            first, last = max(offset, 0), min(offset + len(stretch), samples)
            if first < last:
                result[first:last] = stretch[first - offset:last - offset]
        return np.clip(np.nan_to_num(result), -1.0, 1.0)

    def _stretches(self, begin: float, end: float) -> list[tuple[float, list[av.AudioFrame]]]:
        """What is without a gap between two times: (time it starts at, frames of one form)."""
        stretches = []
        follows, last_form = float("-inf"), None
        for time, stop, frame in self._frames:
            if time > end or stop < begin:
                continue
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            if form != last_form or abs(time - follows) > _GAP:
                stretches.append((time, []))
                follows, last_form = time, form
            stretches[-1][1].append(frame)
            follows += stop - time
        return stretches


def is_silent(audio: np.ndarray) -> bool:
    """Whether the loudness is below -60 dB of full scale."""
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) < _SILENCE


def _convert(frames: list[av.AudioFrame]) -> np.ndarray:
    """Mono at 16 kHz, float32 [S]."""
    # Few calls are faster than one for each frame, and short arrays stay in the cache.
    fifo = av.AudioFifo()
    resampler = av.AudioResampler("flt", "mono", schema.SAMPLE_RATE)
    parts = []
    for frame in frames:
        fifo.write(frame)
        if fifo.samples >= _BLOCK:
            parts += resampler.resample(fifo.read())
    if fifo.samples:
        parts += resampler.resample(fifo.read())
    parts += resampler.resample(None)
    return np.concatenate([part.to_ndarray()[0] for part in parts])
