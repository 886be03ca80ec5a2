"""What a user would do instead of splitting: a server that takes a JPEG and runs the whole network.

    python -m bottlefit_jax.links.jpeg_server --bundle BUNDLE --port 8002 --tail localhost:8001 [--host HOST]

The measurement starts it itself; only for a server on another machine (--server) start it there, with the --host that
the device reaches. It has no encryption and asks for no name: end it after the measurement.

The network is the bundle's head.tflite, run here, and the tail on the edge server beside it, so that split and JPEG
have the same tail in the same runtime. One gRPC method takes the file's bytes and returns JSON: the label's `index`,
`server_us` in all, and `hop_us` of it that went by between this server and the tail's.
"""

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image as pillow

from bottlefit_jax.bundle.manifest import Image
from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.edge.client import EdgeClient
from bottlefit_jax.errors import BottleFitError, UserError

SERVICE, METHOD = "bottlefit.bench.Jpeg", "Classify"
LARGEST = 1 << 24  # bytes of one JPEG
DEADLINE_MS = 10_000.0


class Classifier:
    """Decodes a JPEG of the network's input size and classifies it."""

    def __init__(self, client: EdgeClient):
        self._client = client

    def __call__(self, data: bytes, context: Any) -> bytes:
        """The JSON for a JPEG's bytes; an image or a tail that cannot be used is a status of gRPC."""
        began = time.perf_counter()
        try:
            with pillow.open(io.BytesIO(data), formats=["JPEG"]) as opened:
                image = np.asarray(opened.convert("RGB"))
            found = self._client.infer(uncut(image, self._client.manifest.image))
        except BottleFitError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except (OSError, ValueError, SyntaxError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a JPEG that can be read: {error}")
        spent = time.perf_counter() - began
        hop = round(1e3 * found.timings.network)
        return json.dumps({"index": found.index, "server_us": round(1e6 * spent), "hop_us": hop}).encode()


def uncut(image: np.ndarray, wanted: Image) -> np.ndarray:
    """The image with a black margin, uint8 [resize, resize, 3], of which `prepare` cuts out `image` to the bit.

    Args:
        image: uint8 [wanted.height, wanted.width, 3].
        wanted: the manifest's.

    Raises:
        UserError: another size.
    """
    if image.shape != (wanted.height, wanted.width, 3):
        raise UserError(f"the image is {list(image.shape)}; this network takes {[wanted.height, wanted.width, 3]}")
    canvas = np.zeros((wanted.resize, wanted.resize, 3), np.uint8)
    top, left = round((wanted.resize - wanted.height) / 2), round((wanted.resize - wanted.width) / 2)
    canvas[top : top + wanted.height, left : left + wanted.width] = image
    return canvas


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(client: EdgeClient, address: str) -> grpc.Server:
    """Listen on HOST:PORT; a request at a time, as the measurement has one.

    Raises:
        UserError: the address is taken or is not ours.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(1),
        options=[("grpc.max_receive_message_length", LARGEST), ("grpc.so_reuseport", 0)],
    )
    method = grpc.unary_unary_rpc_method_handler(Classifier(client))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise UserError(f"cannot listen on {address}: {error}") from error
    server.start()
    return server


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit code."""
    parser = Parser("bottlefit_jax.links.jpeg_server", __doc__)
    add = parser.add_argument
    add("--bundle", required=True, type=Path, help="the folder that the edge server serves")
    add("--host", default="127.0.0.1", help="to listen on (default: %(default)s)")
    add("--port", required=True, help="to listen on")
    add("--tail", required=True, metavar="HOST:PORT", help="the edge server")
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    try:
        args = parser.parse_args(argv)
        with EdgeClient(args.bundle, args.tail, deadline_ms=DEADLINE_MS, threads=cores()) as client:
            client.connect()
            server = start(client, f"{args.host}:{args.port}")
            print(f"JPEG server on {args.host}:{args.port}", flush=True)
            stop.wait()
            server.stop(1).wait()
    except BottleFitError as error:
        return print_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
