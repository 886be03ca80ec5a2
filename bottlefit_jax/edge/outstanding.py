"""Requests that are on their way while the device does something else, and whose answers may come late."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from bottlefit_jax.edge.call_plan import Encoded
from bottlefit_jax.edge.channel import Answer, Deadline
from bottlefit_jax.edge.options import MAX_IN_FLIGHT


@dataclass(eq=False)
class Request:
    """A request that was sent.

    Attributes:
        ticket: the policy's name of it.
        ended: when its answer or its failure came, on the monotonic clock; None while there is neither.
        call: of which the answer is the result.
    """

    ticket: int
    ended: float | None = None
    call: Future[Answer] = field(default_factory=Future, repr=False)

    def answer(self, seconds: float) -> Answer | None:
        """Wait for the answer, and return it; None where there is none in time.

        Raises:
            BottleFitError: the request has failed.
        """
        wait((self.call,), max(seconds, 0.0))
        return self.call.result() if self.call.done() else None

    @property
    def failure(self) -> BaseException | None:
        """Why it failed; None if it was answered. It has ended."""
        return self.call.exception()


class Outstanding:
    """Sends requests, at most so many at a time, and remembers those that have ended.

    `wait` is for any thread; everything else for one at a time.

    Attributes:
        most: requests without an answer; MAX_IN_FLIGHT or fewer.
    """

    def __init__(self, infer: Callable[[Encoded, Deadline], Answer], *, most: int = 1):
        """Send nothing yet.

        Args:
            infer: sends an image and waits for its answer; called in threads, `most` at a time.
            most: the attribute.
        """
        self._infer, self.most = infer, most
        self._threads = ThreadPoolExecutor(MAX_IN_FLIGHT, "bottlefit-request")
        self._changed = threading.Condition()
        self._ended: collections.deque[Request] = collections.deque()
        self._deadlines: dict[Request, Deadline] = {}  # of those that `ended` has not returned

    @property
    def is_full(self) -> bool:
        """Whether nothing more can be sent before a request ends. `ended` says which have."""
        return len(self._deadlines) >= self.most

    def send(self, image: Encoded, deadline: Deadline, ticket: int) -> Request:
        """Send an image.

        Args:
            image: made by the head.
            deadline: after which its answer is of no use, not even to learn from it.
            ticket: the policy's.
        """
        assert not self.is_full
        request = Request(ticket)
        self._deadlines[request] = deadline

        def call() -> Answer:
            try:
                return self._infer(image, deadline)
            finally:
                request.ended = time.monotonic()

        request.call = self._threads.submit(call)
        request.call.add_done_callback(lambda _: self._end(request))
        return request

    def ended(self) -> list[Request]:
        """Return the requests that have ended since the last call."""
        with self._changed:
            requests = list(self._ended)
            self._ended.clear()
        for request in requests:
            del self._deadlines[request]
        return requests

    def wait(self, seconds: float) -> bool:
        """Return whether a request has ended since the last call of `ended`, or does within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._ended), seconds)

    def _end(self, request: Request) -> None:
        with self._changed:
            self._ended.append(request)
            self._changed.notify_all()

    def close(self) -> None:
        """Send nothing more, and wait for nothing more. Close what sends afterwards."""
        for deadline in list(self._deadlines.values()):
            deadline.end()
        self._threads.shutdown(wait=False, cancel_futures=True)
