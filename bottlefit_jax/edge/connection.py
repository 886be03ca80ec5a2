"""The connection to the server: what is retried, and when a second channel is opened.

Every call ends by its deadline. A failed attempt is repeated after a pause, the last one near the end of the deadline.
A channel that is silent for a share of the deadline, and answers no ping either, gets a second one beside it; the
first answer counts.
"""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as NoResult  # in Python 3.10 it is not the built-in one
from typing import Any, TypeVar

import grpc

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.edge import tls
from bottlefit_jax.edge.address import parse_server
from bottlefit_jax.edge.attempts import FIRST_DELAY, LONGEST_DELAY, SHORTEST_PART, pause
from bottlefit_jax.edge.call_plan import Encoded, Preferences
from bottlefit_jax.edge.channel import Answer, Deadline, ServerChannel
from bottlefit_jax.edge.statuses import BROKEN, Kind, NotYet, kind_of
from bottlefit_jax.errors import BottleFitError, ProtocolError, Unavailable, UserError
from bottlefit_jax.protocol.response_checks import largest_response
from bottlefit_jax.protocol.text import one_line, status_line

SILENT_SHARE = 1 / 8  # of the time left: the wait for an answer, then the wait for the answer to a ping
SHORTEST_SHARE = 0.1  # seconds: a round trip of a slow link is not silence
# Seconds for the answer to a ping after a short deadline was missed; they double while channels turn out to be dead.
SHORTEST_DOUBT, LONGEST_DOUBT = 0.25, 4.0
PING_SECONDS = 0.5  # the least time for the answer to a ping after UNAVAILABLE, before the channel is replaced
# gRPC's messages where a connection is certainly lost
LOST = ("failed to connect", "errors resolving", "Socket closed", "Stream removed", "Connection reset")
T = TypeVar("T")
logger = logging.getLogger("bottlefit_jax.edge")  # without a handler, Python prints warnings on standard error


class Connection:
    """The connection to the tail of one bundle on one server. For as many threads at a time as `calls`, and `ping`."""

    def __init__(
        self,
        manifest: Manifest,
        server: str,
        *,
        preferences: Preferences | None = None,
        files: tls.Files | None = None,
        token: str | None = None,
        compress: bool = False,
        version: int | None = None,
        calls: int = 1,
    ):
        """Connect to nothing yet.

        Args:
            manifest: of the head.
            server: HOST:PORT.
            preferences: of the device; None sends raw latents and asks for all scores.
            files: of TLS; None is plaintext.
            token: sent as a bearer token with every call.
            compress: compress requests by gRPC's gzip.
            version: of the tail; None is the newest that belongs to this head.
            calls: of `infer` at a time.

        Raises:
            UserError: `server` is not HOST:PORT, or the token would be sent to another machine unencrypted.
        """
        self._manifest, self._address, self.server = manifest, parse_server(server), server
        if token is not None and files is None and not self._address.is_loopback:
            raise UserError(f"the token would travel to {self._address.host} in the clear: add --tls")
        if token is not None and not (token and token.isascii() and token.isprintable()):
            raise UserError("the token is empty or not one line of printable ASCII")
        self._files, self._credentials = files, None if files is None else files.credentials()
        self._metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        self._compression = grpc.Compression.Gzip if compress else grpc.Compression.NoCompression
        self._version = "" if version is None else str(version)
        self._preferences = Preferences() if preferences is None else preferences
        self._noted: set[str] = set()
        self._channel: ServerChannel | None = None
        self._second: ServerChannel | None = None  # beside one that is silent
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(3 * calls, "bottlefit-edge")  # a call on each of two channels, and a ping
        self._closed = 0  # times
        self._last_seconds = 0.0  # of the last answer
        self._doubted: ServerChannel | None = None  # may be dead, which a thread finds out
        self._doubts = 0  # in a row that were right
        self._hint = ""  # the likely reason why the server closes connections, where there was time to ask

    def connect(self, deadline: Deadline) -> None:
        """Check that the server answers and has a tail of our head.

        Raises:
            Unavailable: the server did not answer within the deadline.
            UserError: it has no such tail, or refuses this device.
        """
        self._attempt(lambda channel: channel.verify(deadline), deadline)

    def infer(self, image: Encoded, deadline: Deadline) -> Answer:
        """Send an image, again and again until there is an answer.

        Args:
            image: made by the head.
            deadline: of all attempts together.

        Raises:
            Unavailable, ProtocolError: the next image may be answered.
            UserError: the next image would fail too.
        """
        answer = self._attempt(lambda channel: channel.infer(image, deadline), deadline)
        self._last_seconds = answer.seconds
        return answer

    def ping(self, seconds: float) -> float | None:
        """Return how many seconds a message without content takes, there and back; None where nothing comes back.

        Args:
            seconds: to wait at most.
        """
        channel = self._current()
        started = time.monotonic()
        return time.monotonic() - started if channel.ping(seconds) else None

    def close(self) -> None:
        """End the connection, and calls that go on in other threads; the next call makes a new one."""
        with self._lock:
            self._closed += 1
            channels, self._channel, self._second = (self._channel, self._second), None, None
        for channel in channels:
            if channel is not None:
                channel.close()

    def _current(self) -> ServerChannel:
        """Return the channel, a new one where there is none."""
        with self._lock:  # a call and a ping may both be the first
            if self._channel is None:
                self._channel, self._second = self._second or self._open(), None
            return self._channel

    def _beside(self, silent: ServerChannel) -> ServerChannel:
        """Return another channel than this one, a new one where there is none; all calls get the same."""
        with self._lock:
            if self._channel is not silent and self._channel is not None:
                return self._channel
            self._second = self._second or self._open()
            return self._second

    def _keep(self, kept: ServerChannel, dropped: ServerChannel) -> None:
        """Go on with one of two channels, unless another call has chosen the other one."""
        with self._lock:
            if kept.is_closed:
                return
            self._channel, self._second = kept, None
        dropped.close()

    def _drop(self, channel: ServerChannel | None) -> None:
        """End a channel; if it is still the one in use, the next call makes a new one."""
        with self._lock:
            if self._channel is channel:
                self._channel = None
        if channel is not None:
            channel.close()

    def _open(self) -> ServerChannel:
        """Return a new channel."""
        options: list[tuple[str, Any]] = [
            ("grpc.enable_retries", 0),  # we retry
            ("grpc.use_local_subchannel_pool", 1),  # two channels to one server would share a socket
            ("grpc.max_receive_message_length", largest_response(self._manifest)),
        ]
        if self._address.is_local:
            options.append(("grpc.enable_http_proxy", 0))
        if self._credentials is None:
            channel = grpc.insecure_channel(self.server, options=options)
        else:
            channel = grpc.secure_channel(self.server, self._credentials, options=options)
        return ServerChannel(
            channel,
            self._manifest,
            self._address,
            version=self._version,
            preferences=self._preferences,
            note=self._note,
            metadata=self._metadata,
            compression=self._compression,
        )

    def _note(self, text: str) -> None:
        """Log a warning, once."""
        if text not in self._noted:
            self._noted.add(text)
            logger.warning("warning: %s", text)

    def _attempt(self, once: Callable[[ServerChannel], T], deadline: Deadline) -> T:
        """Run `once` until it succeeds, with growing pauses, or raise by the deadline."""
        delay, reason, closed = FIRST_DELAY, None, self._closed
        while self._closed == closed:
            try:
                result = self._on_a_live_channel(once, deadline)
                self._hint = ""
                return result
            except NotYet as error:
                reason = str(error)
            except grpc.RpcError as error:
                if self._closed > closed:
                    break
                reason = self._reason_to_retry(error, deadline) or reason
            part = random.uniform(SHORTEST_PART * delay, delay)
            seconds = pause(part, deadline.useful.left(), deadline.useful.seconds, self._last_seconds)
            if seconds <= 0:
                because = f": {reason}" if reason else ""
                within = f"{1000 * deadline.useful.seconds:.0f} ms"
                raise Unavailable(f"no answer from {self.server} within {within}{because}")
            time.sleep(seconds)
            delay = min(2 * delay, LONGEST_DELAY)
        raise Unavailable(f"the connection to {self.server} was closed")

    def _on_a_live_channel(self, once: Callable[[ServerChannel], T], deadline: Deadline) -> T:
        """Run `once` on the channel, and on a second one where the first is silent."""
        channel = self._current()
        first = self._threads.submit(once, channel)
        share = max(SILENT_SHARE * deadline.left(), SHORTEST_SHARE)
        with contextlib.suppress(NoResult):
            # with less than three shares left, a second channel would come too late
            first.exception(share if 3 * share < deadline.left() else None)
            return first.result()
        ping = self._threads.submit(channel.ping, share)
        calls: list[Future[Any]] = [first, ping]
        wait(calls, share, FIRST_COMPLETED)
        if first.done() or (ping.done() and ping.result()):  # the channel lives: wait for a slow answer
            return first.result()
        other = self._beside(channel)
        return self._first_answer(first, channel, self._threads.submit(once, other), other)

    def _first_answer(self, first: Future[T], channel: ServerChannel, second: Future[T], other: ServerChannel) -> T:
        """Return the first answer of two channels and keep its channel; where the first fails, wait for the second."""
        wait((first, second), return_when=FIRST_COMPLETED)
        if second.done() and other.is_closed:  # another call has gone on with the first channel
            wait((first,))
        answered = first.done() and (first.exception() is None or isinstance(first.exception(), BottleFitError))
        result, kept, dropped = (first, channel, other) if answered else (second, other, channel)
        wait((result,))
        self._keep(kept, dropped)
        return result.result()

    def _is_alive(self, channel: ServerChannel, details: str, deadline: Deadline) -> bool:
        """Return whether a channel answers a ping. A server whose queue is full may answer UNAVAILABLE, too."""
        if any(message in details for message in LOST):
            return False
        return channel.ping(min(max(PING_SECONDS, 1.5 * self._last_seconds), deadline.left()))

    def _reason_to_retry(self, error: Any, deadline: Deadline) -> str | None:
        """Return why an attempt failed, where another one may succeed; None where the time is up.

        Raises:
            UserError, ProtocolError: another attempt would fail too.
        """
        code, details, channel = error.code(), one_line(error.details() or ""), self._channel
        line = status_line(error)
        kind = kind_of(code, details)
        if kind is not Kind.RETRYABLE:
            error_class = ProtocolError if kind is Kind.THIS_IMAGE else UserError
            raise error_class(f"{self.server} answered {line}") from None
        if code in BROKEN and channel is not None and not self._is_alive(channel, details, deadline):
            self._drop(channel)
            problem = tls.find_problem(details, self._address, self._files, min(1.0, deadline.left()))
            if problem is not None and problem.permanent:
                raise UserError(problem.text) from None
            self._hint = self._hint if problem is None else f"; {problem.text}"
            line += self._hint
        if code is not grpc.StatusCode.DEADLINE_EXCEEDED or deadline.left():
            return line
        if deadline.seconds <= 3 * SHORTEST_SHARE and channel is not None:  # there was no time for a ping
            self._doubt(channel, deadline)
        return None

    def _doubt(self, channel: ServerChannel, deadline: Deadline) -> None:
        """Find out, beside the next images, whether a channel is dead, and end it then.

        A new connection takes several round trips: ended at each short deadline, none would ever be ready.
        """
        with self._lock:
            if self._doubted is channel:
                return
            self._doubted = channel
            seconds = min(max(4 * deadline.seconds, SHORTEST_DOUBT) * 2**self._doubts, LONGEST_DOUBT)

        def decide() -> None:
            alive = channel.ping(seconds)
            with contextlib.suppress(BottleFitError, grpc.RpcError):  # the next image meets the same
                if alive:
                    channel.verify(Deadline(seconds))
            with self._lock:
                self._doubted, self._doubts = None, 0 if alive else self._doubts + 1
            if not alive:
                self._drop(channel)

        self._threads.submit(decide)
