"""Virtual time, and a server in it that batches as the real one does, by the same queue."""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from bottlefit_jax.serve.batch_queue import BatchQueue, QueueFull, Waiting
from bottlefit_jax.serve.options import ServerOptions

# the time, and the seconds in queue and tail; None: the request was refused
Done = Callable[[float, float | None], None]


class Events:
    """What happens when, in seconds; what is due at one time happens in the order in which it was planned."""

    def __init__(self) -> None:
        """Plan nothing yet."""
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = 0

    def at(self, time: float, what: Callable[[float], None]) -> None:
        """Plan a call with the time."""
        self._order += 1
        heapq.heappush(self._heap, (time, self._order, what))

    def run(self) -> None:
        """Let everything happen, also what is planned meanwhile."""
        heap, pop = self._heap, heapq.heappop
        while heap:
            now, _, what = pop(heap)
            what(now)


@dataclass(eq=False, slots=True)
class _Request(Waiting):
    factor: float = 1.0  # of the tail's time
    done: Done = field(default=lambda now, seconds: None)


class VirtualServer:
    """One tail and its queue.

    Attributes:
        refused: requests that it did not take, or dropped.
        images, batches, busy: images and batches that it ran, and the seconds that they took.
    """

    def __init__(self, events: Events, batch_seconds: Callable[[int], float], options: ServerOptions | None = None):
        """Begin idle.

        Args:
            events: of the simulation.
            batch_seconds: number of images -> seconds that they take at once.
            options: max_batch, batch_delay_ms and queue count.
        """
        options = ServerOptions() if options is None else options
        self._events, self._batch_seconds = events, batch_seconds
        self._queue: BatchQueue[_Request] = BatchQueue(
            max_batch=options.max_batch,
            delay=options.batch_delay_ms / 1e3,
            limit=options.queue,
            expire=lambda request: self._refuse(request, self._now),
        )
        self._now = 0.0
        self._down = (math.inf, -math.inf)
        self.refused = self.images = self.batches = 0
        self.busy = 0.0

    def fail(self, begin: float, end: float) -> None:
        """Let it refuse everything from one time to another, what it has taken until then included."""
        self._down = (begin, end)

    def submit(self, now: float, *, deadline: float, factor: float, done: Done) -> None:
        """Take a request, or refuse it.

        Args:
            now: when it is there.
            deadline: of its answer.
            factor: of the tail's time.
            done: called when there is an answer, or none.
        """
        self._now, request = now, _Request(1, deadline, now, False, factor, done)
        if self._is_down(now):
            self._refuse(request, now)
            return
        try:
            self._queue.put(request, now)
        except QueueFull:
            self._refuse(request, now)
            return
        self._look(now)

    def _look(self, now: float) -> None:
        """Run the next batch, or look again later."""
        if self._queue.is_running:
            return
        self._now = now
        batch, wait = self._queue.take(now)
        if batch:
            seconds = self._batch_seconds(len(batch)) * batch[0].factor
            self._events.at(now + seconds, partial(self._finish, batch, seconds))
        elif wait < math.inf:
            self._events.at(now + wait, self._look)

    def _finish(self, batch: list[_Request], seconds: float, now: float) -> None:
        self._queue.ended(seconds, len(batch))
        if self._is_down(now):
            for request in batch:
                self._refuse(request, now)
        else:
            self.images, self.batches, self.busy = self.images + len(batch), self.batches + 1, self.busy + seconds
            for request in batch:
                request.done(now, now - request.arrived)
        self._look(now)

    def _refuse(self, request: _Request, now: float) -> None:
        self.refused += 1
        request.done(now, None)

    def _is_down(self, now: float) -> bool:
        return self._down[0] <= now < self._down[1]
