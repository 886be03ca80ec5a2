"""The protocol on a gRPC port: bytes to messages, errors to statuses, the log of each call, an orderly end."""

import asyncio
import functools
import itertools
import math
import secrets
import time
from logging import INFO, WARNING
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message

from bottlefit_jax.errors import UserError
from bottlefit_jax.protocol.names import SERVICE
from bottlefit_jax.protocol.request_checks import Refused
from bottlefit_jax.serve.log import CallLog, log
from bottlefit_jax.serve.methods import Call, InferenceService
from bottlefit_jax.serve.metrics import Metrics
from bottlefit_jax.serve.security import caller_of

QUIET = {"ServerLive", "ServerReady", "ModelReady"}  # probes come every few seconds; only failed ones are logged
LAST_CALLS = 0.25  # seconds in which calls that still arrive get UNAVAILABLE; gRPC alone would answer CANCELLED
STREAMS = 1024  # calls at once on one connection; gRPC has no limit of its own
# Calls that gRPC's core holds while this process is busy. From the first number on it refuses some of them as
# RESOURCE_EXHAUSTED, from the second on all. Its defaults, 1,000 and 3,000, are seconds of work.
PENDING, PENDING_AT_MOST = 32, 64
SILENCE_MS = 5000  # after which a connection that sends nothing is closed; each takes a file
PROCESS, NUMBERS = secrets.token_hex(4), itertools.count(1)  # name requests without an id


class GrpcServer:
    """One port of the protocol, from `start` to `stop`.

    Args:
        service: answers the calls.
        metrics: of the server.
        host: the address to listen on.
        port: 0 is a free one.
        message_limit: bytes of the largest request.
        log_one_in: of so many calls with the same method and status one is logged; 0 is none.
        credentials: of TLS; None is plaintext.
        interceptors: such as security.BearerToken.
        other_services: on the same port.
    """

    def __init__(
        self,
        service: InferenceService,
        metrics: Metrics,
        *,
        host: str,
        port: int,
        message_limit: int,
        log_one_in: int = 1,
        credentials: grpc.ServerCredentials | None = None,
        interceptors: tuple[grpc.aio.ServerInterceptor, ...] = (),
        other_services: tuple[grpc.GenericRpcHandler, ...] = (),
    ):
        self._service, self._metrics, self._log = service, metrics, CallLog(log_one_in)
        self._host, self.port, self._credentials = host, port, credentials
        options = [
            ("grpc.max_receive_message_length", message_limit),
            ("grpc.max_concurrent_streams", STREAMS),
            ("grpc.server.max_pending_requests", PENDING),
            ("grpc.server.max_pending_requests_hard_limit", PENDING_AT_MOST),
            ("grpc.server_handshake_timeout_ms", SILENCE_MS),
            ("grpc.so_reuseport", 0),  # a second server on the port is an error, and does not share the calls
            # a device that lost its radio link is noticed within a minute; a device may ping every 10 seconds
            ("grpc.keepalive_time_ms", 40_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ]
        self._server = grpc.aio.server(options=options, interceptors=interceptors)
        handlers = {name: self._handler(name, *method) for name, method in service.methods.items()}
        own_service = grpc.method_handlers_generic_handler(SERVICE, handlers)
        self._server.add_generic_rpc_handlers((own_service, *other_services))

    async def start(self) -> None:
        """Listen. Afterwards `port` is the real one.

        Raises:
            UserError: the port is taken, or the address does not belong to this machine.
        """
        host = f"[{self._host}]" if ":" in self._host and not self._host.startswith("[") else self._host
        address = f"{host}:{self.port}"
        try:
            if self._credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise UserError(f"cannot listen on {address}: the port is taken, or the host is not here") from error
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take no more calls, and return when those that were taken are answered, after `grace` seconds at most."""
        self._service.ready = False
        await asyncio.sleep(LAST_CALLS)
        await self._server.stop(grace)
        self._log.write()

    def _handler(self, name: str, request_type: type[Message], answer: Any) -> grpc.RpcMethodHandler:
        """Make the handler of a method, from bytes to bytes: a message that cannot be parsed gets a status of ours."""

        async def handle(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
            started, left = time.monotonic(), context.time_remaining()
            deadline = math.inf if left is None else started + left
            notes = {"method": name, "request": f"made-{PROCESS}-{next(NUMBERS)}"}
            call = Call(name, deadline, notes, caller=functools.partial(caller_of, context))
            try:
                try:
                    request = request_type.FromString(data)
                except DecodeError as error:
                    message = f"the message is not a {request_type.DESCRIPTOR.name}"
                    raise Refused(grpc.StatusCode.INVALID_ARGUMENT, message) from error
                response = (await answer(request, call)).SerializeToString()
            except Refused as refused:
                self._done(call, started, len(data), 0, refused.code.name, str(refused))
                return await _abort(context, refused.code, str(refused))
            except asyncio.CancelledError:  # by the client, or at its deadline
                expired = time.monotonic() >= deadline
                self._done(call, started, len(data), 0, "DEADLINE_EXCEEDED" if expired else "CANCELLED", None)
                raise
            except Exception:
                log("bug", level=40, trace=True, **call.notes)
                self._done(call, started, len(data), 0, "INTERNAL", None)
                return await _abort(
                    context, grpc.StatusCode.INTERNAL, "an error of the server; its log has the details"
                )
            # counted and logged after the response was sent, which would wait 0.1 ms for it otherwise
            asyncio.get_running_loop().call_soon(self._done, call, started, len(data), len(response), "OK", None)
            return response

        return grpc.unary_unary_rpc_method_handler(handle)

    def _done(self, call: Call, started: float, received: int, sent: int, status: str, error: str | None) -> None:
        """Count and log a call."""
        seconds = time.monotonic() - started
        if status != "OK":
            self._metrics.refused.labels(call.method, status).inc()
        if call.method == "ModelInfer":
            # only names of loaded models: a client must not fill the memory with names of its own
            manifest = None if call.model is None else call.model.manifest
            metrics = (
                self._metrics.of("", None) if manifest is None else self._metrics.of(manifest.name, manifest.version)
            )
            metrics.requests(status).inc()
            metrics.received.inc(received)
            metrics.sent.inc(sent)
            metrics.total.observe(seconds)
        elif call.method in QUIET and status == "OK":
            return
        if not self._log.takes(call.method, status):
            return
        sizes: dict[str, Any] = {"total_us": round(seconds * 1e6), "bytes_in": received, "bytes_out": sent}
        if status != "OK":
            call.notes.update(call.caller())
        self._log.add(level=INFO if status == "OK" else WARNING, **call.notes, status=status, error=error, **sizes)


async def _abort(context: grpc.aio.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
