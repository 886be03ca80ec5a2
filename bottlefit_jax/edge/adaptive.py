"""Answers each image by the path that the policy chooses, and the local network where the server's answer is late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from bottlefit_jax.edge.call_plan import Encoded
from bottlefit_jax.edge.channel import Answer, Deadline
from bottlefit_jax.edge.connection import Connection
from bottlefit_jax.edge.device_head import DeviceHead
from bottlefit_jax.edge.link_model import PING_EVERY
from bottlefit_jax.edge.options import IN_FLIGHT
from bottlefit_jax.edge.outstanding import Outstanding, Request
from bottlefit_jax.edge.path import HEAD, LOCAL, Path
from bottlefit_jax.edge.policy import Choice, Policy, linger
from bottlefit_jax.edge.prediction import bytes_sent, server_times
from bottlefit_jax.errors import Unavailable

WARM_UP = 3  # runs of the head and of the local network before the first image, so that their times are known
PING_SECONDS = 2.0  # of a measurement of the link's delay, at most
BUSY = "what was sent before is still on its way"
OVERHEAD = 300.0  # bytes of a request beside its payload, before one was counted


@dataclass(frozen=True)
class Outcome:
    """What became of an image.

    Attributes:
        path: that answered.
        choice: the policy's.
        answer: the server's; None where the local network answered.
        probabilities: [classes] of the local network; None where the server answered.
        head, encode: seconds from the pixels to the latent, and to the payload; 0 where neither was computed.
        local: seconds of the local network; 0 where it did not run.
        ended: when the answer was there, seconds of `time.monotonic`.
    """

    path: Path
    choice: Choice
    answer: Answer | None = None
    probabilities: np.ndarray | None = None
    head: float = 0.0
    encode: float = 0.0
    local: float = 0.0
    ended: float = 0.0


class LocalAnswer(NamedTuple):
    """What the local network says: probabilities [classes], the seconds that it took, and when it had ended."""

    probabilities: np.ndarray
    seconds: float
    ended: float


@dataclass(frozen=True)
class Begun:
    """An image that has a path.

    Attributes:
        outcome: what there is before an answer.
        pixels: uint8, of the head's size.
        running: where the local network is the path, what it will say; else the request to the server.
        deadline: of the image.
        hedge: seconds of `time.monotonic` at which the local network has to begin; None where there is none.
    """

    outcome: Outcome
    pixels: np.ndarray
    running: Future[LocalAnswer] | Request
    deadline: Deadline
    hedge: float | None


class Adaptive:
    """Gives images a path with `begin`, in one thread, and waits for what becomes of them with `finish`, in another."""

    def __init__(
        self,
        policy: Policy,
        head: DeviceHead,
        connection: Connection,
        local: Callable[[np.ndarray], np.ndarray] | None,
        *,
        example: np.ndarray,
    ):
        """Run head and local network a few times, and send nothing yet.

        Args:
            policy: that chooses; if it has the local path, `local` is given.
            head: of the bundle, with rates.
            connection: to the server.
            local: pixels -> probabilities [classes], the whole network on this device.
            example: uint8 pixels of the head's size.
        """
        self.policy, self._head, self._connection, self._local = policy, head, connection, local
        self._local_path = next((path for path in policy.paths if path.work == LOCAL), None)
        self._cheapest = min((path for path in policy.paths if path.work == HEAD), key=lambda path: path.bytes_mean)
        self._outstanding = Outstanding(connection.infer, most=IN_FLIGHT)
        self._lock = threading.Lock()  # of all that is known: the policy, and the two lines around this one
        self._due: dict[int, float] = {}  # deadlines of requests without an answer, by ticket
        self._overhead = OVERHEAD
        self._latent: np.ndarray | None = None  # of the last image that had one
        self._pings = ThreadPoolExecutor(1, "bottlefit-ping")
        self._ping: Future[float | None] | None = None
        self._pinged = float("-inf")
        self._locals = ThreadPoolExecutor(1, "bottlefit-local")  # so that the local network runs once at a time
        self._local_runs = 0  # images that it has to run for
        self._local_ends = float("-inf")  # when it is expected to have run for them
        for _ in range(WARM_UP):
            self._encode(example, self._cheapest)
            if local is not None:
                self._start_local(example).result()

    def allow(self, in_flight: int) -> None:
        """Let so many requests have no answer, or IN_FLIGHT if that is more, those included whose deadline is over."""
        self._outstanding.most = max(in_flight, IN_FLIGHT)

    def begin(self, pixels: np.ndarray, deadline: Deadline) -> Begun:
        """Choose a path for an image, and send it or run the local network.

        Args:
            pixels: uint8, of the head's size.
            deadline: of the image.

        Raises:
            Unavailable: the server has not answered enough of what was sent before, and there is no local network.
            UserError: the server refused this device, as `Connection.infer`.
        """
        choice = self._choose(deadline)
        assert choice.path is not None
        if choice.path.work == LOCAL:
            outcome = Outcome(choice.path, choice, None, None)
            return Begun(outcome, pixels, self._start_local(pixels), deadline, None)
        started = time.monotonic()
        image, head, encode = self._encode(pixels, choice.path)
        with self._lock:
            request = self._send(image, deadline)
            self._due[request.ticket] = time.monotonic() + deadline.left()
        hedge = None if choice.hedge is None else started + choice.hedge
        return Begun(Outcome(choice.path, choice, None, None, head, encode), pixels, request, deadline, hedge)

    def finish(self, begun: Begun) -> Outcome:
        """Wait for the answer, and run the local network where it does not come in time for that.

        Raises:
            Unavailable: there is no local network, and the server did not answer by the deadline.
            ProtocolError, UserError: the server refused this image, or this device; as `Connection.infer`.
        """
        if isinstance(begun.running, Request):
            outcome = self._received(begun, begun.running)
        else:
            outcome = self._locally(begun.running, begun.outcome.choice)
        with self._lock:
            self._learn()
            self._probe(begun.deadline)
        return outcome

    def hopeless(self, deadline: float) -> str | None:
        """Return why no image can be answered within so many seconds, as far as this device knows; None if it can."""
        now = time.monotonic()
        head = self.policy.seconds(HEAD, now)
        if deadline > head or (self._local is not None and deadline > self.policy.seconds(LOCAL, now)):
            return None
        return f"the deadline is {1000 * deadline:g} ms, and the head alone takes {1000 * head:.1f} ms on this device"

    def close(self) -> None:
        """Send nothing more."""
        self._outstanding.close()
        self._locals.shutdown(wait=False, cancel_futures=True)
        self._pings.shutdown(wait=False, cancel_futures=True)

    def _choose(self, deadline: Deadline) -> Choice:
        """Return the policy's choice; where there is none, because the link is busy, wait for what becomes of that."""
        while True:
            with self._lock:
                self._learn()
                self._measure_delay()
                now = time.monotonic()
                begins = max(self._local_ends - now, 0.0) if self._local_runs else 0.0
                choice = self.policy.choose(now, deadline.left(), begins)
                sends = choice.path is not None and choice.path.work == HEAD
                if choice.path is not None and not (sends and self._outstanding.is_full):
                    return choice
            if self._local_path is not None and begins + self.policy.seconds(LOCAL, now) < deadline.left():
                return Choice(self._local_path, BUSY, 1.0)
            if not self._outstanding.wait(deadline.left()):
                raise self._unavailable(deadline, BUSY if choice.path is not None else choice.reason)

    def _received(self, begun: Begun, request: Request) -> Outcome:
        left = begun.deadline.left() if begun.hedge is None else begun.hedge - time.monotonic()
        try:
            answer = request.answer(left)
        except Unavailable:
            if self._local is None:
                raise
            answer = None
        if answer is not None:
            assert request.ended is not None
            return replace(begun.outcome, answer=answer, ended=request.ended)
        if self._local is None:
            raise self._unavailable(begun.deadline)
        alone = self._start_local(begun.pixels)
        either: list[Future[Any]] = [alone, request.call]
        wait(either, return_when=FIRST_COMPLETED)
        if request.ended is not None and request.failure is None:
            return replace(begun.outcome, answer=request.answer(0), ended=request.ended)
        outcome = self._locally(alone, begun.outcome.choice)
        return replace(outcome, head=begun.outcome.head, encode=begun.outcome.encode)

    def _start_local(self, pixels: np.ndarray) -> Future[LocalAnswer]:
        """Run the local network, behind the images that it has to run for already."""
        with self._lock:
            now = time.monotonic()
            self._local_ends = (self._local_ends if self._local_runs else now) + self.policy.seconds(LOCAL, now)
            self._local_runs += 1
        return self._locals.submit(self._run_local, pixels)

    def _locally(self, running: Future[LocalAnswer], choice: Choice) -> Outcome:
        assert self._local_path is not None
        answer = running.result()
        return Outcome(self._local_path, choice, None, answer.probabilities, local=answer.seconds, ended=answer.ended)

    def _run_local(self, pixels: np.ndarray) -> LocalAnswer:
        assert self._local is not None
        started = time.monotonic()
        try:
            probabilities = self._local(pixels)
        finally:
            ended = time.monotonic()
            with self._lock:
                self._local_runs -= 1
                self.policy.computed(LOCAL, ended - started, ended)
        return LocalAnswer(probabilities, ended - started, ended)

    def _encode(self, pixels: np.ndarray, path: Path) -> tuple[Encoded, float, float]:
        """Return an image as it is sent on a path, and the seconds to the latent and to the payload."""
        started = time.monotonic()
        self._latent = latent = self._head.quantise(self._head.run(pixels))
        ran = time.monotonic()
        payload = self._head.encode(latent, path.name)
        ended = time.monotonic()
        with self._lock:
            self.policy.computed(HEAD, ended - started, ended)
        return Encoded(latent.tobytes(), payload), ran - started, ended - ran

    def _send(self, image: Encoded, deadline: Deadline) -> Request:
        payload = len(image.latent if image.payload is None else image.payload)
        ticket = self.policy.sent(payload + self._overhead, payload, time.monotonic())
        return self._outstanding.send(image, Deadline(linger(deadline.seconds), useful=deadline), ticket)

    def _learn(self) -> None:
        """Tell the policy what has become of requests and pings."""
        for request in self._outstanding.ended():
            assert request.ended is not None
            due = self._due.pop(request.ticket, None)
            if request.failure is not None:
                if due is None:  # its deadline has passed, and was counted
                    self.policy.forget(request.ticket)
                else:
                    self.policy.failed(request.ticket, request.ended)
                continue
            if due is not None and request.ended > due:
                self.policy.late(due)
            answer = request.answer(0)
            assert answer is not None
            milliseconds = [each for each in server_times(answer) if each is not None]
            server = sum(milliseconds) / 1000 if milliseconds else None
            self.policy.answered(request.ticket, server=server, now=request.ended)
            sent = bytes_sent(answer)
            self._overhead = float(sent.total - sent.payload)
        for ticket in [ticket for ticket, due in self._due.items() if due < time.monotonic()]:
            self.policy.late(self._due.pop(ticket))
        if self._ping is not None and self._ping.done():
            if (delay := self._ping.result()) is not None:
                self.policy.pinged(delay, time.monotonic())
            self._ping = None

    def _measure_delay(self) -> None:
        """Begin to measure the link's delay, where that was long ago and nothing is on its way."""
        if self._ping is None and not self._outstanding.is_full and time.monotonic() - self._pinged > PING_EVERY:
            self._pinged = time.monotonic()
            self._ping = self._pings.submit(self._connection.ping, PING_SECONDS)

    def _probe(self, deadline: Deadline) -> None:
        """Send the last latent as cheaply as possible, where the policy wants to know whether the server is back."""
        if self._latent is not None and not self._outstanding.is_full and self.policy.probe(time.monotonic()):
            payload = self._head.encode(self._latent, self._cheapest.name)
            self._send(Encoded(self._latent.tobytes(), payload), Deadline(deadline.seconds))

    def _unavailable(self, deadline: Deadline, reason: str = "") -> Unavailable:
        because = f": {reason}" if reason else ""
        return Unavailable(f"no answer from {self._connection.server} within {1000 * deadline.seconds:.0f} ms{because}")
