"""Requests in, batches through the tail, results out: one bounded queue and one thread per tail.

The thread decodes the payloads of a batch all at once, then runs the tail. A payload that cannot be decoded fails its
own request alone.

No sockets and no messages. `batch_queue` decides which requests are taken, and what is run when. Cancelled requests are
dropped.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from bottlefit_jax.errors import BottleFitError, Unavailable
from bottlefit_jax.serve.batch_queue import BatchQueue, Waiting, images_of
from bottlefit_jax.serve.tail import Tail

Decode = Callable[[Sequence[bytes]], tuple[np.ndarray, list[str | None]]]  # as wire.decode_batch, for some rates


class Closed(Unavailable):
    """The batcher takes no more requests."""


class Expired(Unavailable):
    """The request would end after its deadline."""


class TailFailed(BottleFitError):
    """The tail raised an exception."""


class BadPayload(BottleFitError):
    """A payload of the request cannot be decoded; the text says why."""


@dataclass(frozen=True)
class Result:
    """The result of a request.

    Attributes:
        logits: [b, classes] float32.
        queue_us: microseconds in the queue.
        tail_us: microseconds of the batch in the tail.
        batch: images that the tail ran at once.
        decode_us: microseconds in which the payloads of the batch were decoded; None for a raw latent.
    """

    logits: np.ndarray
    queue_us: int
    tail_us: int
    batch: int
    decode_us: int | None = None


@dataclass(eq=False)
class _Request(Waiting):
    images: np.ndarray | list[bytes] = field(default_factory=list)  # latents or payloads
    future: Future[Result] = field(default_factory=Future)

    def cancelled(self) -> bool:
        return self.future.cancelled()


def _expire(request: _Request) -> None:
    if request.future.set_running_or_notify_cancel():
        request.future.set_exception(Expired("the request would end after its deadline"))


class Batcher:
    """Runs `tail` in a thread of its own until `close`.

    Args:
        tail: called from the batcher's thread only.
        max_batch: images that the tail runs at once; a request may have several.
        delay: seconds that a request may wait for others.
        limit: the largest number of requests in the queue, whatever their deadlines.
        decode: of payloads; None where only latents are submitted. Called from the batcher's thread.
        ran: called with the images of each batch and the seconds that it took, from the batcher's thread.
        clock: that the deadlines are measured by, in seconds.
    """

    def __init__(
        self,
        tail: Tail,
        *,
        max_batch: int,
        delay: float,
        limit: int,
        decode: Decode | None = None,
        ran: Callable[[int, float], None] = lambda images, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._tail, self._ran, self._decode, self._clock = tail, ran, decode, clock
        self._queue: BatchQueue[_Request] = BatchQueue(max_batch=max_batch, delay=delay, limit=limit, expire=_expire)
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="tail", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Return the number of requests that wait."""
        return len(self._queue)

    def submit(self, images: np.ndarray | list[bytes], *, deadline: float = math.inf) -> Future[Result]:
        """Put a request into the queue; cancelling the future takes it out again.

        Args:
            images: latents [b, h, w, c] uint8, or b payloads; b <= max_batch.
            deadline: by the batcher's clock; a request that would end after it is not begun.

        Returns:
            A future of the Result; its exception is Expired, BadPayload or TailFailed.

        Raises:
            QueueFull: the request was not taken; a later one may be.
            Closed: the request was not taken.
        """
        with self._changed:
            if self._closed:
                raise Closed("the batcher is closed")
            now = self._clock()
            request = _Request(len(images), deadline, now, images=images)
            if self._queue.put(request, now):
                self._changed.notify()  # otherwise the thread waits for more
        return request.future

    def close(self) -> None:
        """Take no more requests, and return when those that were taken are done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            self._run(batch)

    def _take(self) -> list[_Request] | None:
        """Wait for the next batch; None when closed and empty."""
        with self._changed:
            while True:
                batch, wait = self._queue.take(self._clock(), at_once=self._closed)
                if batch:
                    return batch
                if self._closed:
                    return None
                self._changed.wait(None if wait == math.inf else wait)

    def _run(self, batch: list[_Request]) -> None:
        # From here on no future can be cancelled. Those that were cancelled just before are left out; it may be all.
        batch = [request for request in batch if request.future.set_running_or_notify_cancel()]
        started, decoded, error, logits = self._clock(), 0.0, None, np.empty(0)
        try:
            batch, latents = self._latents(batch)
            decoded = self._clock()
            if batch:
                logits = self._tail(latents)
        except Exception as raised:  # whatever a library raises, the next batch must run
            error = f"{type(raised).__name__}: {raised}"
        ended, images = self._clock(), images_of(batch)
        with self._changed:
            self._queue.ended(None if error is not None else ended - started, images)
        start = 0
        for request in batch:
            if error is not None:
                request.future.set_exception(TailFailed(error))  # one each: futures extend its traceback
                continue
            part = logits[start : start + len(request.images)]
            start += len(request.images)
            decode_us = None if isinstance(request.images, np.ndarray) else _us(decoded - started)
            queue_us, tail_us = _us(started - request.arrived), _us(ended - decoded)
            request.future.set_result(Result(part, queue_us, tail_us, images, decode_us))
        if batch and error is None:
            self._ran(images, ended - started)

    def _latents(self, batch: list[_Request]) -> tuple[list[_Request], np.ndarray]:
        """Decode the payloads of a batch, and fail the requests whose payloads are invalid.

        Returns:
            The other requests, and their latents [B, h, w, c].
        """
        payloads = [payload for request in batch if isinstance(request.images, list) for payload in request.images]
        if not payloads:
            parts = [request.images for request in batch if isinstance(request.images, np.ndarray)]
            return batch, parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0)
        if self._decode is None:
            raise TypeError("payloads were submitted to a batcher that has no decoder")
        decoded, problems = self._decode(payloads)
        good, parts, start = [], [], 0
        for request in batch:
            part = request.images
            if isinstance(part, list):
                part, found = decoded[start : start + len(part)], problems[start : start + len(part)]
                start += len(part)
                problem = next((problem for problem in found if problem is not None), None)
                if problem is not None:
                    request.future.set_exception(BadPayload(problem))
                    continue
            good.append(request)
            parts.append(part)
        if len(good) == len(batch) and len(decoded) == images_of(batch):
            return batch, decoded  # payloads alone, all of them valid
        return good, np.concatenate(parts) if parts else decoded


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


class Inbox:
    """Brings results to coroutines. The thread of a tail wakes their event loop once for a batch of results."""

    def __init__(self) -> None:
        self._ready: deque[asyncio.Future[None]] = deque()
        self._woken = False

    async def result(self, future: Future[Result]) -> Result:
        """Return the result of a future of `Batcher.submit`; cancelling this cancels the future."""
        waiter = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: self._put(waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            future.cancel()
            raise
        return future.result()

    def _put(self, waiter: "asyncio.Future[None]") -> None:
        """Wake a coroutine, from any thread. `_wake` clears the flag before it reads, so that it misses nothing."""
        self._ready.append(waiter)
        loop = waiter.get_loop()
        if not self._woken and not loop.is_closed():
            self._woken = True
            loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._woken = False
        while self._ready:
            waiter = self._ready.popleft()
            if not waiter.done():
                waiter.set_result(None)
