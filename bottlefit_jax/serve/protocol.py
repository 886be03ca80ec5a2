"""The methods of the Open Inference Protocol v2 as functions from message to message.

Each raises `Refused` for what becomes the call's status. `grpc_server.py` puts them behind sockets.
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
from bottlefit_jax.protocol.names import ID_DIGITS, INPUT, OUTPUT
from bottlefit_jax.protocol.request_checks import (
    Refused,
    deadline_of,
    head_of,
    invalid,
    latent_of,
    version_of,
)
from bottlefit_jax.protocol.stubs import config_pb, pb
from bottlefit_jax.serve.batching import Closed, Expired, Inbox, QueueFull, Result, TailFailed
from bottlefit_jax.serve.repository import HeadMissing, Model, NoSuchModel, OtherHead, Repository
from bottlefit_jax.serve.telemetry import Metrics, log

PLATFORMS = {"onnx": ("onnxruntime_onnx", "onnxruntime"), "jax": ("jax_stablehlo", "jax")}
EXTENSIONS = ["model_configuration", "model_repository", "statistics"]
_DESCRIPTOR = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE = _DESCRIPTOR.full_name
METHODS = frozenset(method.name for method in _DESCRIPTOR.methods)  # all of the protocol, ours or not


@dataclass
class Call:
    """One call: when it ends at the latest (time.monotonic()), and what the log shall say of it.

    `caller` says who calls; it takes time, so that it is asked only where a log shows it.
    """

    method: str
    deadline: float
    notes: dict[str, Any]
    model: Model | None = None
    caller: Callable[[], dict[str, str]] = dict


class Protocol:
    """The methods, over a repository.

    Args:
        delay: seconds that a request may wait for others, for ModelConfig.
        may_load: answer the calls that load and unload models.
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
            raise Refused(StatusCode.NOT_FOUND, str(error)) from error

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
            versions=[str(model.manifest.version) for model in self._repository.versions(request.name)],
            platform=PLATFORMS[self._backend][0],
            inputs=[tensor(name=INPUT, datatype="UINT8", shape=[-1, *manifest.latent.shape])],
            outputs=[tensor(name=OUTPUT, datatype="FP32", shape=[-1, manifest.model.num_classes])],
        )

    async def _model_config(self, request: Any, call: Call) -> Message:
        """What export/triton.py writes for NVIDIA Triton; a device reads `head` and `tail` from either."""
        manifest = self._model(request.name, request.version).manifest
        platform, backend = PLATFORMS[self._backend]
        parameters = {"head": manifest.head.id, "tail": manifest.tail.id, "format": str(manifest.format)}
        config = config_pb.ModelConfig(
            name=manifest.name,
            platform=platform,
            backend=backend,
            max_batch_size=self._max_batch,
            input=[
                config_pb.ModelInput(name=INPUT, data_type=config_pb.TYPE_UINT8, dims=manifest.latent.shape),
            ],
            output=[
                config_pb.ModelOutput(name=OUTPUT, data_type=config_pb.TYPE_FP32, dims=[manifest.model.num_classes])
            ],
            dynamic_batching=config_pb.ModelDynamicBatching(max_queue_delay_microseconds=round(self._delay * 1e6)),
            parameters={key: config_pb.ModelParameter(string_value=value) for key, value in parameters.items()},
        )
        return pb.ModelConfigResponse(config=config)

    async def _model_statistics(self, request: Any, call: Call) -> Message:
        """Of all versions, and of all models, where none is named."""
        if request.version:
            models = [self._model(request.name, request.version)]
        elif request.name:
            self._model(request.name, "")
            models = self._repository.versions(request.name)
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
        timings = {"queue_us": result.queue_us, "tail_us": result.tail_us, "batch": result.batch}
        call.notes.update(timings)
        measured = self._metrics.of(manifest.name, manifest.version)
        measured.queue.observe(result.queue_us / 1e6)
        measured.tail.observe(result.tail_us / 1e6)
        ids = {"head": manifest.head.id[:ID_DIGITS], "tail": manifest.tail.id[:ID_DIGITS]}
        return pb.ModelInferResponse(
            model_name=manifest.name,
            model_version=str(manifest.version),
            id=request.id,
            parameters={
                **{key: pb.InferParameter(int64_param=value) for key, value in timings.items()},
                **{key: pb.InferParameter(string_param=value) for key, value in ids.items()},
            },
            outputs=[pb.ModelInferResponse.InferOutputTensor(name=OUTPUT, datatype="FP32", shape=result.logits.shape)],
            raw_output_contents=[result.logits.tobytes()],
        )

    async def _run(self, request: Any, call: Call) -> Result:
        future = self._submit(request, call)
        try:
            return await self._inbox.result(future)  # cancelling this call cancels the future
        except Expired as error:
            raise Refused(StatusCode.DEADLINE_EXCEEDED, "the request would end after its deadline") from error
        except TailFailed as error:
            log("tail failed", level=40, error=str(error), **call.notes)
            raise Refused(StatusCode.INTERNAL, "the tail failed; the server's log says why") from error

    def _submit(self, request: Any, call: Call) -> Future[Result]:
        for _ in range(2):  # once more where a load took its place between `choose` and `submit`
            model = call.model = self._choose(request)
            call.notes.update(model=model.manifest.name, version=model.manifest.version)
            latent = latent_of(request, model.manifest, self._max_batch)
            try:
                return model.batcher.submit(latent, deadline=call.deadline)
            except QueueFull as error:
                message = f"{model.manifest.name} is overloaded, try again later: {error}"
                raise Refused(StatusCode.RESOURCE_EXHAUSTED, message) from error
            except Closed:
                continue
        raise Refused(StatusCode.UNAVAILABLE, f"{request.model_name} is being unloaded")

    def _choose(self, request: Any) -> Model:
        """The model whose tail belongs to the head that made the request's latent."""
        version, head = version_of(request.model_version), head_of(request)
        try:
            return self._repository.choose(request.model_name, version, head)
        except NoSuchModel as error:
            raise Refused(StatusCode.NOT_FOUND, str(error)) from error
        except OtherHead as error:
            raise Refused(StatusCode.FAILED_PRECONDITION, str(error)) from error
        except HeadMissing as error:
            raise invalid(str(error)) from error

    async def _repository_index(self, request: Any, call: Call) -> Message:
        index = await asyncio.to_thread(self._repository.index)
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=known.name,
                    version="" if known.version is None else str(known.version),
                    state="READY" if known.ready else "UNAVAILABLE",
                    reason=known.reason,
                )
                for known in index
                if known.ready or not request.ready
            ]
        )

    async def _load(self, request: Any, call: Call) -> Message:
        call.notes["model"] = request.model_name[:128]
        if request.parameters:
            raise invalid("this server loads what is on its disk, as it is: the request must have no parameters")
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
                "this port does not load or unload models; the one of --repository-port does, on the server's machine",
            )
        if not self.ready:
            raise Refused(StatusCode.UNAVAILABLE, "the server is shutting down")
        before = self._repository.left_out
        try:
            await asyncio.to_thread(change, name)
        except NoSuchModel as error:
            raise Refused(StatusCode.NOT_FOUND, str(error)) from error
        except UserError as error:
            raise Refused(StatusCode.FAILED_PRECONDITION, str(error)) from error
        versions = [model.manifest.version for model in self._repository.models() if model.manifest.name == name]
        fields: dict[str, Any] = {"model": name, "versions": versions, **call.caller()}
        log(event, **fields)
        for folder, error in self._repository.left_out.items():
            if str(error) != str(before.get(folder)):
                log("left out", level=WARNING, folder=str(folder), reason=str(error))
