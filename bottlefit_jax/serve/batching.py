"""Requests in, batches through the tail, results out: one bounded queue and one thread per tail.

No sockets and no messages here. A request that finds the queue full is refused at once; one that finds the tail idle
and nobody else waiting is run at once; else it waits for others, at most `delay` seconds from its arrival. What was
cancelled or has expired is dropped before it is run.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from bottlefit_jax.serve.tail import Tail


class QueueFull(Exception):
    """As many requests wait as may."""


class Closed(Exception):
    """The batcher takes no more."""


class Expired(Exception):
    """The request's deadline passed before its turn."""


class TailFailed(Exception):
    """The tail raised an exception."""


@dataclass(frozen=True)
class Result:
    """logits: [b, classes] float32; microseconds in the queue and in the tail; pictures that the tail ran at once."""

    logits: np.ndarray
    queue_us: int
    tail_us: int
    batch: int


@dataclass(frozen=True, eq=False)
class _Request:
    latent: np.ndarray
    deadline: float  # time.monotonic(); math.inf: none
    arrived: float = field(default_factory=time.monotonic)
    future: Future[Result] = field(default_factory=Future)


class Batcher:
    """Runs `tail` in a thread of its own until `close`.

    Args:
      max_batch: pictures that the tail runs at once; a request may have several.
      delay: seconds that a request may wait for others.
      limit: requests that may wait, beside those being run.
      ran: told the size of each batch, from the batcher's thread.
    """

    def __init__(
        self, tail: Tail, *, max_batch: int, delay: float, limit: int, ran: Callable[[int], None] = lambda _: None
    ):
        self._tail, self._max_batch, self._delay, self._limit, self._ran = tail, max_batch, delay, limit, ran
        self._queue: deque[_Request] = deque()
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="tail", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def submit(self, latent: np.ndarray, *, deadline: float = math.inf) -> Future[Result]:
        """Queues `latent` ([b, h, w, c] uint8, b <= max_batch); cancelling the future takes it out again.

        Args:
          deadline: on the clock of time.monotonic(); after it the request is not begun.

        Returns:
          A future of the Result, or of Expired or TailFailed.

        Raises:
          QueueFull, Closed: the request was not taken.
        """
        with self._changed:
            if self._closed:
                raise Closed
            if len(self._queue) >= self._limit:
                self._drop_stale()
            if len(self._queue) >= self._limit:
                raise QueueFull
            request = _Request(latent, deadline)
            self._queue.append(request)
            self._changed.notify()
        return request.future

    def close(self) -> None:
        """Takes no more, and returns when all that was taken is done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            if batch:
                self._run(batch)

    def _take(self) -> list[_Request] | None:
        """Waits for the next batch; None when closed and empty."""
        with self._changed:
            while True:
                self._drop_stale()
                batch = self._first_batch()
                if not batch and self._closed:
                    return None
                if not batch:
                    self._changed.wait()
                    continue
                full = len(batch) < len(self._queue) or _pictures(batch) == self._max_batch
                left = batch[0].arrived + self._delay - time.monotonic()
                if full or len(batch) == 1 or left <= 0 or self._closed:
                    break
                self._changed.wait(left)
            for _ in batch:
                self._queue.popleft()
        # from here on a future can no longer be cancelled; one that just was is left out, all of them perhaps
        return [request for request in batch if request.future.set_running_or_notify_cancel()]

    def _first_batch(self) -> list[_Request]:
        """The requests at the front of the queue that fit into one batch. In their order: none is overtaken."""
        batch, pictures = [], 0
        for request in self._queue:
            pictures += len(request.latent)
            if pictures > self._max_batch:
                break
            batch.append(request)
        return batch

    def _drop_stale(self) -> None:
        """Takes cancelled and expired requests out of the queue."""
        now = time.monotonic()
        if all(request.deadline > now and not request.future.cancelled() for request in self._queue):
            return
        kept = []
        for request in self._queue:
            if request.deadline > now and not request.future.cancelled():
                kept.append(request)
            elif request.future.set_running_or_notify_cancel():
                request.future.set_exception(Expired())
        self._queue = deque(kept)

    def _run(self, batch: list[_Request]) -> None:
        started = time.monotonic()
        try:
            latents = [request.latent for request in batch]
            logits = self._tail(latents[0] if len(batch) == 1 else np.concatenate(latents))
        except Exception as error:  # whatever a library raises, the next batch is to be run
            for request in batch:
                failure = TailFailed(f"{type(error).__name__}: {error}")  # one each: futures add to their tracebacks
                request.future.set_exception(failure)
            return
        tail_us = round((time.monotonic() - started) * 1e6)
        pictures, start = _pictures(batch), 0
        for request in batch:
            part = logits[start : start + len(request.latent)]
            start += len(request.latent)
            queue_us = round((started - request.arrived) * 1e6)
            request.future.set_result(Result(part, queue_us, tail_us, pictures))
        self._ran(pictures)


def _pictures(batch: list[_Request]) -> int:
    return sum(len(request.latent) for request in batch)
