"""What a device knows of its link: a delay, a rate that drifts, and the requests that are on their way.

A transfer takes a fixed delay, which a ping shows, and the time of its bytes, behind those that were sent before. Only
what the device sees itself counts: when requests left and when their answers came. Times are seconds, passed in.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from bottlefit_jax.edge.estimate import Drifting, LogNormal
from bottlefit_jax.edge.path import Path

GUESSED_RATE = 125_000.0  # bytes per second: 1 Mbit/s
OVERHEAD, OVERHEAD_WEIGHT = 300.0, 0.2  # bytes of a request beside its payload at first; of the newest in their mean
PING_EVERY = 10.0  # seconds between two measurements of the delay, at least
DELAY_KEPT = 60.0  # seconds in which the shortest ping counts as the link's delay
LASTS = 1.5  # what has taken longer than expected is expected to take so many times as long as it has until now


class _Request(NamedTuple):
    sent: float
    size: float


class LinkModel:
    """Follows a link by what it carries.

    Attributes:
        delay: seconds there and back of a message without content.
    """

    __slots__ = ("_free", "_last_ticket", "_overhead", "_pings", "_requests", "_slowness", "delay")

    def __init__(self) -> None:
        """Begin with a guess: 1 Mbit/s, no delay."""
        self._slowness = Drifting(1 / GUESSED_RATE, unsure=1.5, walk=0.4, noise=0.15)  # seconds per byte
        self._overhead = OVERHEAD
        self._pings: list[tuple[float, float]] = []  # seconds and time, the newest first
        self.delay = 0.0
        self._last_ticket = -1
        self._requests: dict[int, _Request] = {}  # without an answer, in the order of sending
        self._free = -math.inf  # when the last request that was answered had left the link

    @property
    def is_busy(self) -> bool:
        """Whether a request has no answer yet."""
        return bool(self._requests)

    def pinged(self, seconds: float, now: float) -> None:
        """Take in how long a message without content took, there and back."""
        self._pings = [(seconds, now), *((s, at) for s, at in self._pings if now - at < DELAY_KEPT and s < seconds)]
        self.delay = min(self._pings)[0]

    def sent(self, size: float, payload: float, now: float) -> int:
        """Take in that a request has left.

        Args:
            size: bytes on the link, all of them.
            payload: of these, the payload.
            now: the time.

        Returns:
            A ticket for `answered` or `failed`.
        """
        self._overhead += OVERHEAD_WEIGHT * (size - payload - self._overhead)
        self._last_ticket += 1
        self._requests[self._last_ticket] = _Request(now, size)
        return self._last_ticket

    def answered(self, ticket: int, server: float, now: float) -> None:
        """Take in an answer, in time or late.

        Args:
            ticket: of the request.
            server: seconds that the server took.
            now: the time.
        """
        sent, size = self._requests.pop(ticket)
        left = now - server - self.delay
        self._slowness.observe(max(left - max(sent, self._free), 0.0) / size, now)
        self._free = max(self._free, left)

    def failed(self, ticket: int) -> None:
        """Take in that a request will never be answered."""
        self._requests.pop(ticket, None)

    def waiting(self, now: float) -> float:
        """Return how many seconds from `now` on the link needs for what it carries, median."""
        if not self._requests:
            return 0.0
        sent, size = next(iter(self._requests.values()))
        began = sent if sent > self._free else self._free
        lasted = now - began - self.delay
        needed = size * self._slowness.median
        if lasted > needed:  # why, and for how long still, is unknown
            needed = LASTS * lasted
        left = needed - (now - began) if now > began else needed
        behind = sum([each.size for each in self._requests.values()]) - size
        return (left if left > 0 else 0.0) + behind * needed / size

    def expected(self, now: float) -> "Transfers":
        """Return what is expected of the link, `now` being the time."""
        return Transfers(self._slowness.expected(now), self._slowness.median, self._overhead)


@dataclass(slots=True)
class Transfers:
    """What is expected of a link at some time.

    Attributes:
        slowness: seconds per byte.
        median: of it.
        overhead: bytes of a request beside its payload.
    """

    slowness: LogNormal
    median: float
    overhead: float

    def of(self, path: Path, waiting: float = 0.0) -> LogNormal:
        """Return how long the link takes for a payload of a path, without the delay.

        Args:
            path: of the payload.
            waiting: seconds for which it carries other requests first.
        """
        return self.slowness.times(path.bytes_mean + self.overhead + waiting / self.median, path.varied)
