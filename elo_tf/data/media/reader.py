"""Reads an open file once, from its beginning or from a place in it, and gives its clips."""

import dataclasses
import fractions
from collections.abc import Iterator

import av
import numpy as np

from elo_tf.data import schema
from elo_tf.data.media import sound as media_sound
from elo_tf.data.media.container import Limits, MediaError, MediaFile
from elo_tf.data.media.frames import TIME_TOLERANCE, FrameSampler, Region, windows

_LONGEST_LAG = 5.0
"""Seconds by which sound may come after its picture in the file: a track that ended early is not
waited for longer."""

_LONGEST_HOLD = 300.0
"""Seconds between two frames, as recordings of screens hold a picture; time stamps that lie further
apart are wrong (our choice)."""

_LONGEST_LEAD = _LONGEST_HOLD + 60.0
"""Seconds by which sound may come before the next picture in the file."""

_MISSING = 0.5
_MISSING_SHARE = 0.01
"""A file that ends these seconds and this share of its length before the end it declares is
damaged; not all files say how long their last frame is shown."""

_DEFAULT_FPS = 25.0


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is wanted of a file: the arguments of `decode_clips`."""

    fps: float
    min_side: int
    start: float
    end: float
    clip_seconds: float | None
    stride_seconds: float | None
    min_frames: int
    limits: Limits
    region: Region | None = None

    @property
    def seconds(self) -> float:
        """How much is used at most."""
        return min(self.end - self.start, self.limits.max_seconds)

    @property
    def may_cut(self) -> bool:
        """Whether the limit, and not `end`, says how much is used."""
        return self.end - self.start > self.limits.max_seconds


@dataclasses.dataclass
class DecodedClip:
    """A clip of a video.

    Attributes:
      frames: N arrays, uint8 [H, W, 3], RGB; a picture that is shown longer is the same array.
      fps: frames a second.
      start: where frame 0 lies in the source, in seconds.
      audio: float32 [round(N / fps * 16000)] in [-1, 1], mono; None where there is no sound.
      silent: there is a track, but nothing can be heard on it.
      damaged: parts of the file could not be decoded while this clip was, or the file ends in this
        clip and before the end it declares.
      cut: this clip is the last, and the video goes on after `max_seconds`.
      source_fps: frames a second that the file declares; 0 where it does not.
    """

    frames: list[np.ndarray]
    fps: float
    start: float
    audio: np.ndarray | None
    silent: bool
    damaged: bool
    cut: bool
    source_fps: float


class SeekMissedError(Exception):
    """The container's index led behind the place asked for."""


class Reader:
    """One way through a file."""

    def __init__(self, file: MediaFile, wanted: Wanted):
        self._file = file
        self._wanted = wanted
        self._clock = _Clock(file)
        self._sampler: FrameSampler | None = None
        self._track: media_sound.SoundTrack | None = None
        if file.sound is not None:
            self._track = media_sound.SoundTrack(
                (wanted.clip_seconds or wanted.seconds) + _LONGEST_LAG + _LONGEST_LEAD)
        self._covered = float("-inf")
        self._intact = True
        self._count = 0

    def read(self, seek: bool) -> Iterator[DecodedClip]:
        """Gives the clips; raises SeekMissedError before the first if seeking did not work."""
        if seek:
            origin = self._first_time()
            self._sampler = self._make_sampler(origin)
            self._file.seek(origin + self._wanted.start - 1.0)
        for stream, frames, decoded in self._file.decode():
            if stream is self._file.video:
                self._look(frames, decoded)
            else:
                self._listen(frames, decoded)
            while self._is_ready():
                assert self._sampler is not None and self._clock.last is not None
                yield self._take(self._sampler.clips[0].limit, self._clock.last)
                self._count = 0
            if self._clock.jumped or (self._sampler is not None and self._sampler.is_empty):
                break
        yield from self._rest()

    def _first_time(self) -> float:
        for _, frames, _ in self._file.decode(sound=False):
            for frame in frames:
                return _Clock(self._file).time(frame)
        raise MediaError("undecodable", "no frame of its video stream can be decoded")

    def _make_sampler(self, origin: float) -> FrameSampler:
        wanted = self._wanted
        places = windows(wanted.start, wanted.seconds, wanted.clip_seconds, wanted.stride_seconds)
        return FrameSampler(origin, wanted.fps, places, wanted.min_side, wanted.region,
                            float(self._file.video.sample_aspect_ratio or 1))

    def _look(self, frames: list[av.VideoFrame], decoded: bool) -> None:
        sampler = self._sampler
        if not decoded:
            self._intact = False
            if sampler is not None:
                sampler.spoil()
        for frame in frames:
            first = self._clock.last is None
            time = self._clock.time(frame)
            if self._clock.jumped:
                return
            if sampler is None:
                sampler = self._sampler = self._make_sampler(time)
                if sampler.upcoming is not None:
                    sampler.upcoming.damaged = not self._intact and not self._wanted.start
            elif first and time > sampler.begin + TIME_TOLERANCE:
                raise SeekMissedError
            sampler.show(frame, time)
            if frame.is_corrupt:
                sampler.spoil()
            self._count += time >= sampler.begin
            if self._count > self._wanted.limits.max_frames:
                raise MediaError("too_many_frames", "more source frames in a clip than the limit "
                                 f"of {self._wanted.limits.max_frames}")

    def _listen(self, frames: list[av.AudioFrame], decoded: bool) -> None:
        assert self._track is not None
        # Sound before the part that is used only costs memory.
        if self._sampler is None:
            self._track.add(frames, float("-inf"))
            self._track.forget(self._track.end - _LONGEST_LEAD)
            return
        self._track.add(frames, self._sampler.begin - media_sound.MARGIN)
        if not decoded:
            for clip in self._sampler.clips:
                clip.damaged = True

    def _is_ready(self) -> bool:
        """Whether all that the first clip wants has been read."""
        sampler, track, time = self._sampler, self._track, self._clock.last
        if sampler is None or time is None or not sampler.clips:
            return False
        clip = sampler.clips[0]
        if len(clip.frames) < clip.limit or time < clip.end - TIME_TOLERANCE:
            return False
        if sampler.is_last and self._wanted.may_cut and not self._is_past(time):
            return False
        return (track is None or track.end >= clip.end + media_sound.MARGIN
                or time > clip.end + _LONGEST_LAG)

    def _is_past(self, time: float) -> bool:
        """Whether a time lies after all that may be used."""
        assert self._sampler is not None
        begin = self._sampler.origin + self._wanted.start
        return time > begin + self._wanted.seconds + TIME_TOLERANCE

    def _take(self, count: int, until: float) -> DecodedClip:
        """Finishes the first clip, which has `count` frames, of a video read up to `until`."""
        assert self._sampler is not None
        cut = self._sampler.is_last and self._wanted.may_cut and self._is_past(until)
        clip = self._sampler.clips.popleft()
        self._covered = clip.begin + count / self._wanted.fps
        audio = None
        damaged = clip.damaged
        if self._track is not None:
            samples = round(count / self._wanted.fps * schema.SAMPLE_RATE)
            audio = self._track.waveform(clip.begin, samples)
            damaged |= self._track.damaged
            self._track.forget(self._sampler.begin - media_sound.MARGIN)
        silent = audio is not None and media_sound.is_silent(audio)
        return DecodedClip(
            frames=clip.frames[:count], fps=self._wanted.fps, start=clip.start,
            audio=None if silent else audio, silent=silent, damaged=damaged, cut=cut,
            source_fps=self._file.fps)

    def _rest(self) -> Iterator[DecodedClip]:
        """Gives what has begun when the file ends."""
        sampler, wanted = self._sampler, self._wanted
        if sampler is None:
            raise MediaError("undecodable", "no frame of its video stream can be decoded")
        if sampler.is_empty:
            return
        end = sampler.origin if self._clock.last is None else self._clock.end
        sampler.fill(end)
        if self._clock.jumped or self._ends_early(end):
            sampler.spoil()
        if (not sampler.clips and sampler.upcoming is not None
                and sampler.upcoming.start == wanted.start):
            self._check_count(0, 0.0)
        while sampler.clips:
            clip = sampler.clips[0]
            count = clip.shown(end, wanted.fps)
            if clip.start == wanted.start:
                self._check_count(count, end - clip.begin)
            elif (count < wanted.min_frames
                  or count / wanted.fps < (wanted.clip_seconds or 0) / 2 - TIME_TOLERANCE
                  or clip.begin + count / wanted.fps < self._covered + TIME_TOLERANCE):
                return
            whole = count == clip.limit
            yield self._take(count, end)
            if not whole:
                return

    def _check_count(self, count: int, shown: float) -> None:
        wanted = self._wanted
        if count < wanted.min_frames:
            raise MediaError(
                "too_short", f"{shown:.3f} s from second {wanted.start:g} on give {count} frames "
                f"at {wanted.fps:g} a second; at least {wanted.min_frames} are needed")

    def _ends_early(self, end: float) -> bool:
        """Whether the file ends well before the end it declares."""
        declared = self._file.declared_end()
        if declared is None:
            return False
        begin, stop = declared
        if self._track is not None:
            end = max(end, self._track.end)
        return stop - end > max(_MISSING, _MISSING_SHARE * (stop - begin))


class _Clock:
    """Tells the time of each frame, also where the file does not, or tells nonsense.

    Attributes:
      last: time of the last frame.
      jumped: the time stamps jumped at the last frame asked for.
    """

    def __init__(self, file: MediaFile):
        self.last: float | None = None
        self.jumped = False
        self._period = 1.0 / (file.fps or _DEFAULT_FPS)
        self._time_base = file.video.time_base or fractions.Fraction(1, av.time_base)
        self._has_times = file.has_times
        self._first_dts: int | None = None
        self._declared = file.declared_end()
        self._duration = 0.0

    @property
    def end(self) -> float:
        """When the last frame has been shown, which may be a picture that is held for long."""
        last = self.last or 0.0
        end = last + self._period
        if self._period < self._duration <= _LONGEST_HOLD:
            held = last + self._duration
            end = max(end, held if self._declared is None else min(held, self._declared[1]))
        return end

    def time(self, frame: av.VideoFrame) -> float:
        """The time from which the next frame is shown, in seconds."""
        stamp = frame.pts if self._has_times else frame.dts
        if not self._has_times and stamp is not None:
            if self._first_dts is None:
                self._first_dts = stamp
            stamp -= self._first_dts
        last = self.last
        time = None
        if stamp is not None:
            time = stamp * self._time_base.numerator / self._time_base.denominator
        if last is not None and time is not None and abs(time - last) > _LONGEST_HOLD:
            self.jumped = True
            return time
        if time is None or (last is not None and time <= last):
            time = 0.0 if last is None else last + self._period
        self.last = time
        self._duration = float((frame.duration or 0) * self._time_base)
        return time
