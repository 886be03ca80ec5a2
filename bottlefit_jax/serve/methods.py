"""The methods of the Open Inference Protocol v2, as functions from message to message.

A method raises `Refused`, whose code becomes the status of the call. Requests are checked in
`bottlefit_jax/protocol/request_checks.py`. `grpc_server.py` puts the methods behind sockets.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from logging import WARNING
from typing import Any

from google.protobuf.message import Message
from grpc import StatusCode

from bottlefit_jax import __version__
from bottlefit_jax.errors import UserError
from bottlefit_jax.protocol.classification import DEFAULT, Output
from bottlefit_jax.protocol.input_checks import input_of
from bottlefit_jax.protocol.model_config import make_config
from bottlefit_jax.protocol.names import BATCH, DECODE_US, INPUT, OUTPUT, PROBABILITIES, QUEUE_US, TAIL_US
from bottlefit_jax.protocol.request_checks import Refused, deadline_of, head_of, invalid, outputs_of, version_of
from bottlefit_jax.protocol.stubs import pb
from bottlefit_jax.serve.batch_queue import QueueFull
from bottlefit_jax.serve.batching import BadPayload, Closed, Expired, Inbox, Result, TailFailed
from bottlefit_jax.serve.log import log
from bottlefit_jax.serve.metrics import Metrics
from bottlefit_jax.serve.repository import HeadMissing, Model, NoSuchModel, OtherHead, Repository
from bottlefit_jax.serve.tail import BACKENDS

EXTENSIONS = ["classification", "model_configuration", "model_repository", "statistics"]
METHODS = frozenset(pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name)  # of the protocol, not ours
# an error of the repository -> the status of the call
STATUSES = {
    NoSuchModel: StatusCode.NOT_FOUND,
    OtherHead: StatusCode.FAILED_PRECONDITION,
    HeadMissing: StatusCode.INVALID_ARGUMENT,
}


@dataclass
class Call:
    """One call.

    Attributes:
        method: its name.
        deadline: by time.monotonic(); math.inf without one.
        notes: fields of its line in the log.
        model: that a ModelInfer request was for; None before it is known.
        outputs: that it asks for.
        caller: returns who calls. It takes time, so it is called only where the log shows the caller.
    """

    method: str
    deadline: float
    notes: dict[str, Any]
    model: Model | None = None
    outputs: tuple[Output, ...] = DEFAULT
    caller: Callable[[], dict[str, str]] = dict


class InferenceService:
    """The methods of the protocol over a repository.

    Args:
        repository: the models.
        backend: what runs their tails, a key of BACKENDS.
        max_batch: images in one request at most.
        delay: seconds that a request may wait for others, as ModelConfig declares it.
        metrics: of the server.
        may_load: allow the calls that load and unload models.

    Attributes:
        ready: False once the server is shutting down.
        methods: name -> class of the request, and the method.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        backend: str,
        max_batch: int,
        delay: float,
        metrics: Metrics,
        may_load: bool,
    ):
        self._repository, self._backend, self._max_batch, self._delay = repository, backend, max_batch, delay
        self._metrics, self._inbox, self._may_load = metrics, Inbox(), may_load
        self.ready = True
        self.methods: dict[str, tuple[type[Message], Callable[[Any, Call], Awaitable[Message]]]] = {
            "ServerLive": (pb.ServerLiveRequest, self._server_live),
            "ServerReady": (pb.ServerReadyRequest, self._server_ready),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, self._model_metadata),
            "ModelConfig": (pb.ModelConfigRequest, self._model_config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self._model_statistics),
            "ModelInfer": (pb.ModelInferRequest, self._model_infer),
            "RepositoryIndex": (pb.RepositoryIndexRequest, self._repository_index),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, self._load),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, self._unload),
        }

    def _model(self, name: str, version: str) -> Model:
        try:
            return self._repository.get(name, version_of(version))
        except NoSuchModel as error:
            raise Refused(STATUSES[NoSuchModel], str(error)) from error

    def _versions(self, name: str) -> list[Model]:
        try:
            return self._repository.versions(name)
        except NoSuchModel as error:
            raise Refused(STATUSES[NoSuchModel], str(error)) from error

    async def _server_live(self, request: Any, call: Call) -> Message:
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, request: Any, call: Call) -> Message:
        return pb.ServerReadyResponse(ready=self.ready)

    async def _model_ready(self, request: Any, call: Call) -> Message:
        try:
            self._repository.get(request.name, version_of(request.version))
        except NoSuchModel:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self.ready)

    async def _server_metadata(self, request: Any, call: Call) -> Message:
        return pb.ServerMetadataResponse(name="bottlefit-jax", version=__version__, extensions=EXTENSIONS)

    async def _model_metadata(self, request: Any, call: Call) -> Message:
        manifest = self._model(request.name, request.version).manifest
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=manifest.name,
            versions=[str(model.manifest.version) for model in self._versions(request.name)],
            platform=BACKENDS[self._backend].platform,
            inputs=[tensor(name=INPUT, datatype="UINT8", shape=[-1, *manifest.latent.shape])],
            outputs=[
                tensor(name=name, datatype="FP32", shape=[-1, manifest.model.num_classes])
                for name in (OUTPUT, PROBABILITIES)
            ],
        )

    async def _model_config(self, request: Any, call: Call) -> Message:
        model = self._model(request.name, request.version)
        backend = BACKENDS[self._backend]
        config = make_config(
            model.manifest,
            platform=backend.platform,
            backend=backend.library,
            max_batch=self._max_batch,
            delay=self._delay,
            rates=model.rates,
        )
        return pb.ModelConfigResponse(config=config)

    async def _model_statistics(self, request: Any, call: Call) -> Message:
        """Answer for all versions, or all models, where the request names none."""
        if request.version:
            models = [self._model(request.name, request.version)]
        elif request.name:
            models = self._versions(request.name)
        else:
            models = [*self._repository.models()]
        return pb.ModelStatisticsResponse(
            model_stats=[model.statistics.message(model.manifest.name, str(model.manifest.version)) for model in models]
        )

    async def _model_infer(self, request: Any, call: Call) -> Message:
        if not self.ready:
            raise Refused(StatusCode.UNAVAILABLE, "the server is shutting down")
        started = time.monotonic_ns()
        call.notes["request"] = request.id[:128] or call.notes["request"]
        call.deadline = deadline_of(request, call.deadline)
        try:
            result = await self._run(request, call)
        except (Refused, asyncio.CancelledError):
            if call.model is not None:
                call.model.statistics.fail(time.monotonic_ns() - started)
            raise
        assert call.model is not None
        call.model.statistics.succeed(result, time.monotonic_ns() - started)
        manifest = call.model.manifest
        numbers = {QUEUE_US: result.queue_us, TAIL_US: result.tail_us, BATCH: result.batch}
        if result.decode_us is not None:
            numbers[DECODE_US] = result.decode_us
        call.notes.update(numbers)
        metrics = self._metrics.of(manifest.name, manifest.version)
        metrics.queue.observe(result.queue_us / 1e6)
        metrics.tail.observe(result.tail_us / 1e6)
        if result.decode_us is not None:
            metrics.decode.observe(result.decode_us / 1e6)
        return call.model.responses.response(request.id, result.logits, numbers, call.outputs)

    async def _run(self, request: Any, call: Call) -> Result:
        future = self._submit(request, call)
        try:
            return await self._inbox.result(future)  # cancelling this call cancels the future
        except Expired as error:
            raise Refused(StatusCode.DEADLINE_EXCEEDED, "the request would end after its deadline") from error
        except BadPayload as error:
            raise invalid(str(error)) from error
        except TailFailed as error:
            log("tail failed", level=40, error=str(error), **call.notes)
            raise Refused(StatusCode.INTERNAL, "the tail failed; the server's log says why") from error

    def _submit(self, request: Any, call: Call) -> Future[Result]:
        for _ in range(2):  # again where a load replaced the model between `_choose` and `submit`
            model = call.model = self._choose(request)
            call.notes.update(model=model.manifest.name, version=model.manifest.version)
            call.outputs = outputs_of(request, model.manifest)
            images = input_of(request, model.manifest, max_batch=self._max_batch, rates=model.rates)
            try:
                return model.batcher.submit(images, deadline=call.deadline)
            except QueueFull as error:
                message = f"{model.manifest.name} is overloaded, try again later: {error}"
                raise Refused(StatusCode.RESOURCE_EXHAUSTED, message) from error
            except Closed:
                continue
        raise Refused(StatusCode.UNAVAILABLE, f"{request.model_name} is being unloaded")

    def _choose(self, request: Any) -> Model:
        """Return the model whose tail belongs to the head that made the request's latent."""
        version, head = version_of(request.model_version), head_of(request)
        try:
            return self._repository.choose(request.model_name, version, head)
        except tuple(STATUSES) as error:
            raise Refused(STATUSES[type(error)], str(error)) from error

    async def _repository_index(self, request: Any, call: Call) -> Message:
        index = await asyncio.to_thread(self._repository.index)
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=entry.name,
                    version="" if entry.version is None else str(entry.version),
                    state="READY" if entry.ready else "UNAVAILABLE",
                    reason=entry.reason,
                )
                for entry in index
                if entry.ready or not request.ready
            ]
        )

    async def _load(self, request: Any, call: Call) -> Message:
        call.notes["model"] = request.model_name[:128]
        if request.parameters:
            raise invalid("the request must have no parameters: this server loads the bundles on its own disk")
        await self._change("loaded", self._repository.load, request.model_name, call)
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, request: Any, call: Call) -> Message:
        call.notes["model"] = request.model_name[:128]
        await self._change("unloaded", self._repository.unload, request.model_name, call)
        return pb.RepositoryModelUnloadResponse()

    async def _change(self, event: str, change: Callable[[str], None], name: str, call: Call) -> None:
        call.notes.update(call.caller())
        if not self._may_load:
            raise Refused(
                StatusCode.PERMISSION_DENIED,
                "this port does not load or unload models; --repository-port does, on the server's machine",
            )
        if not self.ready:
            raise Refused(StatusCode.UNAVAILABLE, "the server is shutting down")
        before = self._repository.left_out
        try:
            await asyncio.to_thread(change, name)
        except UserError as error:
            status = StatusCode.NOT_FOUND if isinstance(error, NoSuchModel) else StatusCode.FAILED_PRECONDITION
            raise Refused(status, str(error)) from error
        versions = [model.manifest.version for model in self._repository.models() if model.manifest.name == name]
        fields: dict[str, Any] = {"model": name, "versions": versions, **call.caller()}
        log(event, **fields)
        for folder, error in self._repository.left_out.items():
            if str(error) != str(before.get(folder)):
                log("left out", level=WARNING, folder=str(folder), reason=str(error))
