"""The three ways to classify an image of the device: split, local only, and sending it as JPEG."""

import io
import json
import time
from typing import Any, Protocol

import grpc
import numpy as np
import PIL.Image

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.edge.client import EdgeClient
from bottlefit_jax.edge.image import preprocess
from bottlefit_jax.edge.prediction import Prediction
from bottlefit_jax.errors import BottleFitError, ProtocolError, Unavailable
from bottlefit_jax.links.jpeg import METHOD, SERVICE
from bottlefit_jax.links.summary import Sample

# statuses of gRPC for a request that got no answer
_UNANSWERED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class Method(Protocol):
    """A way to classify an image.

    Attributes:
        name: one of summary.METHODS.
    """

    name: str

    def once(self, image: np.ndarray) -> Sample:
        """Classify an image and return what that took.

        Args:
            image: [H, W, 3] uint8 of any size.

        Raises:
            BottleFitError: there was no valid answer in time.
        """
        ...


class Split:
    """The head here, the tail on the server."""

    name = "split"

    def __init__(self, client: EdgeClient):
        self._client = client

    def once(self, image: np.ndarray) -> Sample:
        """Classify an image, as Method says."""
        prediction = self._client.infer(image)
        return Sample(_steps(prediction), prediction.bytes_sent.payload)


class Local:
    """The whole network here, from the bundle's file for local runs."""

    name = "local"

    def __init__(self, client: EdgeClient):
        self._client = client

    def once(self, image: np.ndarray) -> Sample:
        """Classify an image, as Method says."""
        steps = _steps(self._client.infer_local(image))
        return Sample({step: steps[step] for step in ("preprocess", "head", "total")})


class Jpeg:
    """The image is cut to the network's input and sent as JPEG; the server does the rest.

    Its step `head` is the encoding of the JPEG, its step `tail` is all that the server does.

    Attributes:
        hops: for each request, the ms of `tail` between the JPEG server and the edge server.
    """

    name = "jpeg"

    def __init__(self, manifest: Manifest, server: str, *, quality: int, deadline_ms: float):
        self._image, self._quality, self._deadline, self._server = manifest.image, quality, deadline_ms / 1e3, server
        # a proxy of the environment would be another link
        self._channel = grpc.insecure_channel(
            server, options=[("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 1000)]
        )
        self._classify = self._channel.unary_unary(f"/{SERVICE}/{METHOD}")
        self.hops: list[float] = []

    def once(self, image: np.ndarray) -> Sample:
        """Classify an image, as Method says."""
        started = time.perf_counter()
        pixels = preprocess(image, self._image)
        preprocessed = time.perf_counter()
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels).save(buffer, format="JPEG", quality=self._quality)
        data = buffer.getvalue()
        encoded = time.perf_counter()
        try:
            reply: Any = self._classify(data, timeout=self._deadline, wait_for_ready=True)
        except grpc.RpcError as error:
            raise self._error(error) from error
        answered = time.perf_counter()
        server_ms, hop_ms = self._times(reply)
        self.hops.append(hop_ms)
        steps = {
            "preprocess": 1e3 * (preprocessed - started),
            "head": 1e3 * (encoded - preprocessed),
            "network": 1e3 * (answered - encoded) - server_ms,
            "tail": server_ms,
            "total": 1e3 * (answered - started),
        }
        return Sample(steps, len(data))

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def _error(self, error: Any) -> BottleFitError:
        error_class = Unavailable if error.code() in _UNANSWERED else ProtocolError
        details = " ".join(str(error.details()).split())
        return error_class(f"the JPEG server at {self._server}: {error.code().name}, {details}")

    def _times(self, reply: bytes) -> tuple[float, float]:
        """Return the ms on the server, and those of them between it and the edge server."""
        try:
            answer = json.loads(reply)
            return answer["server_us"] / 1e3, answer["hop_us"] / 1e3
        except (ValueError, LookupError, TypeError):
            raise ProtocolError(f"{self._server} is not a JPEG server: it answered {reply[:40]!r}") from None


def _steps(prediction: Prediction) -> dict[str, float]:
    """Return the ms of the steps that are known."""
    timings = prediction.timings
    steps = {
        "preprocess": timings.preprocess,
        "head": timings.head,
        "quantizer": timings.quantizer,
        "encode": timings.encode,
        "network": timings.network,
        "queue": timings.queue,
        "decode": timings.decode,
        "tail": timings.tail,
        "total": timings.total,
    }
    return {step: ms for step, ms in steps.items() if ms is not None}
