"""The methods of the Open Inference Protocol v2 as functions from message to message.

Each raises `Refused` for what becomes the call's status. `grpc_server.py` puts them behind sockets.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from grpc import StatusCode

from bottlefit_jax import __version__
from bottlefit_jax.errors import UserError
from bottlefit_jax.serve.batching import Closed, Expired, Inbox, QueueFull, Result, TailFailed
from bottlefit_jax.serve.checks import INPUT, OUTPUT, Refused, invalid, latent_of, version_of
from bottlefit_jax.serve.messages import config_pb, pb
from bottlefit_jax.serve.repository import Model, NoSuchModel, Repository
from bottlefit_jax.serve.telemetry import Metrics, log

PLATFORMS = {"onnx": ("onnxruntime_onnx", "onnxruntime"), "jax": ("jax_stablehlo", "jax")}
SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name


@dataclass
class Call:
    """One call: when it ends at the latest (time.monotonic()), and what the log shall say of it."""

    method: str
    deadline: float
    notes: dict[str, Any]
    model: Model | None = None


class Protocol:
    """The methods, over a repository.

    Args:
      delay: seconds that a request may wait for others, for ModelConfig.
    """

    def __init__(self, repository: Repository, *, backend: str, max_batch: int, delay: float, metrics: Metrics):
        self._repository, self._backend, self._max_batch, self._delay = repository, backend, max_batch, delay
        self._metrics, self._inbox = metrics, Inbox()
        self.ready = True
        self.methods: dict[str, tuple[type[Message], Callable[[Any, Call], Awaitable[Message]]]] = {
            "ServerLive": (pb.ServerLiveRequest, self._server_live),
            "ServerReady": (pb.ServerReadyRequest, self._server_ready),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, self._model_metadata),
            "ModelConfig": (pb.ModelConfigRequest, self._model_config),
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
        return pb.ServerMetadataResponse(name="bottlefit-jax", version=__version__, extensions=["model_repository"])

    async def _model_metadata(self, request: Any, call: Call) -> Message:
        manifest = self._model(request.name, request.version).manifest
        tensor = pb.ModelMetadataResponse.TensorMetadata
        loaded = [model.manifest for model in self._repository.models()]
        return pb.ModelMetadataResponse(
            name=manifest.name,
            versions=[str(one.version) for one in loaded if one.name == manifest.name],
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

    async def _model_infer(self, request: Any, call: Call) -> Message:
        if not self.ready:
            raise Refused(StatusCode.UNAVAILABLE, "the server is shutting down")
        call.notes["request"] = request.id[:128] or call.notes["request"]
        future = self._submit(request, call)
        try:
            result = await self._inbox.result(future)  # cancelling this call cancels the future
        except Expired as error:
            raise Refused(StatusCode.DEADLINE_EXCEEDED, "the request would end after its deadline") from error
        except TailFailed as error:
            log("tail failed", level=40, error=str(error), **call.notes)
            raise Refused(StatusCode.INTERNAL, "the tail failed; the server's log says why") from error
        assert call.model is not None
        manifest = call.model.manifest
        timings = {"queue_us": result.queue_us, "tail_us": result.tail_us, "batch": result.batch}
        call.notes.update(timings)
        measured = self._metrics.of(manifest.name, manifest.version)
        measured.queue.observe(result.queue_us / 1e6)
        measured.tail.observe(result.tail_us / 1e6)
        return pb.ModelInferResponse(
            model_name=manifest.name,
            model_version=str(manifest.version),
            id=request.id,
            parameters={key: pb.InferParameter(int64_param=value) for key, value in timings.items()},
            outputs=[pb.ModelInferResponse.InferOutputTensor(name=OUTPUT, datatype="FP32", shape=result.logits.shape)],
            raw_output_contents=[result.logits.tobytes()],
        )

    def _submit(self, request: Any, call: Call) -> Future[Result]:
        for _ in range(2):  # once more where a load took its place between `get` and `submit`
            model = call.model = self._model(request.model_name, request.model_version)
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
        await self._change(self._repository.load, request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, request: Any, call: Call) -> Message:
        call.notes["model"] = request.model_name[:128]
        await self._change(self._repository.unload, request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def _change(self, change: Callable[[str], None], name: str) -> None:
        if not self.ready:
            raise Refused(StatusCode.UNAVAILABLE, "the server is shutting down")
        try:
            await asyncio.to_thread(change, name)
        except NoSuchModel as error:
            raise Refused(StatusCode.NOT_FOUND, str(error)) from error
        except UserError as error:
            raise Refused(StatusCode.FAILED_PRECONDITION, str(error)) from error
