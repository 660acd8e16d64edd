"""The sound of a file: a track of which any stretch of seconds is given as mono at 16 kHz.

What is kept are the decoded frames, long ones in pieces, each with its own time. Every stretch is
mixed and resampled by itself from the frames it touches, so that it does not depend on where
reading began, and a track whose clock drifts stays with the picture.
"""

import collections
from collections.abc import Iterator

import av
import numpy as np

from elo_tf.data import schema

MARGIN = 0.02
"""Seconds of sound on both sides of a stretch that the resampler's filter may look at."""

_GAP = 0.05
"""Seconds by which a sound's time stamp may differ from where the samples before it ended."""

_BLOCK = 16_384
"""Samples that are resampled at once."""

_BYTES_PER_SECOND = 1_500_000
"""Memory for each second that may be kept: six channels at 48 kHz in float take less."""

_FRAME_BYTES = 2048
"""Memory of a frame besides its samples."""

_SILENCE = 1e-3
"""Root of the mean square: -60 dB of full scale."""


class SoundTrack:
    """The seconds of a track that may still be wanted.

    Attributes:
      end: time until which the track has been read.
      damaged: sound was lost, since it came too long before its picture, takes too much memory
        until then, or makes no sense.
    """

    def __init__(self, longest: float):
        """An empty track.

        Args:
          longest: seconds that are kept at most; fewer where a second takes much memory.
        """
        self.end = float("-inf")
        self.damaged = False
        self._longest = longest
        self._frames: collections.deque[tuple[float, float, av.AudioFrame]] = collections.deque()
        self._seconds = 0.0
        self._bytes = 0

    def add(self, frames: list[av.AudioFrame], earliest: float) -> None:
        """Adds what does not end before `earliest`."""
        for frame in frames:
            if frame.sample_rate <= 0:
                self.damaged = True
                continue
            time = self.end if frame.time is None else frame.time
            if not np.isfinite(time):
                time = 0.0
            self.end = time + frame.samples / frame.sample_rate
            if self.end < earliest:
                continue
            try:
                for offset, piece in _pieces(frame, max(earliest - time, 0.0)):
                    if not self._keep(time + offset, piece):
                        self.damaged = True
                        break
            except (av.FFmpegError, ValueError):
                self.damaged = True

    def _keep(self, time: float, frame: av.AudioFrame) -> bool:
        """Keeps a frame if there is room."""
        seconds, size = frame.samples / frame.sample_rate, _size(frame)
        if (self._seconds + seconds > self._longest
                or self._bytes + size > self._longest * _BYTES_PER_SECOND):
            return False
        # AudioFifo counts samples itself.
        frame.pts = None
        self._frames.append((time, time + seconds, frame))
        self._seconds += seconds
        self._bytes += size
        return True

    def forget(self, until: float) -> None:
        """Drops what ended before the time `until`."""
        while self._frames and self._frames[0][1] < until:
            time, end, frame = self._frames.popleft()
            self._seconds -= end - time
            self._bytes -= _size(frame)

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
        stretches: list[tuple[float, list[av.AudioFrame]]] = []
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


def _size(frame: av.AudioFrame) -> int:
    """Bytes of memory."""
    return _FRAME_BYTES + frame.samples * frame.layout.nb_channels * frame.format.bytes


def _pieces(frame: av.AudioFrame, skipped: float) -> Iterator[tuple[float, av.AudioFrame]]:
    """Cuts a frame every second, since each clip resamples all of every piece that it touches.

    Args:
      frame: of any length.
      skipped: seconds at its beginning that are not wanted.

    Yields:
      (seconds from the frame's beginning, piece).
    """
    rate = frame.sample_rate
    if frame.samples <= rate:
        yield 0.0, frame
        return
    fifo = av.AudioFifo()
    frame.pts = None
    fifo.write(frame)
    offset = int(skipped)
    if offset:
        fifo.read(offset * rate)
    while (piece := fifo.read(rate, partial=True)) is not None:
        yield float(offset), piece
        offset += 1


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
