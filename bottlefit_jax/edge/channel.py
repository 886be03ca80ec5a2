"""One gRPC channel to the server, and what is known of the tail behind it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.edge.address import Address
from bottlefit_jax.edge.call_plan import CallPlan, Encoded, Preferences, make_plan
from bottlefit_jax.edge.statuses import THIS_IMAGE, NotYet, code_of
from bottlefit_jax.edge.tcp_counters import Meter, Sent
from bottlefit_jax.errors import UserError
from bottlefit_jax.protocol.classification import Output
from bottlefit_jax.protocol.model_config import Capabilities, capabilities_of, check_config, head_of, payload_problem
from bottlefit_jax.protocol.names import PAYLOAD_SUFFIX
from bottlefit_jax.protocol.response_checks import identity_problem
from bottlefit_jax.protocol.stubs import pb
from bottlefit_jax.protocol.text import status_line

_VERSIONS = 32  # the most versions of a model whose head is asked for, the newest first


@dataclass(frozen=True)
class Answer:
    """A ModelInferResponse of a tail that belongs to our head.

    Attributes:
        response: the message.
        seconds: from the request to the response.
        request_bytes: size of the serialised request.
        content_bytes: of these, the payload or the raw latent.
        output: the one that has the scores.
        before, after: TCP's counters before the request and after the response; None where they are unknown, as
            where several requests were on their way at once.
    """

    response: Any
    seconds: float
    request_bytes: int
    content_bytes: int
    output: Output
    before: Sent | None
    after: Sent | None


class Deadline:
    """A time that lies some seconds in the future, on the monotonic clock.

    Attributes:
        seconds: from its beginning.
        useful: until when an answer is of use, which goes to the server: this deadline itself, or an earlier one where
            a late answer is still waited for, to learn from it.
    """

    def __init__(self, seconds: float, *, since: float | None = None, useful: Deadline | None = None):
        """Begin now, or at an earlier time of the monotonic clock; `useful` is the attribute, None for this one."""
        self.seconds, self._until = seconds, (time.monotonic() if since is None else since) + seconds
        self.useful = self if useful is None else useful

    def end(self) -> None:
        """Let nothing be left."""
        self._until = time.monotonic()

    def left(self) -> float:
        """Return the seconds that are left, at least 0; gRPC ends a call with 0 at once, as DEADLINE_EXCEEDED."""
        return max(self._until - time.monotonic(), 0.0)


class ServerChannel:
    """A gRPC channel that uses one connection at a time; gRPC reconnects where that breaks. For several threads."""

    def __init__(
        self,
        channel: grpc.Channel,
        manifest: Manifest,
        server: Address,
        *,
        version: str,
        preferences: Preferences,
        note: Callable[[str], None],
        metadata: tuple[tuple[str, str], ...],
        compression: grpc.Compression,
    ):
        """Send nothing yet.

        Args:
            channel: to the server; closed by `close`.
            manifest: of the head.
            server: the address of the channel.
            version: of the tail to ask for; empty for the newest that belongs to this head.
            preferences: of the device.
            note: called with a line that says what the server cannot do.
            metadata: of every call.
            compression: of ModelInfer.
        """
        self._channel, self._manifest, self._server = channel, manifest, server
        self._pinned, self._preferences, self._note = version, preferences, note
        self._metadata, self._compression = metadata, compression
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._live_request = pb.ServerLiveRequest()
        self._meter = Meter(server.port)
        self._plan: CallPlan | None = None  # None until the server has been asked what it has
        self.is_closed = False

    def verify(self, deadline: Deadline) -> CallPlan:
        """Check that the server is live and has a tail of our head ready, unless that has been checked.

        Returns:
            How to call it.

        Raises:
            NotYet: it may have one later.
            UserError: it has none.
            grpc.RpcError: the server refused, or did not answer.
        """
        if (plan := self._plan) is not None:
            return plan
        try:
            with self._while_open():
                plan = self._find(deadline)
        except grpc.RpcError as error:
            if code_of(error) not in THIS_IMAGE:
                raise
            raise NotYet(status_line(error)) from None  # no image was sent, so no image is the reason
        with self._meter.span():  # finds the connection
            pass
        self._plan = plan
        return plan

    def infer(self, image: Encoded, deadline: Deadline) -> Answer:
        """Send a ModelInferRequest once, after `verify`.

        Args:
            image: made by the head.
            deadline: of the call.

        Raises:
            NotYet, UserError, grpc.RpcError: as in `verify`; also where another head's tail answered.
        """
        plan = self.verify(deadline)
        content = plan.content(image)
        limit = deadline.useful.left() if plan.triton or deadline.useful is not deadline else None  # else gRPC tells it
        request = plan.requests.request(content, plan.version, limit)
        try:
            with self._while_open(), self._meter.span() as span:
                start = time.perf_counter()
                response = self._stub.ModelInfer(
                    request, timeout=deadline.left(), metadata=self._metadata, compression=self._compression
                )
                seconds = time.perf_counter() - start
        except grpc.RpcError as error:
            if plan.version != self._pinned or code_of(error) is grpc.StatusCode.NOT_FOUND:
                self._plan = None  # the version may have been replaced
            if code_of(error) in THIS_IMAGE and not plan.plain:
                self._check_again(plan, status_line(error), deadline)
            raise
        answer = Answer(response, seconds, request.ByteSize(), len(content), plan.output, span.before, span.after)
        problem = identity_problem(response, self._manifest, self._server.text, self._pinned)
        if problem is not None:
            self._replace(plan, problem, deadline)
        return answer

    def ping(self, seconds: float) -> bool:
        """Return whether the server answers anything within `seconds`, over a new connection if the old one broke."""
        try:
            self._stub.ServerLive(self._live_request, timeout=seconds, metadata=self._metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            return code_of(error) not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
        except ValueError:  # the channel was closed meanwhile
            return False
        return True

    def close(self) -> None:
        """End the connection and cancel its calls."""
        self.is_closed = True
        self._channel.close()
        self._meter.close()

    @contextlib.contextmanager
    def _while_open(self) -> Iterator[None]:
        """Raise NotYet where gRPC refuses a call because another thread has closed the channel."""
        try:
            yield
        except ValueError:
            if not self.is_closed:
                raise
            raise NotYet("the connection was replaced") from None

    def _check_again(self, before: CallPlan, problem: str, deadline: Deadline) -> None:
        """After a refused image, look whether the server has become another one that takes and gives other things.

        Raises:
            NotYet: it has; the next attempt asks accordingly.
            UserError, grpc.RpcError: as in `verify`.
        """
        self._plan = None
        if self.verify(deadline) != before:
            raise NotYet(problem)

    def _replace(self, before: CallPlan, problem: str, deadline: Deadline) -> None:
        """After an answer of another head's tail, look for a version of ours, for the next attempt.

        Raises:
            NotYet: there is another version.
            UserError: there is none.
        """
        self._plan = None
        if self.verify(deadline).version == before.version:
            raise UserError(problem)
        raise NotYet(problem)

    def _find(self, deadline: Deadline) -> CallPlan:
        """Return how to call the pinned version, or the newest that belongs to our head."""
        stub, options = self._stub, {"timeout": deadline.left(), "metadata": self._metadata}
        model = {"name": self._manifest.name, "version": self._pinned}
        # all three at once: one round trip on a slow link
        live = stub.ServerLive.future(self._live_request, **options)
        ready = stub.ModelReady.future(pb.ModelReadyRequest(**model), **options)
        config = stub.ModelConfig.future(pb.ModelConfigRequest(**model), **options)
        if not live.result().live:
            raise NotYet("it answered that it is not live")
        if not ready.result().ready:
            version = f" version {self._pinned}" if self._pinned else ""
            raise NotYet(f"it does not have {self._manifest.name}{version} ready")
        found, version = config.result().config, self._pinned
        if not self._pinned and head_of(found) != self._manifest.head.id:
            version, found = self._older_version(deadline) or (version, found)
        check_config(found, self._manifest, self._server.text)
        return self._plan_for(version, capabilities_of(found), deadline)

    def _plan_for(self, version: str, capabilities: Capabilities, deadline: Deadline) -> CallPlan:
        """Return how to call a version of our tail: with payloads, if it or an ensemble before it takes ours."""
        rates = self._preferences.rates
        if rates is None:
            return make_plan(self._manifest, version, capabilities, self._preferences)
        # a model with the output identity is Triton's: its tail takes raw latents, an ensemble before it payloads
        taker = self._ensemble(version, deadline) if capabilities.identity else capabilities
        problem = payload_problem(taker or Capabilities(), rates, self._server.text)
        if problem is None and taker is not None:
            model = f"{self._manifest.name}{PAYLOAD_SUFFIX}" if capabilities.identity else self._manifest.name
            return make_plan(self._manifest, version, taker, self._preferences, payload_to=model)
        self._note(f"raw latents are sent, which are larger: {problem}")
        return make_plan(self._manifest, version, capabilities, self._preferences)

    def _ensemble(self, version: str, deadline: Deadline) -> Capabilities | None:
        """Return what the model takes and gives that decodes payloads before our tail on Triton; None without one."""
        options = {"timeout": deadline.left(), "metadata": self._metadata}
        model = {"name": f"{self._manifest.name}{PAYLOAD_SUFFIX}", "version": version}
        ready = self._stub.ModelReady.future(pb.ModelReadyRequest(**model), **options)
        config = self._stub.ModelConfig.future(pb.ModelConfigRequest(**model), **options)
        if not ready.result().ready:
            config.cancel()
            return None
        found = config.result().config
        return capabilities_of(found) if head_of(found) == self._manifest.head.id else None

    def _older_version(self, deadline: Deadline) -> tuple[str, Any] | None:
        """Return the newest version of our head among all that are served, and its ModelConfig; None without one."""
        name = self._manifest.name
        request = pb.ModelMetadataRequest(name=name)
        metadata = self._stub.ModelMetadata(request, timeout=deadline.left(), metadata=self._metadata)
        versions = sorted((int(text) for text in metadata.versions if text.isdecimal()), reverse=True)
        for version in map(str, versions[:_VERSIONS]):
            request = pb.ModelConfigRequest(name=name, version=version)
            config = self._stub.ModelConfig(request, timeout=deadline.left(), metadata=self._metadata).config
            if head_of(config) == self._manifest.head.id:
                return version, config
        return None
