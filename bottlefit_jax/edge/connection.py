"""The way to the server: what is tried again, and when a second connection is made.

Every call ends by its deadline. An attempt that fails is repeated after a pause, the last one near the end of the
deadline. A connection that says nothing for a share of the deadline, not even to a ping, gets a second one beside it;
the first answer counts.
"""

import contextlib
import random
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import grpc

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.edge import tls
from bottlefit_jax.edge.address import parse_server
from bottlefit_jax.edge.link import Answer, Deadline, Link
from bottlefit_jax.edge.statuses import BROKEN, Kind, NotYet, kind_of
from bottlefit_jax.errors import BottleFitError, ProtocolError, Unavailable, UserError
from bottlefit_jax.protocol.response_checks import largest_response
from bottlefit_jax.protocol.text import one_line, status_line

FIRST_DELAY, LONGEST_DELAY = 0.05, 1.0  # seconds between attempts: doubled each time, of which a random half is waited
SILENT_SHARE = 1 / 8  # of the time left: so long without an answer, then so long without one to a ping
LAST_SHARE = 1 / 20  # of the deadline that is kept for the last attempt
SHORTEST_SHARE = 0.1  # seconds: a round trip of a slow link is no silence
PING_SECONDS = 0.5  # at least, in which a channel has to answer after UNAVAILABLE before it is replaced
# gRPC's words for a connection that is lost for certain
LOST = ("failed to connect", "errors resolving", "Socket closed", "Stream removed", "Connection reset")
T = TypeVar("T")


class Connection:
    """To the tail of one bundle on one server. For one thread at a time."""

    def __init__(
        self,
        manifest: Manifest,
        server: str,
        *,
        files: tls.Files | None = None,
        token: str | None = None,
        compress: bool = False,
        version: int | None = None,
    ):
        """Connect nothing yet.

        Args:
            manifest: of the head.
            server: HOST:PORT.
            files: of TLS; None is plaintext.
            token: sent as a bearer token with every call.
            compress: by gRPC's gzip.
            version: of the tail; None is the newest for this head.

        Raises:
            UserError: no HOST:PORT; a token that would travel in the clear to another machine.
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
        self._link: Link | None = None
        self._threads = ThreadPoolExecutor(3, "bottlefit-edge")  # a call on each of two links, and a ping
        self._usual = 0.0  # seconds that the last answer took
        self._hint = ""  # why connections are closed, once an attempt left time to ask

    def connect(self, deadline: Deadline) -> None:
        """Make sure that the server is there and has a tail of our head.

        Raises:
            Unavailable: not within the deadline.
            UserError: it has none, or refuses us.
        """
        self._attempt(lambda link: link.verify(deadline), deadline)

    def infer(self, request: Any, deadline: Deadline) -> Answer:
        """Send a ModelInferRequest, as often as it takes.

        Raises:
            Unavailable, ProtocolError: the next image may be answered.
            UserError: it will not.
        """
        answer = self._attempt(lambda link: link.infer(request, deadline), deadline)
        self._usual = answer.seconds
        return answer

    def close(self) -> None:
        """End the connection; the next call makes another."""
        if self._link is not None:
            self._link.close()
        self._link = None

    def _open(self) -> Link:
        """A link with a channel of its own."""
        options: list[tuple[str, Any]] = [
            ("grpc.enable_retries", 0),  # retries are ours
            ("grpc.use_local_subchannel_pool", 1),  # two channels to one server would share a socket
            ("grpc.max_receive_message_length", largest_response(self._manifest)),
        ]
        if self._address.is_local:
            options.append(("grpc.enable_http_proxy", 0))
        if self._credentials is None:
            channel = grpc.insecure_channel(self.server, options=options)
        else:
            channel = grpc.secure_channel(self.server, self._credentials, options=options)
        return Link(
            channel,
            self._manifest,
            self._address,
            version=self._version,
            metadata=self._metadata,
            compression=self._compression,
        )

    def _attempt(self, once: Callable[[Link], T], deadline: Deadline) -> T:
        """Run `once` until it succeeds, waiting longer each time, or raise by the deadline."""
        delay, reason, self._hint = FIRST_DELAY, None, ""
        while True:
            try:
                return self._on_a_live_link(once, deadline)
            except NotYet as error:
                reason = str(error)
            except grpc.RpcError as error:
                reason = self._reason_to_retry(error, deadline) or reason
            last = max(LAST_SHARE * deadline.seconds, 1.5 * self._usual)
            pause = min(random.uniform(delay / 2, delay), deadline.left() - last)
            if pause <= 0:
                words = f": {reason}" if reason else ""
                raise Unavailable(f"no answer from {self.server} within {1000 * deadline.seconds:.0f} ms{words}")
            time.sleep(pause)
            delay = min(2 * delay, LONGEST_DELAY)

    def _on_a_live_link(self, once: Callable[[Link], T], deadline: Deadline) -> T:
        """Run `once` on the link, and on a second one where the first is silent."""
        link = self._link = self._link or self._open()
        first = self._threads.submit(once, link)
        share = max(SILENT_SHARE * deadline.left(), SHORTEST_SHARE)
        with contextlib.suppress(TimeoutError):
            first.exception(share if 3 * share < deadline.left() else None)  # else a second one would come too late
            return first.result()
        ping = self._threads.submit(link.ping, share)
        calls: list[Future[Any]] = [first, ping]
        wait(calls, share, FIRST_COMPLETED)
        if first.done() or (ping.done() and ping.result()):  # a slow answer is waited for
            return first.result()
        other = self._open()
        return self._first_answer(first, link, self._threads.submit(once, other), other)

    def _first_answer(self, first: Future[T], link: Link, second: Future[T], other: Link) -> T:
        """The answer on whichever link it comes; the second link decides where the first one fails."""
        wait((first, second), return_when=FIRST_COMPLETED)
        answered = first.done() and (first.exception() is None or isinstance(first.exception(), BottleFitError))
        result, kept, dropped = (first, link, other) if answered else (second, other, link)
        wait((result,))
        self._link = kept
        dropped.close()
        return result.result()

    def _is_alive(self, details: str, deadline: Deadline) -> bool:
        """Whether other calls are answered: a server may say UNAVAILABLE of a full queue, and its link is kept."""
        if self._link is None or any(words in details for words in LOST):
            return False
        return self._link.ping(min(max(PING_SECONDS, 1.5 * self._usual), deadline.left()))

    def _reason_to_retry(self, error: Any, deadline: Deadline) -> str | None:
        """Why an attempt failed, where another one may succeed; None where the time is up.

        Raises:
            UserError: no other attempt would.
        """
        code, details = error.code(), one_line(error.details() or "")
        line = status_line(error)
        kind = kind_of(code, details)
        if kind is not Kind.RETRYABLE:
            failure = ProtocolError if kind is Kind.THIS_IMAGE else UserError
            raise failure(f"{self.server} answered {line}") from None
        if code in BROKEN and not self._is_alive(details, deadline):
            self.close()
            problem = tls.find_problem(details, self._address, self._files, min(1.0, deadline.left()))
            if problem is not None and problem.permanent:
                raise UserError(problem.text) from None
            self._hint = self._hint if problem is None else f"; {problem.text}"
            line += self._hint
        if code is not grpc.StatusCode.DEADLINE_EXCEEDED or deadline.left():
            return line
        if deadline.seconds <= 3 * SHORTEST_SHARE:  # too short to have asked whether the link is alive
            self.close()
        return None
