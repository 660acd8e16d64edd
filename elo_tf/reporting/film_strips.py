"""A few moments of a video, as JPEGs: what a worker process does, without any heavy import."""

import io
from collections.abc import Iterator, Sequence

import PIL.Image

from elo_tf import parallel
from elo_tf.data import conversion
from elo_tf.data.conversion.shards import reject_reason
from elo_tf.serving import video_windows

FRAMES = 6
_SIDE = 160
_FPS = 12.0
_LIMITS = conversion.Limits(seconds=60.0, gigabytes=2.0)


def film_strips(places: Sequence[tuple[str, float, float]],
                workers: int) -> Iterator[list[bytes] | str]:
    """Draws the strips of some videos.

    Args:
      places: (path, first second, second before which to end) of each.
      workers: processes that decode.

    Yields:
      For each, in order, up to 6 JPEGs of the centre square, evenly spread; or why there are none.
    """
    jobs = (video_windows.Job(path, start, end, FRAMES, 1, _FPS, _SIDE, _SIDE)
            for path, start, end in places)
    for message in parallel.stream_jobs(
            _strip, [jobs], min(workers, len(places)), timeout=_LIMITS.seconds,
            memory=round(_LIMITS.gigabytes * 2**30)):
        if isinstance(message.item, Exception):
            yield reject_reason(message.item, _LIMITS)[1]
        elif message.item is not None:
            yield message.item


def _strip(job: video_windows.Job) -> Iterator[list[bytes] | None]:
    strip = []
    for window in video_windows.read_windows(job):
        if window is None:
            yield None
            continue
        file = io.BytesIO()
        PIL.Image.fromarray(window.frames[0]).save(file, "JPEG", quality=82)
        strip.append(file.getvalue())
    yield strip
