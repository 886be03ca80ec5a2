"""The options of a measurement."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bottlefit_jax.edge.options import Security
from bottlefit_jax.links.energy import Watts

RATES, DELAYS = (0.25, 1.0, 5.0, 20.0, 100.0), (5.0, 40.0)


@dataclass(frozen=True)
class BenchOptions(Security):
    """What to measure, and how; the security is that of `server`.

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


@dataclass(frozen=True)
class ReplayOptions:
    """Which traces to replay, and how.

    Attributes:
        bundle: the folder, with rates.
        images: an image, or a folder of images.
        output: folder of the report.
        trace: a CSV file, or a folder of them.
        deadline_ms: of an image, from when it is taken.
        delays: ms in each direction.
        fps: images a second; None takes the next one when the one before is answered or its deadline is over.
        seconds: of each trace; None: once.
        without_local: as if the bundle had no network to run locally.
    """

    bundle: Path
    images: Path
    output: Path
    trace: Path
    deadline_ms: float
    delays: Sequence[float] = (5.0,)
    fps: float | None = None
    seconds: float | None = None
    without_local: bool = False


@dataclass(frozen=True)
class SimulateOptions:
    """What to simulate.

    Attributes:
        bundle: the folder.
        trace: a CSV file, or a folder of them.
        deadline_ms: of an image, from when it is taken.
        delay_ms: of the link, in each direction.
        fps: images a second; None takes the next one when the one before is answered or its deadline is over.
        seconds: of a trace, which repeats at its end; None: once.
        without_local: as if the bundle had no network to run locally.
        device_slower: how many times as long as this machine the device computes.
        head_ms, local_ms, tail_ms: what these take; None is measured here.
        bytes_per_second: that the policy of a device may send; None: as many as the link carries.
    """

    bundle: Path
    trace: Path
    deadline_ms: float
    delay_ms: float = 5.0
    fps: float | None = None
    seconds: float | None = None
    without_local: bool = False
    device_slower: float = 1.0
    head_ms: float | None = None
    local_ms: float | None = None
    tail_ms: float | None = None
    bytes_per_second: float | None = None


@dataclass(frozen=True)
class FleetOptions:
    """Devices and servers to simulate, beside what SimulateOptions says of each device.

    Attributes:
        devices: how many; each has one of the traces, and begins anywhere in it.
        servers: how many; None searches for the smallest number that keeps `goal`.
        goal: percent of all images that shall be answered by the deadline.
        every: seconds between two images of a device, mean; they come at random.
        outage: (first second, last second) in which the first server refuses everything; None: it does not.
        plot: PNG of the servers against what is answered in time; None draws none.
    """

    devices: int
    servers: int | None = None
    goal: float = 99.9
    every: float = 10.0
    outage: tuple[float, float] | None = None
    plot: Path | None = None
