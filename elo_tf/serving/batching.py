"""Micro-batching: clips of several requests in one call of the model.

Clips of one key (signature and shape) are stacked as they wait. A batch leaves when it is full, or
when its oldest clip has waited `timeout` seconds; while the model is busy, batches fill by
themselves. The model is called on a thread, so that the event loop lives.
"""

import asyncio
import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from absl import logging

from elo_tf.serving import metrics
from elo_tf.serving.limits import RequestError


@dataclasses.dataclass(frozen=True)
class Clip:
    """What the model is called with.

    Attributes:
      key: clips of equal keys may be stacked.
      content: of one clip, as the model takes it.
      size: bytes.
    """

    key: Hashable
    content: Any
    size: int


@dataclasses.dataclass(frozen=True)
class _Waiting:
    clip: Clip
    result: asyncio.Future
    since: float


class Batcher:
    """Groups clips and calls the model; made and used in one event loop."""

    def __init__(self, call: Callable[[Any, list[Any]], list[Any]], *, batch_size: int,
                 timeout: float, queue: int, batch_bytes: int):
        """Starts to wait for clips.

        Args:
          call: takes a key and the contents of clips, returns a result for each. Where it raises
            for several clips, it is called again for each of them: a bad one fails alone.
          batch_size: the most clips of a call.
          timeout: seconds that a clip waits for others while the model is free.
          queue: the most clips accepted and not yet answered.
          batch_bytes: clips of a call have at most so many bytes together, if it is not one alone.
        """
        self._call, self._batch_size, self._timeout = call, batch_size, timeout
        self._queue, self._batch_bytes = queue, batch_bytes
        self._waiting: dict[Hashable, collections.deque[_Waiting]] = {}
        self._count = 0
        self._changed = asyncio.Event()
        self._closing = False
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task = asyncio.create_task(self._run())

    async def submit(self, clips: Sequence[Clip]) -> list[Any]:
        """The results of clips, in order.

        Raises:
          RequestError: the queue is full (503).
          Exception: what the model raised for the first clip that failed.
        """
        if self._count + len(clips) > self._queue:
            raise RequestError(f"{self._count} clips are waiting already; try again", status=503,
                               retry_after=1)
        loop = asyncio.get_running_loop()
        futures = []
        for clip in clips:
            waiting = _Waiting(clip, loop.create_future(), loop.time())
            self._waiting.setdefault(clip.key, collections.deque()).append(waiting)
            futures.append(waiting.result)
        self._add(len(clips))
        self._changed.set()
        try:
            results = await asyncio.gather(*futures, return_exceptions=True)
        finally:
            self._add(-len(clips))
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    async def close(self) -> None:
        """Returns when every accepted clip is answered."""
        self._closing = True
        self._changed.set()
        await self._task
        self._thread.shutdown()

    def _add(self, clips: int) -> None:
        self._count += clips
        metrics.QUEUE_CLIPS.set(self._count)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := await self._next():
            contents = [x.clip.content for x in batch]
            results = await loop.run_in_executor(
                self._thread, self._results, batch[0].clip.key, contents)
            for waiting, result in zip(batch, results, strict=True):
                if waiting.result.done():  # its request was cancelled
                    continue
                if isinstance(result, Exception):
                    waiting.result.set_exception(result)
                else:
                    waiting.result.set_result(result)

    def _results(self, key: Hashable, contents: list[Any]) -> list[Any]:
        """On the thread: a result or an exception for each clip."""
        try:
            results = self._call(key, contents)
            if len(results) != len(contents):
                raise RuntimeError(f"{len(results)} results for {len(contents)} clips")
            return results
        except Exception as error:
            if len(contents) == 1:
                return [error]
            logging.debug("a batch of %d is repeated clip by clip: %s", len(contents), error)
            return [x for content in contents for x in self._results(key, [content])]

    async def _next(self) -> list[_Waiting]:
        """Waits for a batch; none are left where it is empty."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            now = loop.time()
            due = [queue for queue in self._waiting.values()
                   if self._closing or len(queue) >= self._batch_size
                   or now - queue[0].since >= self._timeout]
            if due:
                if batch := self._take(min(due, key=lambda queue: queue[0].since)):
                    return batch
                continue
            if self._closing:
                return []
            oldest = min((queue[0].since for queue in self._waiting.values()), default=None)
            try:
                async with asyncio.timeout_at(None if oldest is None else oldest + self._timeout):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _take(self, queue: collections.deque[_Waiting]) -> list[_Waiting]:
        """The first clips of a queue, but those whose requests are gone."""
        key, size = queue[0].clip.key, 0
        batch: list[_Waiting] = []
        while queue and len(batch) < self._batch_size:
            if not queue[0].result.done():
                size += queue[0].clip.size
                if batch and size > self._batch_bytes:
                    break
                batch.append(queue[0])
            queue.popleft()
        if not queue:
            del self._waiting[key]
        return batch
