"""A served model as the protocols use it: it loads, warms up, checks, batches and answers."""

import asyncio
import concurrent.futures
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import numpy as np
import starlette.requests
from absl import logging

from elo_tf.serving import metrics
from elo_tf.serving.batching import Batcher
from elo_tf.serving.limits import Limits, RequestError
from elo_tf.serving.served_model import ServedModel
from elo_tf.serving.tensors import Query

PARSERS = 2
BODY_SECONDS = 60
T = TypeVar("T")


class Service:
    """Made and used in one event loop."""

    def __init__(self, model: ServedModel, limits: Limits, *, batch_size: int,
                 batch_timeout: float):
        """Starts the batcher; `load` makes it ready.

        Args:
          model: not loaded yet.
          limits: what may be asked for.
          batch_size: the most clips of a call of the model.
          batch_timeout: seconds that a clip waits for others while the model is free.
        """
        self.model, self.limits = model, limits
        self.ready = False
        self._held = 0
        self._batcher = Batcher(
            lambda key, clips: model.call(key[0], clips), batch_size=batch_size,
            timeout=batch_timeout, queue=limits.queue, batch_bytes=limits.body_bytes)
        # Few: each may hold a large body in several forms.
        self._parsers = concurrent.futures.ThreadPoolExecutor(PARSERS, "parser")
        metrics.READY.set(0)

    async def load(self) -> None:
        """Loads the model and runs its warm-up requests, on a thread; then it is ready.

        Raises:
          UserError: the model cannot be served.
        """
        await asyncio.to_thread(self.model.load)
        count = await asyncio.to_thread(self.model.warm_up)
        self.ready = True
        metrics.READY.set(1)
        logging.info("%s, version %s, is ready after %d warm-up requests; signatures %s",
                     self.model.name, self.model.version, count, ", ".join(self.model.signatures))

    async def close(self) -> None:
        """Returns when every accepted clip is answered."""
        await self._batcher.close()
        self._parsers.shutdown()

    def check_model(self, name: str, version: str | None = None) -> None:
        """Raises RequestError where another model is asked for (404), or it is not ready (503)."""
        if name != self.model.name:
            raise RequestError(f"there is no model {name[:60]!r}; {self.model.name} is served",
                               status=404)
        if version and version != self.model.version:
            raise RequestError(f"there is no version {version[:60]!r} of {name}; "
                               f"{self.model.version} is served", status=404)

    def check_ready(self) -> None:
        """Raises RequestError where the model is not loaded and warm yet (503)."""
        if not self.ready:
            raise RequestError(f"{self.model.name} is being loaded; try again", status=503,
                               retry_after=5)

    async def infer(self, parse: Callable[[], Query], seen: Callable[[str], None],
                    answer: Callable[[Query, list[dict[str, np.ndarray]]], T]) -> T:
        """From the body of a request to that of its answer, with nothing slow in the event loop.

        Args:
          parse: checks the body.
          seen: is told the signature's name, as soon as it is known.
          answer: makes the body of the answer.

        Raises:
          RequestError: the request cannot be answered.
        """
        loop = asyncio.get_running_loop()
        query = await loop.run_in_executor(self._parsers, parse)
        seen(query.signature.name)
        results = await self._batcher.submit(query.clips)
        return await loop.run_in_executor(self._parsers, answer, query, results)

    @contextlib.asynccontextmanager
    async def body_of(self, request: starlette.requests.Request) -> AsyncIterator[bytes]:
        """The body of a request, which counts as held until the context ends.

        It is refused as soon as it is known to be too long, be it by its header or on the way.

        Raises:
          RequestError: it is too long (413), too slow (408), compressed (415), or too much is
            held already (503).
        """
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise RequestError("the body is compressed, which is not supported", status=415)
        chunks: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    await self._read(request, chunks)
            except TimeoutError as error:
                raise RequestError(f"the body took more than {BODY_SECONDS} s", status=408
                                   ) from error
            chunks[:] = [b"".join(chunks)]
            yield chunks[0]
        finally:
            self._hold(-sum(map(len, chunks)))

    async def _read(self, request: starlette.requests.Request, chunks: list[bytes]) -> None:
        most = self.limits.body_bytes
        announced = int(request.headers.get("content-length", 0))
        # Most clients read an answer only after they sent everything: what is a little too long is
        # read, but not kept. A client that asks first (Expect) is answered at once.
        if announced > 2 * most or (announced > most and "expect" in request.headers):
            raise self._too_long()
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if max(size, announced) <= most:
                self._hold(len(chunk))
                chunks.append(chunk)
                if self._held > self.limits.held_bytes:
                    raise RequestError("too many requests are being read; try again", status=503,
                                       retry_after=1)
            elif size > 2 * most:
                raise self._too_long()
            elif chunks:
                self._hold(-sum(map(len, chunks)))
                chunks.clear()
        if size > most:
            raise self._too_long()

    def _too_long(self) -> RequestError:
        return RequestError(f"the body is longer than {self.limits.body_bytes} bytes", status=413)

    def _hold(self, size: int) -> None:
        self._held += size
        metrics.HELD_BYTES.set(self._held)


class Timed:
    """Counts one request, whatever its end."""

    def __init__(self, protocol: str):
        """Starts its time."""
        self._protocol, self._signature = protocol, metrics.UNKNOWN
        self._started = asyncio.get_running_loop().time()

    def seen(self, signature: str) -> None:
        """Says which signature it asks for."""
        self._signature = signature

    def finish(self, status: Any) -> None:
        """Counts it."""
        metrics.REQUESTS.labels(self._protocol, self._signature, str(status)).inc()
        metrics.REQUEST_SECONDS.labels(self._protocol, self._signature).observe(
            asyncio.get_running_loop().time() - self._started)
