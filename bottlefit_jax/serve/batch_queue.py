"""The queue in front of a tail, and what it makes a batch of: no thread, no clock of its own, nothing is run here.

The server's batcher and a simulation of servers ask it the same questions; times are seconds, passed in.

    queue = BatchQueue(max_batch=32, delay=0.002, limit=256)
    queue.put(request, now)                 # raises QueueFull where an answer would come too late
    batch, wait = queue.take(now)           # a batch to run now, or how long to wait for one
    queue.ended(seconds, images)            # of that batch

A request that finds the tail idle and the queue empty is run at once. Otherwise it waits for others, at most `delay`
seconds from its arrival. The queue learns how long the tail takes for a batch (`BatchCost`). A request is refused at
once where the requests before it leave too little of its deadline, and dropped where it would end late. Without this,
an overloaded tail would compute results that come too late.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from bottlefit_jax.errors import Unavailable
from bottlefit_jax.serve.batch_cost import BatchCost

SHARE = 0.7  # of a deadline that the queue and the tail may take; the rest is for errors of the estimate and the answer
LOOK_AGAIN = 0.01  # seconds between two searches of the queue for stale requests: each reads all of it


class QueueFull(Unavailable):
    """The queue is full, or too long for the deadline; its text is half a sentence that says which."""


@dataclass(eq=False, slots=True)
class Waiting:
    """A request.

    Attributes:
        count: of its images.
        deadline: the time after which its result is of no use; math.inf: none.
        arrived: when it was put into the queue.
        alone: nothing ran or waited when it arrived; `put` sets it.
    """

    count: int
    deadline: float
    arrived: float
    alone: bool = False

    def cancelled(self) -> bool:
        """Return whether nobody waits for it any more."""
        return False


Request = TypeVar("Request", bound=Waiting)


class BatchQueue(Generic[Request]):
    """Requests that wait for a tail."""

    def __init__(
        self, *, max_batch: int, delay: float, limit: int, expire: Callable[[Request], None] = lambda request: None
    ):
        """Begin empty, with an idle tail.

        Args:
            max_batch: images that the tail runs at once; a request may have several.
            delay: seconds that a request may wait for others.
            limit: the largest number of requests in the queue, whatever their deadlines.
            expire: called with each request that was dropped.
        """
        self._max_batch, self._delay, self._limit, self._expire = max_batch, delay, limit, expire
        self._queue: deque[Request] = deque()
        self._images = 0  # in the queue
        self._cost = BatchCost(max_batch)
        self._look_again = -math.inf
        self._batch_ends: float | None = None  # as far as is known; None: the tail is idle

    def __len__(self) -> int:
        """Return the number of requests that wait."""
        return len(self._queue)

    @property
    def is_running(self) -> bool:
        """Whether a batch has begun and not ended."""
        return self._batch_ends is not None

    def put(self, request: Request, now: float) -> bool:
        """Put a request into the queue.

        Returns:
            Whether `take` may have another answer than before.

        Raises:
            QueueFull: the request was not taken; a later one may be.
        """
        refusal = self._refusal(request, now)
        if refusal is not None and now >= self._look_again:
            self.drop_stale(now)
            self._look_again = now + LOOK_AGAIN
            refusal = self._refusal(request, now)
        if refusal is not None:
            raise QueueFull(refusal)
        request.alone = self._batch_ends is None and not self._queue
        self._queue.append(request)
        self._images += request.count
        return len(self._queue) == 1 or self._images >= self._max_batch

    def take(self, now: float, *, at_once: bool = False) -> tuple[list[Request], float]:
        """Return the next batch, which has begun, and for how many seconds to wait where it is empty.

        Args:
            now: the time.
            at_once: wait for no other requests.
        """
        if not self._queue:
            return [], math.inf
        self.drop_stale(now)
        batch = self._first_batch(now)
        if not batch:
            return [], math.inf
        images = images_of(batch)
        full = len(batch) < len(self._queue) or images == self._max_batch
        left = batch[0].arrived + self._delay - now
        if not (full or len(batch) == 1 or left <= 0 or at_once):
            return [], left
        for _ in batch:
            self._queue.popleft()
        self._images -= images
        self._batch_ends = now + self._cost.seconds(images)
        return batch, 0.0

    def ended(self, seconds: float | None, images: int) -> None:
        """Take in that the batch has ended.

        Args:
            seconds: that it took; None where that says nothing about the next one.
            images: of it.
        """
        if seconds is not None and images:
            self._cost.learn(seconds, images)
        self._batch_ends = None

    def drop_stale(self, now: float) -> None:
        """Drop requests that were cancelled, and those that would end late even if they were run alone and now."""
        stale = [request for request in self._queue if self._is_stale(request, now)]
        if not stale:
            return
        gone = set(map(id, stale))
        self._queue = deque(request for request in self._queue if id(request) not in gone)
        self._images -= images_of(stale)
        for request in stale:
            self._expire(request)

    def _refusal(self, request: Request, now: float) -> str | None:
        """Return why a request is refused now; None where it is taken.

        A request that is alone is taken whatever is known. Otherwise one slow batch could refuse all that follow.
        """
        if len(self._queue) >= self._limit:
            return f"{len(self._queue):,} requests wait"
        if self._batch_ends is None and not self._queue:
            return None
        running = 0.0 if self._batch_ends is None else max(self._batch_ends - now, 0.0)
        needed, left = running + self._cost.seconds(self._images + request.count), request.deadline - now
        if needed <= SHARE * left:
            return None
        return f"an answer would take {1e3 * needed:.0f} ms, of {1e3 * left:.0f} ms to the deadline"

    def _first_batch(self, now: float) -> list[Request]:
        """Return the requests at the front of the queue that fit into one batch, and of which none makes another late.

        They keep their order.
        """
        batch: list[Request] = []
        images, deadline = 0, math.inf
        for request in self._queue:
            images += request.count
            if request.deadline < deadline:
                deadline = request.deadline
            if images > self._max_batch or (batch and now + self._cost.seconds(images) > deadline):
                break
            batch.append(request)
        return batch

    def _is_stale(self, request: Request, now: float) -> bool:
        ends = now if request.alone else now + self._cost.seconds(request.count)
        return request.deadline <= ends or request.cancelled()


def images_of(batch: Iterable[Waiting]) -> int:
    """Return how many images requests have."""
    return sum([request.count for request in batch])
