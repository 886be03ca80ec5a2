"""gRPC's health service and server reflection, for orchestrators and generic clients."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

HEALTH = "grpc.health.v1.Health"
# the package implements v1alpha; clients ask for v1 first, whose messages are the same on the wire
REFLECTION = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")

health_messages: Any = health_pb2  # protobuf creates the classes at import, where a type checker does not see them
reflection_messages: Any = reflection_pb2


class Health:
    """gRPC's health service and server reflection.

    Args:
        services: full names of the other services on the port.
    """

    def __init__(self, services: Iterable[str]):
        self._names = ("", *services)
        self._stopping = asyncio.Event()
        self._reflection: Any = reflection.aio.ReflectionServicer([*services, HEALTH, REFLECTION[0]])
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        name_of = health_messages.HealthCheckRequest.FromString
        methods = {
            "Check": unary(self._check, name_of, _serialized),
            "Watch": stream(self._watch, name_of, _serialized),
        }
        if hasattr(health_messages, "HealthListRequest"):  # older versions of the package have none
            methods["List"] = unary(self._list, health_messages.HealthListRequest.FromString, _serialized)
        question = reflection_messages.ServerReflectionRequest.FromString
        reflect = {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(self._reflect, question, _serialized)}
        self.handlers: tuple[grpc.GenericRpcHandler, ...] = (
            grpc.method_handlers_generic_handler(HEALTH, methods),
            *(grpc.method_handlers_generic_handler(name, reflect) for name in REFLECTION),
        )

    def stop(self) -> None:
        """Report NOT_SERVING, and end the streams, which would keep the server from stopping."""
        self._stopping.set()

    def _status(self) -> Any:
        """Return a HealthCheckResponse."""
        status = health_messages.HealthCheckResponse
        return status(status=status.NOT_SERVING if self._stopping.is_set() else status.SERVING)

    async def _check(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:60]!r}")
        return self._status()

    async def _list(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        return health_messages.HealthListResponse(statuses={name: self._status() for name in self._names})

    async def _watch(self, request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        if request.service in self._names:
            yield self._status()
            await self._stopping.wait()
            yield self._status()
        else:
            yield health_messages.HealthCheckResponse(status=health_messages.HealthCheckResponse.SERVICE_UNKNOWN)
            await self._stopping.wait()

    async def _reflect(self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        async for answer in self._reflection.ServerReflectionInfo(self._until_stopping(requests), context):
            yield answer

    async def _until_stopping(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while True:
                next_request = asyncio.ensure_future(anext(requests, None))
                try:
                    await asyncio.wait({next_request, stopping}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    ended = not next_request.done()
                    next_request.cancel()  # has no effect where it is done
                if ended or (request := next_request.result()) is None:
                    return
                yield request
        finally:
            stopping.cancel()


def _serialized(message: Any) -> bytes:
    return message.SerializeToString()
