"""The three ways of classifying an image on the device: split, local only, and sending it as JPEG."""

import io
import json
import time
from typing import Any, Protocol

import grpc
import numpy as np
from PIL import Image as pillow

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.edge.client import EdgeClient, Prediction
from bottlefit_jax.edge.image import prepare
from bottlefit_jax.errors import UserError
from bottlefit_jax.links.jpeg_server import METHOD, SERVICE
from bottlefit_jax.links.summary import Sample


class Method(Protocol):
    """One way. `name` is of summary.METHODS."""

    name: str

    def once(self, image: np.ndarray) -> Sample:
        """Classifies a pixels, uint8 [H, W, 3] of any size; a UserError says why it did not work in time."""
        ...


class Split:
    """The head here, the tail on the server."""

    name = "split"

    def __init__(self, client: EdgeClient):
        self._client = client

    def once(self, image: np.ndarray) -> Sample:
        """As Method."""
        found = self._client.infer(image)
        return Sample(_steps(found), found.bytes_sent.latent)


class Local:
    """The whole network here, from the bundle's local file."""

    name = "local"

    def __init__(self, client: EdgeClient):
        self._client = client

    def once(self, image: np.ndarray) -> Sample:
        """As Method."""
        steps = _steps(self._client.infer_local(image))
        return Sample({step: steps[step] for step in ("prepare", "head", "total")})


class Jpeg:
    """The image, cut to the network's input, is sent as JPEG; the server does the rest.

    `head` is making the JPEG, `tail` all that the server does.

    Attributes:
        hops: ms of `tail` that every request spent between the JPEG server and the tail's.
    """

    name = "jpeg"

    def __init__(self, manifest: Manifest, server: str, *, quality: int, deadline_ms: float):
        self._image, self._quality, self._deadline, self._server = manifest.image, quality, deadline_ms / 1e3, server
        # a proxy of the environment would be a link of its own
        self._channel = grpc.insecure_channel(
            server, options=[("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 1000)]
        )
        self._classify = self._channel.unary_unary(f"/{SERVICE}/{METHOD}")
        self.hops: list[float] = []

    def once(self, image: np.ndarray) -> Sample:
        """As Method."""
        began = time.perf_counter()
        pixels = prepare(image, self._image)
        prepared = time.perf_counter()
        buffer = io.BytesIO()
        pillow.fromarray(pixels).save(buffer, format="JPEG", quality=self._quality)
        data = buffer.getvalue()
        encoded = time.perf_counter()
        try:
            reply: Any = self._classify(data, timeout=self._deadline, wait_for_ready=True)
        except grpc.RpcError as error:
            raise UserError(f"the JPEG server at {self._server}: {_status(error)}") from error
        answered = time.perf_counter()
        told = json.loads(reply)
        self.hops.append(told["hop_us"] / 1e3)
        steps = {
            "prepare": prepared - began,
            "head": encoded - prepared,
            "network": answered - encoded - told["server_us"] / 1e6,
            "tail": told["server_us"] / 1e6,
            "total": answered - began,
        }
        return Sample({step: 1e3 * seconds for step, seconds in steps.items()}, len(data))

    def close(self) -> None:
        """End the connection."""
        self._channel.close()


def _steps(found: Prediction) -> dict[str, float]:
    """Milliseconds of the steps that are known."""
    timings = found.timings
    known = {
        "prepare": timings.prepare,
        "head": timings.head,
        "quantizer": timings.quantizer,
        "network": timings.network,
        "queue": timings.queue,
        "tail": timings.tail,
        "total": timings.total,
    }
    return {step: ms for step, ms in known.items() if ms is not None}


def _status(error: Any) -> str:
    """A status of gRPC as one line."""
    return f"{error.code().name}, {' '.join(str(error.details()).split())}"
