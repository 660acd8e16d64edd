"""A video file from anywhere is opened, and its packets are decoded.

Only self-contained containers are opened: no playlists, nothing that names another file or an
address. Sizes are limited before anything is decoded, and what can be decoded of a damaged file is
used.
"""

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator
from typing import Any

import av
from av.stream import Disposition

# FFmpeg's names of the containers that hold their media themselves.
_CONTAINERS = "asf,avi,gif,h264,hevc,m4v,matroska,mov,mpegvideo,ogg,rm,webm,yuv4mpegpipe"

_HEADERLESS = "flv,mpeg,mpegts"
"""The same, where streams appear only with their packets: opening decodes some, without limits."""

_INDEXED = ("mov", "matroska")
"""Containers whose index says where decoding can begin."""


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
      max_frames: files with more source frames in a clip are refused.
    """

    max_seconds: float = 60.0
    max_pixels: int = 8192 * 4320
    max_frames: int = 100_000


class MediaFile:
    """An open file: its streams, and what they decode to."""

    def __init__(self, container: av.container.InputContainer, max_pixels: int):
        self._container = container
        names = container.format.name.split(",")
        self.indexed = any(name in _INDEXED for name in names)
        # AVI stores no presentation times, only the order of decoding.
        self.has_times = "avi" not in names
        self.video = _video_stream(container, max_pixels)
        self.sound = container.streams.best("audio")
        rate = self.video.average_rate or self.video.guessed_rate
        self.fps = float(rate) if rate else 0.0

    def declared_end(self) -> tuple[float, float] | None:
        """(begin, end) that the file declares for its video, in the file's time; None if unknown.

        Where only the whole file has a length, a stream that is not decoded may be what lasts.
        """
        video, container = self.video, self._container
        if video.duration is not None and video.time_base is not None:
            begin = float((video.start_time or 0) * video.time_base)
            return begin, begin + float(video.duration * video.time_base)
        if container.duration is None or any(
                stream not in (video, self.sound) for stream in container.streams):
            return None
        begin = (container.start_time or 0) / av.time_base
        return begin, begin + container.duration / av.time_base

    def seek(self, seconds: float) -> None:
        """Goes to a place from which the picture of this time of the file can be decoded."""
        self._container.seek(int(seconds * av.time_base))

    def decode(self, sound: bool = True) -> Iterator[tuple[av.stream.Stream, list, bool]]:
        """Decodes from here on.

        Args:
          sound: whether the sound is decoded too.

        Yields:
          (stream, its next frames, whether all could be read and decoded).
        """
        streams: list[av.stream.Stream] = [self.video]
        if sound and self.sound is not None:
            streams.append(self.sound)
        try:
            for packet in self._container.demux(*streams):
                if packet.size:
                    yield packet.stream, *_decode(packet.stream, packet)
        except MemoryError:
            raise
        except av.FFmpegError:
            yield self.video, [], False
        except IndexError:
            # So PyAV ends a file in which a stream appeared that was not there at first.
            pass
        for stream in streams:
            yield stream, *_decode(stream, None)


@contextlib.contextmanager
def open_file(path: str, limits: Limits) -> Iterator[MediaFile]:
    """Opens a video file.

    Args:
      path: the file.
      limits: what it may cost.

    Yields:
      The open file.

    Raises:
      MediaError: with the reason, if the file cannot be used.
    """
    check_file(path)
    # The prefix keeps names such as "concat:a.mp4" from being read as addresses.
    url = f"file:{os.path.abspath(path)}"
    try:
        try:
            container = _open(url, _CONTAINERS, limits)
        except av.error.ArgumentError:
            with _open(url, _HEADERLESS, limits, codec_whitelist="none") as headers:
                for stream in headers.streams.video:
                    _check_size(stream, limits.max_pixels)
            container = _open(url, _HEADERLESS, limits)
        with container:
            yield MediaFile(container, limits.max_pixels)
    except MemoryError:  # FFmpeg's errors have one, too.
        raise
    except av.error.ArgumentError as error:
        raise MediaError("unknown_container", "not a video container, or one that is not read "
                         "since it refers to other files") from error
    except av.FFmpegError as error:
        text = error.strerror or str(error)
        raise MediaError("undecodable", f"not a media file that can be opened ({text})") from error


def _open(url: str, containers: str, limits: Limits,
          **options: str) -> av.container.InputContainer:
    # The limit of pixels is for the decoders that look at the first frames here.
    return av.open(url, metadata_errors="replace", options={
        "protocol_whitelist": "file", "format_whitelist": containers,
        "max_pixels": str(limits.max_pixels), **options})


def check_file(path: str) -> None:
    """Raises `MediaError` unless this is a regular file that can be read and has contents."""
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


def _video_stream(container: av.container.InputContainer, max_pixels: int) -> av.VideoStream:
    """The stream marked as default, of several the largest, of those the first (our choice)."""
    streams = [stream for stream in container.streams.video
               if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise MediaError("no_video_stream", "the file has no video stream")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise MediaError("undecodable", "there is no decoder for its video stream")
    stream = max(known, key=lambda stream: (
        bool(stream.disposition & Disposition.default),
        stream.codec_context.width * stream.codec_context.height))
    _check_size(stream, max_pixels)
    context = stream.codec_context
    context.options = {"max_pixels": str(max_pixels)}
    # Several threads would make what is saved of a damaged file depend on chance.
    context.thread_count = 1
    context.thread_type = "NONE"
    return stream


def _check_size(stream: av.VideoStream, max_pixels: int) -> None:
    context = stream.codec_context
    if context is not None and context.width * context.height > max_pixels:
        raise MediaError("too_large", f"frames of {context.width}x{context.height} pixels, more "
                         f"than the limit of {max_pixels} pixels")


def _decode(stream: Any, packet: av.Packet | None) -> tuple[list, bool]:
    try:
        return stream.decode(packet), packet is None or not packet.is_corrupt
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError):
        return [], False
