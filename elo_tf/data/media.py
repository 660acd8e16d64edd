"""Decodes one video file with PyAV: frames at a constant rate, and the sound of the same seconds.

Time 0 is the moment the first frame is shown. Output frame k is the picture on show at k / fps
seconds, and the waveform starts at 0 and lasts as long as the frames. Files come from anywhere:
only self-contained containers are opened (no playlists, nothing that names another file or an
address), sizes are limited, and what can be decoded of a damaged file is used.
"""

import dataclasses
import os
import stat
from collections.abc import Iterator

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import Interpolation

from elo_tf.data import schema

VIDEO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".gif", ".m1v", ".m2ts", ".m2v", ".m4v",
    ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".ogg", ".ogv", ".rm", ".rmvb", ".ts",
    ".vob", ".webm", ".wmv", ".y4m",
})

# FFmpeg's names of the containers that hold their media themselves.
_CONTAINERS = ("asf,avi,flv,gif,h264,hevc,m4v,matroska,mov,mpeg,mpegts,mpegvideo,ogg,rm,webm,"
               "yuv4mpegpipe")

_TIME_TOLERANCE = 0.002
"""Seconds; some containers round time stamps to the millisecond."""

_SEEK_FROM = 5.0
"""Seconds; for an earlier start, decoding from the beginning is as fast as seeking."""

_AUDIO_GAP = 0.05
"""Seconds by which a sound's time stamp may differ from where the samples before it ended."""

_LONGEST_SHAPE = 20
"""Largest ratio of a frame's sides."""


class MediaError(Exception):
    """A file that cannot be used.

    Attributes:
      reason: a word for programs, such as "undecodable".
      detail: a sentence for people.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one video may cost.

    Attributes:
      max_seconds: only this much of a video is used.
      max_pixels: files with larger frames are refused.
      max_frames: files with more source frames in the part that is used are refused.
    """

    max_seconds: float = 60.0
    max_pixels: int = 8192 * 4320
    max_frames: int = 100_000


@dataclasses.dataclass
class DecodedClip:
    """The part of a video that is used.

    Attributes:
      frames: N arrays, uint8 [H, W, 3], RGB.
      fps: frames a second.
      start: where frame 0 lies in the source, in seconds.
      audio: float32 [round(N / fps * 16000)] in [-1, 1], mono; None where there is no sound.
      silent: there is a track, but nothing can be heard on it.
      damaged: parts of the file could not be decoded.
      cut: the video goes on after `max_seconds`.
    """

    frames: list[np.ndarray]
    fps: float
    start: float
    audio: np.ndarray | None
    silent: bool
    damaged: bool
    cut: bool


class _SeekMissedError(Exception):
    """The container's index led behind the place asked for."""


def decode_video(path: str | os.PathLike, *, fps: float, min_side: int,
                 start: float | None = None, end: float | None = None, min_frames: int = 2,
                 limits: Limits | None = None) -> DecodedClip:
    """Decodes a video file, or the part of it between `start` and `end`.

    Rotation and non-square pixels are corrected, and frames are resized (by area where they
    shrink) so that the shorter side is `min_side`.

    Args:
      path: the file.
      fps: frames a second of the result.
      min_side: shorter side of the result, in pixels.
      start: first second used; None for the beginning.
      end: second before which to stop; None for the end.
      min_frames: a result with fewer frames is an error.
      limits: what the file may cost.

    Returns:
      The decoded clip.

    Raises:
      MediaError: with the reason, if the file cannot be used.
    """
    path = os.path.abspath(os.fspath(path))
    limits = limits or Limits()
    _check_file(path)
    decoder = _Decoder(path, fps, min_side, start, end, min_frames, limits)
    try:
        try:
            return decoder.decode(seek=start is not None and start > _SEEK_FROM)
        except _SeekMissedError:
            return decoder.decode(seek=False)
    except av.error.ArgumentError as error:
        raise MediaError("unknown_container", "not a video container, or one that is not read "
                         "since it refers to other files") from error
    except av.FFmpegError as error:
        text = error.strerror or str(error)
        raise MediaError("undecodable", f"not a media file that can be opened ({text})") from error


def _check_file(path: str) -> None:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("not_a_file", "not a regular file")
        if not status.st_size:
            raise MediaError("empty_file", "the file has 0 bytes")
        with open(path, "rb"):
            pass
    except FileNotFoundError as error:
        raise MediaError("missing_file", "there is no such file") from error
    except OSError as error:
        raise MediaError("unreadable", f"cannot be read ({error.strerror})") from error


class _Decoder:
    """Decodes one file; each call of `decode` opens it anew."""

    def __init__(self, path: str, fps: float, min_side: int, start: float | None,
                 end: float | None, min_frames: int, limits: Limits):
        self._path = path
        self._fps = fps
        self._min_side = min_side
        self._start = start or 0.0
        self._min_frames = min_frames
        self._limits = limits
        wanted = float("inf") if end is None else end - self._start
        self._seconds = min(wanted, limits.max_seconds)
        self._may_cut = wanted > limits.max_seconds
        self._errors = 0

    def decode(self, seek: bool) -> DecodedClip:
        self._errors = 0
        # The prefix keeps names such as "concat:a.mp4" from being read as addresses.
        with av.open(f"file:{self._path}", metadata_errors="replace",
                     options={"protocol_whitelist": "file",
                              "format_whitelist": _CONTAINERS}) as container:
            video = self._video_stream(container)
            sound = container.streams.best("audio")
            seek = seek and container.format.name != "avi"
            begin = None
            if seek:
                origin = float((video.start_time or 0) * video.time_base)
                begin = origin + self._start
                container.seek(int((begin - 1.0) * av.time_base))
            return self._read(container, video, sound, begin)

    def _video_stream(self, container: av.container.InputContainer) -> av.VideoStream:
        streams = [stream for stream in container.streams.video
                   if not stream.disposition & Disposition.attached_pic]
        if not streams:
            raise MediaError("no_video_stream", "the file has no video stream")
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise MediaError("undecodable", "there is no decoder for its video stream")
        if context.width * context.height > self._limits.max_pixels:
            raise MediaError(
                "too_large", f"frames of {context.width}x{context.height} pixels, more than "
                f"the limit of {self._limits.max_pixels} pixels")
        context.options = {"max_pixels": str(self._limits.max_pixels)}
        # Several threads would make what is saved of a damaged file depend on chance.
        context.thread_count = 1
        context.thread_type = "NONE"
        return stream

    def _read(self, container: av.container.InputContainer, video: av.VideoStream,
              sound: av.AudioStream | None, begin: float | None) -> DecodedClip:
        rate = video.average_rate or video.guessed_rate
        period = 1.0 / float(rate) if rate else 1.0 / 25.0
        sampler = None if begin is None else self._sampler(video, begin)
        track = None if sound is None else _AudioTrack(sound)
        # AVI stores no presentation times, only the order of decoding.
        avi = container.format.name == "avi"
        first_dts = None
        time = None
        count = 0
        for stream, packet in self._packets(container, video, sound):
            frames = self._decode_packet(stream, packet)
            if stream is not video:
                # Sound long before the part that is used only costs memory.
                earliest = None if sampler is None else sampler.begin - 1.0
                if not track.add(frames, earliest):
                    self._errors += 1
                continue
            for frame in frames:
                stamp = frame.dts if avi else frame.pts
                if avi and stamp is not None:
                    first_dts = stamp if first_dts is None else first_dts
                    stamp -= first_dts
                previous = time
                time = None if stamp is None else float(stamp * video.time_base)
                if time is None or (previous is not None and time <= previous):
                    time = 0.0 if previous is None else previous + period
                if sampler is None:
                    sampler = self._sampler(video, time + self._start)
                elif previous is None and time > sampler.begin + _TIME_TOLERANCE:
                    raise _SeekMissedError
                sampler.add(frame, time)
                count += 1
                if count > self._limits.max_frames:
                    raise MediaError("too_many_frames", "more source frames than the limit of "
                                     f"{self._limits.max_frames}")
            if sampler is not None and time is not None and self._is_past(
                    time - sampler.begin, track and track.end - sampler.begin):
                break
        if time is None:
            raise MediaError("undecodable", "no frame of its video stream can be decoded")
        return self._finish(sampler, track, time + period)

    def _sampler(self, video: av.VideoStream, begin: float) -> "_FrameSampler":
        wanted = self._seconds * self._fps + 1e-6
        return _FrameSampler(begin, self._fps, int(min(wanted, 1e9)), self._min_side,
                             float(video.sample_aspect_ratio or 1))

    def _is_past(self, video_seconds: float, audio_seconds: float | None) -> bool:
        """Whether all that is wanted has been read; a track that ended early is not waited for."""
        if video_seconds < self._seconds + _TIME_TOLERANCE:
            return False
        return (audio_seconds is None or audio_seconds >= self._seconds
                or video_seconds > self._seconds + 5.0)

    def _packets(self, container: av.container.InputContainer,
                 *streams: av.stream.Stream | None) -> Iterator[tuple]:
        """Yields (stream, packet), and at the end (stream, None) to empty each decoder."""
        present = [stream for stream in streams if stream is not None]
        try:
            for packet in container.demux(*present):
                if packet.size:
                    yield packet.stream, packet
        except av.FFmpegError:
            self._errors += 1
        for stream in present:
            yield stream, None

    def _decode_packet(self, stream: av.stream.Stream, packet: av.Packet | None) -> list:
        try:
            return stream.decode(packet)
        except (av.FFmpegError, ValueError):
            self._errors += 1
            return []

    def _finish(self, sampler: "_FrameSampler", track: "_AudioTrack | None",
                end: float) -> DecodedClip:
        sampler.fill(end)
        shown = max(end - sampler.begin, 0.0)
        # A last frame whose time is not full is left out, since its sound is missing.
        full = max(1, int((shown + _TIME_TOLERANCE) * self._fps))
        count = min(len(sampler.frames), full)
        if count < self._min_frames:
            raise MediaError(
                "too_short", f"{shown:.3f} s from second {self._start:g} on give {count} frames "
                f"at {self._fps:g} a second; at least {self._min_frames} are needed")
        samples = round(count / self._fps * schema.SAMPLE_RATE)
        audio = None if track is None else track.waveform(sampler.begin, samples)
        silent = audio is not None and _is_silent(audio)
        return DecodedClip(
            frames=sampler.frames[:count], fps=self._fps, start=self._start,
            audio=None if silent else audio, silent=silent, damaged=self._errors > 0,
            cut=self._may_cut and shown > self._limits.max_seconds + _TIME_TOLERANCE)


class _FrameSampler:
    """Turns frames with times into frames at a constant rate: each is held until the next."""

    def __init__(self, begin: float, fps: float, limit: int, min_side: int, pixel_ratio: float):
        self.begin = begin
        self.frames: list[np.ndarray] = []
        self._fps = fps
        self._limit = limit
        self._min_side = min_side
        self._pixel_ratio = pixel_ratio
        self._size: tuple[int, int] | None = None
        self._held: av.VideoFrame | None = None

    def add(self, frame: av.VideoFrame, time: float) -> None:
        """Shows `frame` from `time` on."""
        self.fill(time)
        self._held = frame

    def fill(self, until: float) -> None:
        """Takes the frame on show for all output times before `until`."""
        picture = None
        while (self._held is not None and len(self.frames) < self._limit
               and self.begin + len(self.frames) / self._fps < until - _TIME_TOLERANCE):
            if picture is None:
                picture = self._picture(self._held)
            self.frames.append(picture)

    def _picture(self, frame: av.VideoFrame) -> np.ndarray:
        turns = round(frame.rotation / 90) % 4
        if self._size is None:
            self._size = _output_size(frame, self._pixel_ratio, turns, self._min_side)
        width, height = self._size if turns % 2 == 0 else self._size[::-1]
        shrinks = width <= frame.width and height <= frame.height
        image = frame.reformat(
            width, height, "rgb24",
            interpolation=Interpolation.AREA if shrinks else Interpolation.BILINEAR).to_ndarray()
        return np.ascontiguousarray(np.rot90(image, turns))


def _output_size(frame: av.VideoFrame, pixel_ratio: float, turns: int,
                 min_side: int) -> tuple[int, int]:
    """(width, height) of the output, seen upright with square pixels."""
    width, height = frame.width * pixel_ratio, float(frame.height)
    if turns % 2:
        width, height = height, width
    if max(width, height) > _LONGEST_SHAPE * min(width, height):
        raise MediaError("bad_shape", f"frames of {width:.0f}x{height:.0f} pixels, one side more "
                         f"than {_LONGEST_SHAPE} times the other")
    scale = min_side / min(width, height)
    return round(width * scale), round(height * scale)


class _AudioTrack:
    """Collects a track as stretches of mono samples, each with the time it starts at."""

    def __init__(self, stream: av.AudioStream):
        self.end = float("-inf")
        self._time_base = stream.time_base
        self._stretches: list[tuple[float, list[np.ndarray]]] = []
        self._resampler: av.AudioResampler | None = None

    def add(self, frames: list[av.AudioFrame], earliest: float | None) -> bool:
        """Adds frames that do not end before `earliest`; returns whether all could be used."""
        usable = True
        for frame in frames:
            time = self.end if frame.pts is None else float(frame.pts * frame.time_base)
            if not np.isfinite(time):
                time = 0.0
            end = time + frame.samples / frame.sample_rate
            if earliest is not None and end < earliest:
                continue
            try:
                if self._resampler is None or abs(time - self.end) > _AUDIO_GAP:
                    self._begin_stretch(time)
                self._keep(self._resampler.resample(frame))
            except (av.FFmpegError, ValueError):
                # The track's format changes here, or makes no sense.
                self._resampler = None
                usable = False
            self.end = end
        return usable

    def waveform(self, begin: float, samples: int) -> np.ndarray:
        """Samples from the time `begin` on, zeros where the track has none; float32 [samples]."""
        self._flush()
        result = np.zeros(samples, np.float32)
        for time, pieces in self._stretches:
            if not pieces:
                continue
            stretch = np.concatenate(pieces)
            offset = round((time - begin) * schema.SAMPLE_RATE)
            first, last = max(offset, 0), min(offset + len(stretch), samples)
            if first < last:
                result[first:last] = stretch[first - offset:last - offset]
        return np.clip(np.nan_to_num(result), -1.0, 1.0)

    def _begin_stretch(self, time: float) -> None:
        self._flush()
        self._resampler = av.AudioResampler("flt", "mono", schema.SAMPLE_RATE)
        self._stretches.append((time, []))

    def _flush(self) -> None:
        if self._resampler is not None:
            self._keep(self._resampler.resample(None))
            self._resampler = None

    def _keep(self, frames: list[av.AudioFrame]) -> None:
        self._stretches[-1][1].extend(frame.to_ndarray().reshape(-1) for frame in frames)


def _is_silent(audio: np.ndarray) -> bool:
    """Whether the loudness is below -60 dB of full scale."""
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) < 1e-3
