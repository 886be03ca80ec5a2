"""Requests in, batches through the tail, results out: one bounded queue and one thread per tail.

The thread decodes the payloads of a batch all at once, then runs the tail. A payload that cannot be decoded fails its
own request alone.

No sockets and no messages. A request that finds the tail idle and the queue empty is run at once. Otherwise it waits
for others, at most `delay` seconds from its arrival. The batcher keeps a running average of the seconds that the tail
takes for an image. With it a request is refused at once where the requests before it leave too little of its deadline,
and dropped where it would end late. Without this, an overloaded tail would compute results that come too late.
Cancelled requests are dropped as well.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from bottlefit_jax.errors import BottleFitError, Unavailable
from bottlefit_jax.serve.tail import Tail

WEIGHT = 0.2  # of the last batch in the running average of seconds for an image
Decode = Callable[[Sequence[bytes]], tuple[np.ndarray, list[str | None]]]  # as wire.decode_batch, for some rates
SHARE = 0.7  # of a deadline that the queue and the tail may take; the rest is for errors of the average and the answer
LOOK_AGAIN = 0.01  # seconds between two searches of the queue for stale requests: each reads all of it


class QueueFull(Unavailable):
    """The queue is full, or too long for the deadline; its text is half a sentence that says which."""


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


@dataclass(frozen=True, eq=False)
class _Request:
    images: np.ndarray | list[bytes]  # latents or payloads
    deadline: float  # math.inf: none
    arrived: float
    alone: bool  # nothing ran or waited when it arrived
    future: Future[Result] = field(default_factory=Future)


class Batcher:
    """Runs `tail` in a thread of its own until `close`.

    Args:
        tail: called from the batcher's thread only.
        max_batch: images that the tail runs at once; a request may have several.
        delay: seconds that a request may wait for others.
        limit: the largest number of requests in the queue, whatever their deadlines.
        decode: of payloads; None where only latents are submitted. Called from the batcher's thread.
        ran: called with the size of each batch, from the batcher's thread.
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
        ran: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._tail, self._max_batch, self._delay, self._limit, self._ran = tail, max_batch, delay, limit, ran
        self._decode, self._clock = decode, clock
        self._queue: deque[_Request] = deque()
        self._waiting = 0  # images in the queue
        self._image_seconds = 0.0  # running average; 0: not known yet
        self._look_again = -math.inf
        self._batch_ends: float | None = None  # by the average; None: the tail is idle
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
            now, count = self._clock(), len(images)
            refusal = self._refusal(count, deadline, now)
            if refusal is not None and now >= self._look_again:
                self._drop_stale(now)
                self._look_again = now + LOOK_AGAIN
                refusal = self._refusal(count, deadline, now)
            if refusal is not None:
                raise QueueFull(refusal)
            alone = self._batch_ends is None and not self._queue
            request = _Request(images, deadline, now, alone)
            self._queue.append(request)
            self._waiting += count
            if len(self._queue) == 1 or self._waiting >= self._max_batch:
                self._changed.notify()  # between these two the thread waits for more
        return request.future

    def _refusal(self, images: int, deadline: float, now: float) -> str | None:
        """Return why a request is refused now; None where it is taken.

        A request that is alone is taken whatever the average is. Otherwise one slow batch could refuse all that follow.
        """
        if len(self._queue) >= self._limit:
            return f"{len(self._queue):,} requests wait"
        if self._batch_ends is None and not self._queue:
            return None
        running = 0.0 if self._batch_ends is None else max(self._batch_ends - now, 0.0)
        needed, left = running + (self._waiting + images) * self._image_seconds, deadline - now
        if needed <= SHARE * left:
            return None
        return f"an answer would take {1e3 * needed:.0f} ms, of {1e3 * left:.0f} ms to the deadline"

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
                now = self._clock()
                self._drop_stale(now)
                batch = self._first_batch(now)
                if not batch and self._closed:
                    return None
                if not batch:
                    self._changed.wait()
                    continue
                full = len(batch) < len(self._queue) or _images(batch) == self._max_batch
                left = batch[0].arrived + self._delay - now
                if full or len(batch) == 1 or left <= 0 or self._closed:
                    break
                self._changed.wait(left)
            for _ in batch:
                self._queue.popleft()
            images = _images(batch)
            self._waiting -= images
            self._batch_ends = now + images * self._image_seconds
        return batch

    def _first_batch(self, now: float) -> list[_Request]:
        """Return the requests at the front of the queue that fit into one batch, and of which none makes another late.

        They keep their order.
        """
        batch, images, deadline = [], 0, math.inf
        for request in self._queue:
            images += len(request.images)
            deadline = min(deadline, request.deadline)
            late = now + images * self._image_seconds > deadline
            if images > self._max_batch or (late and batch):
                break
            batch.append(request)
        return batch

    def _drop_stale(self, now: float) -> None:
        """Drop requests that were cancelled, and those that would end late even if they were run alone and now."""
        kept, stale = deque(), []
        for request in self._queue:
            (stale if self._is_stale(request, now) else kept).append(request)
        self._queue, self._waiting = kept, self._waiting - _images(stale)
        for request in stale:
            if request.future.set_running_or_notify_cancel():
                request.future.set_exception(Expired("the request would end after its deadline"))

    def _is_stale(self, request: _Request, now: float) -> bool:
        ends = now if request.alone else now + len(request.images) * self._image_seconds
        return request.deadline <= ends or request.future.cancelled()

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
        ended, images = self._clock(), _images(batch)
        with self._changed:
            if batch and error is None:
                self._learn((ended - started) / images)
            self._batch_ends = None
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
            self._ran(images)

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
        if len(good) == len(batch) and len(decoded) == _images(batch):
            return batch, decoded  # payloads alone, all of them valid
        return good, np.concatenate(parts) if parts else decoded

    def _learn(self, image_seconds: float) -> None:
        known = self._image_seconds
        self._image_seconds = known + WEIGHT * (image_seconds - known) if known else image_seconds


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _images(batch: Iterable[_Request]) -> int:
    return sum(len(request.images) for request in batch)


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
