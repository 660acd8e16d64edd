"""Videos straight to embeddings, with an exported encoder.

Worker processes decode; this one gathers their clips to batches, over videos, which the network
embeds in a thread of its own. Memory is bounded: workers stand still where the network is behind.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from elo_tf import cli, parallel
from elo_tf.data import manifest, media
from elo_tf.data.conversion import Limits
from elo_tf.data.conversion.shards import reject_reason
from elo_tf.errors import UserError
from elo_tf.serving import saved_model, video_windows
from elo_tf.serving.embedding_store import REJECTS, Reject, Store

_BATCHES = 2
"""That may be with the network: one that it works on, one that waits."""


@dataclasses.dataclass(frozen=True)
class Clips:
    """Which clips of a video are embedded.

    Attributes:
      windows: how many, spread evenly (our choice: 2, as in the evaluation).
      per_window: whether each has a row of its own; else their embeddings are averaged.
      max_pixels: videos with larger frames are rejected.
    """

    windows: int = 2
    per_window: bool = False
    max_pixels: int = media.Limits.max_pixels


@dataclasses.dataclass(frozen=True)
class Effort:
    """What the result does not depend on, but for rounding.

    Attributes:
      workers: processes that decode; 0 for this one alone, without `limits`.
      batch_size: clips that the network embeds at a time.
      limits: what each process may take.
    """

    workers: int = 1
    batch_size: int = 16
    limits: Limits = dataclasses.field(default_factory=Limits)


@dataclasses.dataclass
class Video:
    """A video and what became of it.

    Attributes:
      entry: which one.
      spans: (start, end) of each of its clips, in seconds.
      vectors: their embeddings, float32 [D] each.
      damaged: parts of it could not be decoded.
      problem: the reason and the detail where it could not be used.
    """

    entry: manifest.Entry
    spans: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    vectors: list[np.ndarray] = dataclasses.field(default_factory=list)
    damaged: bool = False
    problem: tuple[str, str] | None = None
    read: bool = False

    def rows(self, per_window: bool) -> list[dict[str, Any]]:
        """The rows of a table, all but the size of the file."""
        entry = self.entry
        common = {"video": entry.id, "path": os.path.abspath(entry.path),
                  "status": "damaged" if self.damaged else "ok"}
        if not per_window:
            return [common | {"id": entry.id, "start": self.spans[0][0], "end": self.spans[-1][1],
                              "clips": len(self.spans), "embedding": np.mean(self.vectors, axis=0)}]
        return [common | {
            "id": f"{entry.id}/{manifest.decimal(start)}-{manifest.decimal(end)}", "start": start,
            "end": end, "clips": 1, "embedding": vector,
        } for (start, end), vector in zip(self.spans, self.vectors, strict=True)]


def embed_folder(model_dir: str, source: str, output: str, *, clips: Clips, effort: Effort,
                 video_root: str | None = None, array: bool = False,
                 shard_videos: int = 256) -> dict[str, Any]:
    """Embeds the videos of a folder or of a CSV file, or those that an earlier run left.

    Args:
      model_dir: of the exported encoder, see `saved_model.open_model`.
      source: the folder or the CSV, see `manifest.read_manifest`.
      output: folder for the embeddings.
      clips: which clips of each video.
      effort: processes, batches and limits.
      video_root: the folder that the paths of a CSV are relative to; None for the CSV's own.
      array: whether to write `embeddings.npy` and `ids.csv`, too.
      shard_videos: videos of a shard: so many are lost at most if the run is killed.

    Returns:
      The summary, as saved in `summary.json`, and `new`: how many videos this run embedded or
      rejected.

    Raises:
      UserError: no video can be used, the output has other settings, or a folder is wrong.
    """
    model = saved_model.open_model(model_dir)
    entries = manifest.read_manifest(source, video_root=video_root).entries
    store = Store(output, {
        "model": os.fspath(model.folder), "fingerprint": model.fingerprint,
        "embedding_size": model.embedding_size, "input": os.path.abspath(source),
        "video_root": video_root and os.path.abspath(video_root), **dataclasses.asdict(clips)})
    with store.writing():
        sizes = {entry.id: _size(entry.path) for entry in entries}
        store.forget({x for x, size in sizes.items() if store.done.get(x, size) != size})
        waiting = [entry for entry in entries if entry.id not in store.done]
        if waiting:
            _write_all(store, model, waiting, sizes, clips, effort, shard_videos,
                       done=len(entries) - len(waiting))
        summary = store.finish(array)
    if not summary["embedded"]:
        reason, count = next(iter(summary["rejected_by_reason"].items()))
        raise UserError(f"none of the {len(entries)} videos in {source} can be used; most frequent "
                        f"reason: {reason} ({count}); see {store.folder / REJECTS}")
    return summary | {"new": len(waiting)}


def embed_videos(entries: Sequence[manifest.Entry], model: saved_model.SavedModel, clips: Clips,
                 effort: Effort) -> Generator[Video, None, None]:
    """Embeds some videos.

    Args:
      entries: the videos.
      model: an exported encoder.
      clips: which clips of each video.
      effort: processes, batches and limits.

    Yields:
      The videos in order, each with its embeddings or with its problem.
    """
    inner = round(model.side * model.crop)
    jobs = (video_windows.Job(entry.path, entry.start, entry.end, clips.windows, model.frames,
                              model.fps, model.side, inner, clips.max_pixels) for entry in entries)
    with concurrent.futures.ThreadPoolExecutor(1) as pool, contextlib.closing(
            parallel.stream_jobs(
                video_windows.read_windows, [jobs], min(effort.workers, len(entries)),
                timeout=effort.limits.seconds,
                memory=round(effort.limits.gigabytes * 2**30))) as messages:
        loading = pool.submit(model.load)  # While the workers start.
        network = _Network(pool, lambda batch: loading.result()(batch), effort.batch_size)
        videos: collections.deque[Video] = collections.deque()
        begun = 0
        for message in messages:
            if message.index == begun:
                videos.append(Video(entries[begun]))
                begun += 1
            video = videos[-1]
            if message.last:
                video.read = True
                if message.item is not None:
                    video.problem = reject_reason(message.item, effort.limits)
            elif message.item is not None:
                window = message.item
                video.spans.append((window.start, window.end))
                video.damaged |= window.damaged
                network.add(video, window.frames)
            yield from network.take(videos)
        network.flush()
        yield from network.take(videos)


class _Network:
    """Gathers clips to batches and gives the embeddings back to their videos."""

    def __init__(self, pool: concurrent.futures.Executor,
                 embed: Callable[[np.ndarray], np.ndarray], batch_size: int):
        self._pool, self._embed, self._batch_size = pool, embed, batch_size
        self._batch: list[tuple[Video, np.ndarray]] = []
        self._running: collections.deque[tuple[list[Video], concurrent.futures.Future]] = (
            collections.deque())

    def add(self, video: Video, frames: np.ndarray) -> None:
        """Embeds a clip, uint8 [T, S, S, 3], once there are enough for a batch."""
        self._batch.append((video, frames))
        if len(self._batch) == self._batch_size:
            self._submit()

    def flush(self) -> None:
        """Embeds all that there is."""
        if self._batch:
            self._submit()
        while self._running:
            self._receive()

    def take(self, videos: collections.deque[Video]) -> Iterator[Video]:
        """Removes and gives the first videos that are complete."""
        while self._running and self._running[0][1].done():
            self._receive()
        while videos and videos[0].read and (
                videos[0].problem or len(videos[0].vectors) == len(videos[0].spans)):
            video = videos.popleft()
            if not video.problem and not np.isfinite(video.vectors).all():
                video.problem = "not_finite", "its embedding has NaN or infinite values"
            yield video

    def _submit(self) -> None:
        if len(self._running) == _BATCHES:
            self._receive()
        videos, clips = zip(*self._batch, strict=True)
        self._batch = []
        self._running.append((list(videos), self._pool.submit(self._embed, np.stack(clips))))

    def _receive(self) -> None:
        videos, future = self._running.popleft()
        for video, vector in zip(videos, future.result(), strict=True):
            video.vectors.append(vector)


def _write_all(store: Store, model: saved_model.SavedModel, entries: Sequence[manifest.Entry],
               sizes: dict[str, int], clips: Clips, effort: Effort, shard_videos: int,
               done: int) -> None:
    """Embeds some videos and writes a shard of so many at a time."""
    named = [entry for entry in entries if _is_text(entry.id)]
    rows: list[dict[str, Any]] = []
    rejects = [Reject(x.id, sizes[x.id], "bad_name", "its name is not UTF-8; rename it")
               for x in entries if not _is_text(x.id)]
    done += len(rejects)

    def write() -> None:
        if rows or rejects:
            store.add(rows, rejects)
        rows.clear()
        rejects.clear()

    with contextlib.closing(embed_videos(named, model, clips, effort)) as videos, cli.progress(
            total=done + len(named), initial=done, desc="embedding", unit="video") as bar:
        try:
            for count, video in enumerate(videos, 1):
                size = sizes[video.entry.id]
                if video.problem:
                    rejects.append(Reject(video.entry.id, size, *video.problem))
                else:
                    rows += [row | {"bytes": size} for row in video.rows(clips.per_window)]
                if count % shard_videos == 0:
                    write()
                bar.update()
        except KeyboardInterrupt:
            write()
            raise
        write()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
