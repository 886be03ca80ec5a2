"""The JPEG method's service: one gRPC method that takes a JPEG file and classifies it.

The network is the bundle's head.tflite, run here, and the tail on the edge server beside it, so that split and JPEG use
the same tail in the same runtime. The method returns JSON: the label's `index`; `server_us`, the microseconds in all;
and `hop_us`, those of them that went by between this server and the tail's.
"""

import io
import json
import time
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import PIL.Image

from bottlefit_jax.bundle.manifest import Image
from bottlefit_jax.edge.client import EdgeClient
from bottlefit_jax.errors import BottleFitError, ProtocolError, Unavailable, UserError

SERVICE, METHOD = "bottlefit.bench.Jpeg", "Classify"
MAX_JPEG_BYTES = 1 << 24


class Classifier:
    """The method: decodes a JPEG of the network's input size and classifies it."""

    def __init__(self, client: EdgeClient):
        self._client = client

    def __call__(self, data: bytes, context: Any) -> bytes:
        """Return the JSON for a JPEG's bytes, or end the call with a status of gRPC."""
        started = time.perf_counter()
        try:
            with PIL.Image.open(io.BytesIO(data), formats=["JPEG"]) as opened:
                image = with_margin(np.asarray(opened.convert("RGB")), self._client.manifest.image)
        except (OSError, ValueError, SyntaxError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a JPEG that can be read: {error}")
        try:
            prediction = self._client.infer(image)
        except BottleFitError as error:
            context.abort(_status_of(error), str(error))
        seconds = time.perf_counter() - started
        hop = round(1e3 * prediction.timings.network)
        answer = {"index": prediction.index, "server_us": round(1e6 * seconds), "hop_us": hop}
        return json.dumps(answer).encode()


def with_margin(image: np.ndarray, target: Image) -> np.ndarray:
    """Add a black margin, so that `preprocess` cuts out `image` to the bit.

    Args:
        image: [target.height, target.width, 3] uint8.
        target: the manifest's `image`.

    Returns:
        [target.resize, target.resize, 3] uint8.

    Raises:
        UserError: the image has another size.
    """
    if image.shape != (target.height, target.width, 3):
        raise UserError(f"the image is {list(image.shape)}; this network takes {[target.height, target.width, 3]}")
    canvas = np.zeros((target.resize, target.resize, 3), np.uint8)
    top, left = round((target.resize - target.height) / 2), round((target.resize - target.width) / 2)
    canvas[top : top + target.height, left : left + target.width] = image
    return canvas


def serve(client: EdgeClient, address: str) -> grpc.Server:
    """Listen on HOST:PORT, for one request at a time, as the measurement sends them.

    Raises:
        UserError: this process cannot listen there.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(1),
        options=[("grpc.max_receive_message_length", MAX_JPEG_BYTES), ("grpc.so_reuseport", 0)],
    )
    method = grpc.unary_unary_rpc_method_handler(Classifier(client))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise UserError(f"cannot listen on {address}: {error}") from error
    server.start()
    return server


def _status_of(error: BottleFitError) -> grpc.StatusCode:
    if isinstance(error, Unavailable):
        return grpc.StatusCode.UNAVAILABLE
    return grpc.StatusCode.INTERNAL if isinstance(error, ProtocolError) else grpc.StatusCode.FAILED_PRECONDITION
