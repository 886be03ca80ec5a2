"""The device: it runs the head and asks a server for the rest. Nothing here imports JAX.

from bottlefit_jax.edge import EdgeClient

with EdgeClient("bundles/digits", "localhost:8001") as client:
    print(client.infer("image.jpg").label)
"""

import os
from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.edge.client import EdgeClient, ImageError, ProtocolError, Unavailable
    from bottlefit_jax.edge.prediction import BytesSent, Prediction, Timings
    from bottlefit_jax.edge.runtimes.litert import Interpreter
    from bottlefit_jax.edge.stream import Result

# gRPC's default resolver asks DNS servers only and does not find mDNS names such as raspberrypi.local. No channel
# option selects the resolver: gRPC reads this variable once, when it is imported. A value that is set stays.
os.environ.setdefault("GRPC_DNS_RESOLVER", "native")

__all__ = [
    "BytesSent",
    "EdgeClient",
    "ImageError",
    "Interpreter",
    "Prediction",
    "ProtocolError",
    "Result",
    "Timings",
    "Unavailable",
]

__getattr__ = exports(
    __name__,
    {
        "client": ("EdgeClient", "ImageError", "ProtocolError", "Unavailable"),
        "runtimes.litert": ("Interpreter",),
        "prediction": ("BytesSent", "Prediction", "Timings"),
        "stream": ("Result",),
    },
)
