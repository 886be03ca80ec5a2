"""The world of a simulated device: its link, the times of computations, chance; and what becomes of its images."""

import functools
import random
from array import array
from collections import Counter
from collections.abc import Iterable, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bottlefit_jax.edge.options import IN_FLIGHT
from bottlefit_jax.edge.path import P95, Path

JITTER = 0.05  # standard deviation of the logarithm of a computation's time
REQUEST_BYTES, ANSWER_BYTES = 225.0, 350.0  # of a request beside its payload, and of an answer, counted on TCP
PING_BYTES, PONG_BYTES = 75.0, 65.0  # of a message without content, there and back
DRAWS = 4096  # images after which chance repeats itself


@dataclass(frozen=True, slots=True)
class Times:
    """How long computations take, seconds.

    Attributes:
        head: on the device, from the image to the payload.
        local: the whole network on the device; None where it has none.
        tail: on the server, of one image, with all that the server does.
        more: on the server, of each further image of a batch; None: as the first.
    """

    head: float
    local: float | None
    tail: float
    more: float | None = None

    def batch(self, images: int) -> float:
        """Return how long the server takes for a batch."""
        return self.tail + (images - 1) * (self.tail if self.more is None else self.more)


@dataclass(frozen=True, slots=True)
class Draw:
    """What chance decides for an image, whatever is chosen: factors of times, and the size in standard deviations.

    `gap` is the time to the next image where these come irregularly, in units of its mean.
    """

    head: float
    local: float
    tail: float
    size: float
    gap: float

    def payload(self, path: Path) -> float:
        """Return the bytes of this image's payload."""
        return max(1.0, path.bytes_mean + self.size * max(path.bytes_p95 - path.bytes_mean, 0.0) / P95)


class Carrier(Protocol):
    """A link in one direction, as a Trace is."""

    def arrives(self, start: float, size: float) -> float:
        """Return when the last byte has left that was put on an empty link."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """What does not depend on the choices.

    Attributes:
        trace: of the link, both directions.
        paths: that there are; the last one is the local network, where the device has it.
        delay: of the link in each direction, seconds.
        times: of computations.
        deadline: of an image, seconds from when it was taken.
        period: seconds from one image to the next; 0: the next is taken when this one is done.
        irregular: these seconds are a mean, and the images of a Poisson process.
        seconds: that the simulation lasts.
        in_flight: images at most that are not done.
        seed: of what chance decides.
        first: image of the draws with which it begins.
    """

    trace: Carrier
    paths: Sequence[Path]
    delay: float
    times: Times
    deadline: float
    period: float = 0.0
    irregular: bool = False
    seconds: float = 60.0
    in_flight: int = IN_FLIGHT
    seed: int = 0
    first: int = 0

    def draw(self, number: int) -> Draw:
        """Return what chance decides for an image; those beyond the last one begin with the first again."""
        return draws(self.seed)[(self.first + number) % DRAWS]

    def answered(self, start: float, size: float, tail: float) -> tuple[float, float]:
        """Return when the link is free behind a request, and when its answer is at the device.

        Args:
            start: when it was sent, or when the link was free for it.
            size: of the request.
            tail: seconds on the server.
        """
        left = self.trace.arrives(start, size)
        return left, self.trace.arrives(left + self.delay + tail, ANSWER_BYTES) + self.delay


@dataclass(slots=True)
class Outcome:
    """What became of the images.

    Attributes:
        images: that were taken.
        top1: sum of the top-1 of the paths that answered by the deadline, percent.
        sent: bytes of all requests.
        paths: how many images each path answered by the deadline.
        times: seconds of each of these.
    """

    images: int = 0
    top1: float = 0.0
    sent: float = 0.0
    paths: dict[str, int] = field(default_factory=dict)
    times: MutableSequence[float] = field(default_factory=lambda: array("d"))

    @property
    def in_time(self) -> int:
        """How many images were answered by the deadline."""
        return len(self.times)

    @property
    def percent_in_time(self) -> float:
        """The share of images that were answered by the deadline."""
        return 100 * self.in_time / max(self.images, 1)

    @classmethod
    def of_all(cls, outcomes: Iterable["Outcome"]) -> "Outcome":
        """Return the outcome of the images of all of them."""
        whole, paths = cls(), Counter[str]()
        for each in outcomes:
            whole.images += each.images
            whole.top1 += each.top1
            whole.sent += each.sent
            whole.times.extend(each.times)
            paths.update(each.paths)
        whole.paths = dict(paths)
        return whole

    def to_json(self) -> dict[str, Any]:
        """Return means and shares: `in_time` and `paths` in percent, `top1` of all images, `bytes` of an image."""
        count = max(self.images, 1)
        return {
            "in_time": self.percent_in_time,
            "top1": self.top1 / count,
            "bytes": self.sent / count,
            "paths": {name: 100 * number / count for name, number in sorted(self.paths.items())},
        }


@functools.cache
def draws(seed: int) -> list[Draw]:
    """Return what chance decides for DRAWS images."""
    chance = random.Random(seed)

    def factor() -> float:
        return chance.lognormvariate(0, JITTER)

    return [Draw(factor(), factor(), factor(), chance.gauss(0, 1), chance.expovariate(1)) for _ in range(DRAWS)]
