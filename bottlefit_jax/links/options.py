"""The options of a measurement."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bottlefit_jax.links.energy import Watts

RATES, DELAYS = (0.25, 1.0, 5.0, 20.0, 100.0), (5.0, 40.0)


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, and how.

    Attributes:
        bundle: the folder.
        images: an image, or a folder of images.
        output: folder of the report.
        server: HOST:PORT of an edge server on another machine; None starts the servers on this one.
        jpeg_server: HOST:PORT of the JPEG server beside `server`; None measures no JPEG there.
        rates: Mbit/s; unused with `server`, whose link is not shaped.
        delays: ms in each direction; unused with `server`.
        count: images of each row.
        jpeg_quality: 1 to 95, as Pillow has it.
        deadline_ms: of an image, with retries.
        watts: of the device, for a model of the energy; None without.
        shaper: "netem" or "process"; None takes netem where it works.
        device_slower: how many times as long as this machine the device computes; 1 measures and models nothing.
        tls, tls_ca, tls_cert, tls_key: for `server`, as EdgeClient takes them.
        token_file: holds the bearer token for `server`.
    """

    bundle: Path
    images: Path
    output: Path
    server: str | None = None
    jpeg_server: str | None = None
    rates: Sequence[float] = RATES
    delays: Sequence[float] = DELAYS
    count: int = 50
    jpeg_quality: int = 95
    deadline_ms: float = 20_000
    watts: Watts | None = None
    shaper: str | None = None
    device_slower: float = 1.0
    tls: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None
