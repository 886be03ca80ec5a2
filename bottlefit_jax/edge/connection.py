"""The way to the server: one gRPC channel, what is retried, and the proof that the tail belongs to the head.

    UserError
    ├── NoAnswer    nothing within the deadline; the next picture may fare better
    └── (itself)    what waiting does not mend: another head, a wrong token, a certificate, a status of the server's

Every call ends by its deadline. A connection that broke is made anew, and proved anew before a picture goes over it.
"""

import ipaddress
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2_grpc

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.edge import message
from bottlefit_jax.edge.traffic import Meter, Sent
from bottlefit_jax.errors import UserError

FIRST_DELAY, LONGEST_DELAY = 0.05, 1.0  # seconds between attempts: doubled each time, of which a random half is waited
# in gRPC's words where TLS failed, which it calls UNAVAILABLE
HANDSHAKE = ("CERTIFICATE", "SSL_ERROR", "certificate")
BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # CANCELLED: a server that was stopped
T = TypeVar("T")


class NoAnswer(UserError):
    """The server did not answer within the deadline."""


class Deadline:
    """So many seconds from now, on the monotonic clock."""

    def __init__(self, seconds: float):
        self.seconds, self._until = seconds, time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, at least 0; gRPC ends a call without any at once, as DEADLINE_EXCEEDED."""
        return max(self._until - time.monotonic(), 0.0)


class _NotYet(Exception):
    """An attempt that may go better a little later; its text says why."""


@dataclass(frozen=True)
class Answer:
    """A ModelInferResponse, the seconds it took, and what TCP had sent before and after (None: not known)."""

    response: Any
    seconds: float
    before: Sent | None
    after: Sent | None


class Connection:
    """To the tail of one bundle on one server."""

    def __init__(
        self,
        manifest: Manifest,
        server: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        compress: bool = False,
    ):
        """Connects nothing yet.

        Args:
          server: HOST:PORT.
          credentials: of TLS; None is plaintext.
          token: sent as a bearer token with every call.
          compress: by gRPC's gzip.

        Raises:
          UserError: no HOST:PORT; a token that would travel in the clear to another machine.
        """
        self._manifest, self.server = manifest, server
        host, self._port = parse_server(server)
        if token is not None and credentials is None and not _is_loopback(host):
            raise UserError(f"the token would travel to {host} in the clear: add --tls")
        if token is not None and not (token and token.isascii() and token.isprintable()):
            raise UserError("the token is empty or not one line of printable ASCII")
        self._credentials = credentials
        self._metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        self._compression = grpc.Compression.Gzip if compress else grpc.Compression.NoCompression
        self._channel: grpc.Channel | None = None
        self._stub: Any = None
        self._meter = Meter(self._port)
        self._proved = False
        self._proved_on: int | None = None

    def connect(self, deadline: Deadline) -> None:
        """Makes sure that the server is there and its tail belongs to the head.

        Raises:
          UserError: as above.
        """
        self._attempt(lambda: self._prove(deadline), deadline)

    def infer(self, request: Any, deadline: Deadline) -> Answer:
        """Sends a ModelInferRequest, as often as it takes.

        Raises:
          UserError: as above.
        """
        return self._attempt(lambda: self._infer_once(request, deadline), deadline)

    def close(self) -> None:
        """Ends the connection; the next call makes another."""
        if self._channel is not None:
            self._channel.close()
        self._channel = self._stub = None
        self._proved = False

    def _infer_once(self, request: Any, deadline: Deadline) -> Answer:
        self._prove(deadline)
        before, start = self._meter.sent(), time.perf_counter()
        response = self._stub.ModelInfer(
            request, timeout=deadline.left(), metadata=self._metadata, compression=self._compression
        )
        seconds, after = time.perf_counter() - start, self._meter.sent()
        # gRPC may have reconnected by itself, so the answer is another server's
        if self._meter.connection() != self._proved_on:
            self._proved = False
            raise _NotYet("the connection was lost")
        if response.model_version not in ("", request.model_version):
            self._proved = False
            version = message.printable(response.model_version)
            raise _NotYet(f"it answers with version {version} of {request.model_name}, not {request.model_version}")
        return Answer(response, seconds, before, after)

    def _prove(self, deadline: Deadline) -> None:
        """Asks whether the server lives, the model is ready and the head is ours, unless this connection was asked."""
        if self._stub is not None and self._proved and self._meter.connection() == self._proved_on:
            return
        stub = self._stub or self._open()
        model = {"name": self._manifest.name, "version": str(self._manifest.version)}
        options = {"timeout": deadline.left(), "metadata": self._metadata}
        # all three at once: one round trip on a slow link
        live = stub.ServerLive.future(message.pb.ServerLiveRequest(), **options)
        ready = stub.ModelReady.future(message.pb.ModelReadyRequest(**model), **options)
        config = stub.ModelConfig.future(message.pb.ModelConfigRequest(**model), **options)
        if not live.result().live:
            raise _NotYet("it says that it is not live")
        if not ready.result().ready:
            raise _NotYet(f"it does not have {model['name']} version {model['version']} ready")
        message.check_config(config.result().config, self._manifest, self.server)
        self._proved, self._proved_on = True, self._meter.connection()

    def _open(self) -> Any:
        """A new channel's stub, and a meter that sees only its socket."""
        options = [
            ("grpc.enable_retries", 0),  # retries are ours
            ("grpc.use_local_subchannel_pool", 1),  # two clients of a process would share a socket
            ("grpc.max_receive_message_length", message.largest_response(self._manifest)),
        ]
        self._meter, self._proved = Meter(self._port), False
        if self._credentials is None:
            self._channel = grpc.insecure_channel(self.server, options=options)
        else:
            self._channel = grpc.secure_channel(self.server, self._credentials, options=options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._stub

    def _attempt(self, once: Callable[[], T], deadline: Deadline) -> T:
        """Runs `once` until it succeeds, waiting longer each time, or raises by the deadline."""
        delay, reason = FIRST_DELAY, None
        while True:
            try:
                return once()
            except _NotYet as error:
                reason = str(error)
            except grpc.RpcError as error:
                reason = self._worth_retrying(error) or reason
            wait = random.uniform(delay / 2, delay)
            if wait >= deadline.left():
                told = f": {reason}" if reason else ""
                raise NoAnswer(f"no answer from {self.server} within {1000 * deadline.seconds:.0f} ms{told}")
            time.sleep(wait)
            delay = min(2 * delay, LONGEST_DELAY)

    def _worth_retrying(self, error: Any) -> str | None:
        """Why an attempt failed, where another one may succeed; None where the time is up.

        Raises:
          UserError: no other attempt would.
        """
        code, details = error.code(), message.printable(error.details() or "")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self.close()  # maybe a dead connection that TCP has yet to notice: a device changes networks
            return None
        if code in BROKEN:
            self.close()
            if self._credentials is not None and any(word in details for word in HANDSHAKE):
                raise UserError(f"TLS with {self.server} failed: {details}") from None
        elif code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise UserError(f"{self.server} answered {code.name}: {details or 'no reason given'}") from None
        return f"{code.name}: {details}"


def parse_server(server: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, where an IPv6 address stands in brackets.

    Raises:
      UserError: it is something else.
    """
    host, colon, port = server.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16 or "/" in host:
        raise UserError(f"the server {server!r} must be HOST:PORT, such as localhost:8001")
    if ":" in host and not bracketed:
        raise UserError(f"the server {server!r} must be HOST:PORT with an IPv6 address in brackets, [::1]:8001")
    return host.strip("[]"), int(port)


def tls_credentials(
    *, ca: Path | str | None = None, cert: Path | str | None = None, key: Path | str | None = None
) -> grpc.ChannelCredentials:
    """Credentials of TLS, or of mutual TLS where `cert` and `key` are given.

    Args:
      ca: PEM file of who may have signed the server's certificate; None is gRPC's list of public authorities.
      cert, key: PEM files of this device.

    Raises:
      UserError: a file that is missing, no PEM, or a pair that does not match.
    """
    if (cert is None) != (key is None):
        raise UserError("a certificate and its key go together: --tls-cert and --tls-key")
    told = "" if ca is None else str(ca)
    try:  # gRPC takes any bytes and fails later without a reason
        context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            told = f"{cert} with {key}"
            context.load_cert_chain(cert, key, password=lambda: "")
    except OSError as error:  # an SSLError is one
        reason = "no PEM file of a certificate and its key" if isinstance(error, ssl.SSLError) else error.strerror
        raise UserError(f"cannot use {told} for TLS: {reason} ({error.args[-1]})") from None
    files = [None if path is None else Path(path).read_bytes() for path in (ca, key, cert)]
    return grpc.ssl_channel_credentials(*files)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
