"""One gRPC channel to the server, with what is known of the tail behind it."""

import time
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.edge.address import Address
from bottlefit_jax.edge.statuses import THIS_IMAGE, NotYet, code_of
from bottlefit_jax.edge.tcp_counters import Meter, Sent
from bottlefit_jax.errors import UserError
from bottlefit_jax.protocol.model_config import check_config, head_of
from bottlefit_jax.protocol.request import addressed
from bottlefit_jax.protocol.response_checks import identity_problem
from bottlefit_jax.protocol.stubs import pb
from bottlefit_jax.protocol.text import status_line

_VERSIONS = 32  # of a model that are asked for their head, the newest first


@dataclass(frozen=True)
class Answer:
    """A ModelInferResponse of a tail of our head.

    Attributes:
        response: the message.
        seconds: that it took.
        request_bytes: of the request that it answers.
        before, after: what TCP had sent before and after; None where it is not known.
    """

    response: Any
    seconds: float
    request_bytes: int
    before: Sent | None
    after: Sent | None


class Deadline:
    """So many seconds from now, on the monotonic clock."""

    def __init__(self, seconds: float):
        self.seconds, self._until = seconds, time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, at least 0; gRPC ends a call without any at once, as DEADLINE_EXCEEDED."""
        return max(self._until - time.monotonic(), 0.0)


class Link:
    """A channel whose calls go over one connection at a time, which gRPC makes again where it breaks."""

    def __init__(
        self,
        channel: grpc.Channel,
        manifest: Manifest,
        server: Address,
        *,
        version: str,
        metadata: tuple[tuple[str, str], ...],
        compression: grpc.Compression,
    ):
        """Call nothing yet.

        Args:
            channel: to the server; closed with the link.
            manifest: of the head.
            server: where the channel leads.
            version: that is asked for; empty for the newest of this head.
            metadata: of every call.
            compression: of ModelInfer.
        """
        self._channel, self._manifest, self._server = channel, manifest, server
        self._pinned, self._metadata, self._compression = version, metadata, compression
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._meter = Meter(server.port)
        self._version: str | None = None  # to ask for; None before the server was asked which it has

    def verify(self, deadline: Deadline) -> None:
        """Asks whether the server lives and has a tail of our head ready, unless it was asked.

        Raises:
            NotYet: it may have one later.
            UserError: it has none.
            grpc.RpcError: the server said so, or did not answer.
        """
        if self._version is not None:
            return
        try:
            self._version = self._find_version(deadline)
        except grpc.RpcError as error:
            if code_of(error) not in THIS_IMAGE:
                raise
            raise NotYet(status_line(error)) from None  # no image is the reason
        self._meter.find()

    def infer(self, request: Any, deadline: Deadline) -> Answer:
        """Send a ModelInferRequest once, after `verify`.

        Raises:
            NotYet, UserError, grpc.RpcError: as in `verify`; also an answer of another head, which is not used.
        """
        self.verify(deadline)
        version = self._version or ""
        sent = addressed(request, version, deadline.left())
        before, start = self._meter.sent(), time.perf_counter()
        try:
            response = self._stub.ModelInfer(
                sent, timeout=deadline.left(), metadata=self._metadata, compression=self._compression
            )
        except grpc.RpcError as error:
            if version != self._pinned or code_of(error) is grpc.StatusCode.NOT_FOUND:
                self._version = None  # the version that was there may have been replaced
            raise
        seconds = time.perf_counter() - start
        self._meter.find()
        answer = Answer(response, seconds, sent.ByteSize(), before, self._meter.sent())
        problem = identity_problem(response, self._manifest, self._server.text, self._pinned)
        if problem is not None:
            self._replace(version, problem, deadline)
        return answer

    def ping(self, seconds: float) -> bool:
        """Whether the server answers anything within `seconds`, over a new connection if the old one broke."""
        try:
            self._stub.ServerLive(pb.ServerLiveRequest(), timeout=seconds, metadata=self._metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            return code_of(error) not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
        except ValueError:  # the channel was closed meanwhile
            return False
        return True

    def close(self) -> None:
        """End the connection and cancels its calls."""
        self._channel.close()
        self._meter.close()

    def _replace(self, version: str, problem: str, deadline: Deadline) -> None:
        """After an answer of another head: looks for a version of ours, to be asked by the next attempt.

        Raises:
            NotYet: there is another.
            UserError: there is none.
        """
        self._version = None
        self.verify(deadline)
        if self._version == version:
            raise UserError(problem)
        raise NotYet(problem)

    def _find_version(self, deadline: Deadline) -> str:
        """The version to ask for: the pinned one, or none in particular if the newest is of our head."""
        stub, options = self._stub, {"timeout": deadline.left(), "metadata": self._metadata}
        model = {"name": self._manifest.name, "version": self._pinned}
        # all three at once: one round trip on a slow link
        live = stub.ServerLive.future(pb.ServerLiveRequest(), **options)
        ready = stub.ModelReady.future(pb.ModelReadyRequest(**model), **options)
        config = stub.ModelConfig.future(pb.ModelConfigRequest(**model), **options)
        if not live.result().live:
            raise NotYet("it says that it is not live")
        if not ready.result().ready:
            version = f" version {self._pinned}" if self._pinned else ""
            raise NotYet(f"it does not have {self._manifest.name}{version} ready")
        found = config.result().config
        if not self._pinned and head_of(found) != self._manifest.head.id:
            older = self._older_version(deadline)
            if older is not None:
                return older
        check_config(found, self._manifest, self._server.text)
        return self._pinned

    def _older_version(self, deadline: Deadline) -> str | None:
        """The newest version of our head among all that are served; None where there is none."""
        name = self._manifest.name
        request = pb.ModelMetadataRequest(name=name)
        metadata = self._stub.ModelMetadata(request, timeout=deadline.left(), metadata=self._metadata)
        versions = sorted((int(one) for one in metadata.versions if one.isdecimal()), reverse=True)
        for version in map(str, versions[:_VERSIONS]):
            request = pb.ModelConfigRequest(name=name, version=version)
            config = self._stub.ModelConfig(request, timeout=deadline.left(), metadata=self._metadata).config
            if head_of(config) == self._manifest.head.id:
                check_config(config, self._manifest, self._server.text)
                return version
        return None
