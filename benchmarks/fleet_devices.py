"""Some of the devices of benchmarks/fleet.py, in a process of their own: each a real client behind a link of its own.

    python -m benchmarks.fleet_devices JSON

JSON is a `Setting`. It prints "ready" when all its devices are connected, reads the time at which the fleet begins from
standard input, and prints what became of all images as one line of JSON.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.edge import EdgeClient
from bottlefit_jax.edge.prediction import Prediction
from bottlefit_jax.errors import BottleFitError, Unavailable
from bottlefit_jax.links.fleet import Device, devices_of
from bottlefit_jax.links.inputs import read_images
from bottlefit_jax.links.options import FleetOptions
from bottlefit_jax.links.proxy import ProcessLink
from bottlefit_jax.links.trace import read_traces
from bottlefit_jax.links.world import DRAWS, draws

IN_FLIGHT = 8  # as World has it
CONNECT_SECONDS, LEAST_MBIT = 20.0, 0.1  # for the first connection of a device, and of the link meanwhile


@dataclass(frozen=True)
class Setting:
    """What a process of devices has to know.

    Attributes:
        bundle, images, traces: folders.
        port: of the server, on loopback.
        numbers: of the devices in this process.
        devices, every: of the fleet, as FleetOptions has them.
        deadline_ms, delay_ms, seconds: as SimulateOptions has them.
        local_ms: that the local network takes at least; None where the devices have none.
    """

    bundle: str
    images: str
    traces: str
    port: int
    numbers: Sequence[int]
    devices: int
    every: float
    deadline_ms: float
    delay_ms: float
    seconds: float
    local_ms: float | None

    def to_json(self) -> str:
        """Return the values as one word."""
        return json.dumps(asdict(self))


class SlowNetwork:
    """A network that takes as long as is asked: a sleep fills the rest of the time."""

    def __init__(self, network: Any, seconds: float):
        """Keep a network with a method `run`, and the seconds that it shall take."""
        self._network, self._seconds = network, seconds

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """Run it and sleep."""
        began = time.monotonic()
        result = self._network.run(pixels)
        time.sleep(max(began + self._seconds - time.monotonic(), 0.0))
        return result


class SlowDevice(EdgeClient):
    """A client whose local network is as slow as a small device's."""

    local_seconds = 0.0

    def _local_network(self) -> Any:
        return SlowNetwork(super()._local_network(), self.local_seconds)


def device_class(local_ms: float | None) -> type[EdgeClient]:
    """Return the class of clients whose local network takes so many ms."""
    return type("SlowDevice", (SlowDevice,), {"local_seconds": (local_ms or 0.0) / 1e3})


class Client:
    """A device: a client, its link, and what became of its images."""

    def __init__(self, setting: Setting, device: Device, images: Sequence[np.ndarray]):
        """Connect over a link that has about the rate of the trace at its beginning, and send no image yet."""
        self._setting, self._device, self._images = setting, device, images
        self._taken, self._sent, self._late = 0, 0, 0.0
        self._answers: list[dict[str, Any]] = []
        self._error: str | None = None
        self._link = ProcessLink()
        self._link.shape(max(device.trace.rate(device.passed), LEAST_MBIT), setting.delay_ms)
        host, port = self._link.through(setting.port)
        self._client = device_class(setting.local_ms)(
            setting.bundle,
            f"{host}:{port}",
            deadline_ms=setting.deadline_ms,
            policy="auto",
            local=setting.local_ms is not None,
        )
        self._connect(time.monotonic() + CONNECT_SECONDS)

    def run(self, begins: float) -> None:
        """Classify images from a time of time.monotonic on, and close everything."""
        try:
            time.sleep(max(begins - time.monotonic(), 0.0))
            self._link.follow(self._device.link, self._setting.delay_ms)
            before = self._link.sent()
            for result in self._client.stream(self._frames(begins), in_flight=IN_FLIGHT, drop=True):
                answer: dict[str, Any] = {"seconds": time.time() - result.taken, "path": None}
                if result.prediction is not None:
                    answer |= described(result.prediction)
                self._answers.append(answer)
            time.sleep(max(begins + self._setting.seconds - time.monotonic(), 0.0))
            self._sent = self._link.sent() - before
        except BottleFitError as error:
            self._error = " ".join(str(error).split())
        finally:
            self._client.close()
            self._link.close()

    def _connect(self, until: float) -> None:
        """Connect, however often a short deadline is over before that."""
        while True:
            try:
                return self._client.connect()
            except Unavailable:
                if time.monotonic() > until:
                    raise

    def result(self) -> dict[str, Any]:
        """Return what became of the images: {"images", "sent", "answers", "late", "error"}."""
        return {
            "images": self._taken,
            "sent": self._sent,
            "answers": self._answers,
            "late": self._late,
            "error": self._error,
        }

    def _frames(self, begins: float) -> Iterator[np.ndarray]:
        """Yield images when the simulation takes them: the same draws of chance say when."""
        device, setting = self._device, self._setting
        due = device.begins
        while due < setting.seconds:
            time.sleep(max(begins + due - time.monotonic(), 0.0))
            self._late = max(self._late, time.monotonic() - begins - due)
            number, self._taken = self._taken, self._taken + 1
            due += setting.every * draws(0)[(device.first + number) % DRAWS].gap
            yield self._images[(device.first + number) % len(self._images)]


def described(prediction: Prediction) -> dict[str, Any]:
    """Return the path of an answer, and its times in milliseconds."""
    timings = prediction.timings
    return {
        "path": prediction.route.path,
        "head": timings.preprocess + timings.head + timings.encode,
        "network": timings.network,
        "queue": timings.queue,
        "decode": timings.decode,
        "tail": timings.tail,
        "bytes": prediction.bytes_sent.total,
        "payload": prediction.bytes_sent.payload,
    }


def main() -> int:
    """Run the devices of the command line's JSON and print their results."""
    setting = Setting(**json.loads(sys.argv[1]))
    images = read_images(Path(setting.images))
    fleet = devices_of(FleetOptions(setting.devices, every=setting.every), read_traces(Path(setting.traces)))
    clients = [Client(setting, fleet[number], images) for number in setting.numbers]
    print("ready", flush=True)
    begins = float(sys.stdin.readline())
    threads = [threading.Thread(target=client.run, args=(begins,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps([client.result() for client in clients]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
