"""A device, a link and a server in virtual time: hours of a trace in seconds, with the policy that the device has.

The link has a rate that a trace gives, a delay in each direction, and a queue: a byte waits for those before it, as in
`proxy`. The device computes heads in one thread and the local network in another, each in turn.
"""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bottlefit_jax.edge.path import HEAD, LOCAL, P95, Path
from bottlefit_jax.edge.policy import Choice, Policy
from bottlefit_jax.links.trace import Trace

JITTER = 0.05  # standard deviation of the logarithm of a computation's time
REQUEST_BYTES, ANSWER_BYTES = 300.0, 200.0  # of a request beside its payload, and of an answer
DRAWS = 4096  # images after which chance repeats itself
WARM_UP = 3  # computations of each kind that the policy has seen before the first image


@dataclass(frozen=True)
class Times:
    """How long computations take, seconds.

    Attributes:
        head: on the device, from the image to the payload.
        local: the whole network on the device; None where it has none.
        tail: on the server, of one image, with all that the server does.
    """

    head: float
    local: float | None
    tail: float


@dataclass(frozen=True)
class Draw:
    """What chance decides for an image, whatever is chosen: factors of times, and the size in standard deviations."""

    head: float
    local: float
    tail: float
    size: float

    def payload(self, path: Path) -> float:
        """Return the bytes of this image's payload."""
        return max(1.0, path.bytes_mean + self.size * max(path.bytes_p95 - path.bytes_mean, 0.0) / P95)


@dataclass(frozen=True)
class World:
    """What does not depend on the choices.

    Attributes:
        trace: of the link, both directions.
        paths: that there are; the last one is the local network, where the device has it.
        delay: of the link in each direction, seconds.
        times: of computations.
        deadline: of an image, seconds from when it was taken.
        period: seconds from one image to the next; 0: the next is taken when this one is done.
        seconds: that the simulation lasts.
        in_flight: images at most that are not done.
        seed: of what chance decides.
    """

    trace: Trace
    paths: Sequence[Path]
    delay: float
    times: Times
    deadline: float
    period: float = 0.0
    seconds: float = 60.0
    in_flight: int = 16
    seed: int = 0

    @cached_property
    def draws(self) -> list[Draw]:
        """What chance decides; images beyond the last one begin with the first again."""
        chance = random.Random(self.seed)

        def factor() -> float:
            return chance.lognormvariate(0, JITTER)

        return [Draw(factor(), factor(), factor(), chance.gauss(0, 1)) for _ in range(DRAWS)]

    def draw(self, number: int) -> Draw:
        """Return what chance decides for an image."""
        return self.draws[number % len(self.draws)]

    def answered(self, start: float, size: float, tail: float, link_free: float) -> tuple[float, float]:
        """Return when the link is free behind a request, and when its answer is at the device.

        Args:
            start: when it was sent.
            size: of the request.
            tail: seconds on the server.
            link_free: when the link is free before it.
        """
        left = self.trace.arrives(max(start, link_free), size)
        return left, self.trace.arrives(left + self.delay + tail, ANSWER_BYTES) + self.delay


@dataclass
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
    times: list[float] = field(default_factory=list)

    @property
    def in_time(self) -> int:
        """How many images were answered by the deadline."""
        return len(self.times)

    def __add__(self, other: "Outcome") -> "Outcome":
        """Return the outcome of the images of both."""
        return Outcome(
            self.images + other.images,
            self.top1 + other.top1,
            self.sent + other.sent,
            dict(Counter(self.paths) + Counter(other.paths)),
            self.times + other.times,
        )

    def to_json(self) -> dict[str, Any]:
        """Return means and shares: `in_time` and `paths` in percent, `top1` of all images, `bytes` of an image."""
        count = max(self.images, 1)
        return {
            "in_time": 100 * self.in_time / count,
            "top1": self.top1 / count,
            "bytes": self.sent / count,
            "paths": {name: 100 * number / count for name, number in sorted(self.paths.items())},
        }


@dataclass
class Image:
    """An image on its way.

    Attributes:
        number: from 0.
        taken, deadline: seconds.
        draw: what chance decides.
        done: it was answered, or its deadline is over.
        ticket: of its request, as the policy counts them; None where it has none.
        hedge: when the local network has to begin; None where it need not.
    """

    number: int
    taken: float
    deadline: float
    draw: Draw
    done: bool = False
    ticket: int | None = None
    hedge: float | None = None


# the image, the time, the seconds to its deadline, and those until the local network could begin -> a path
Chooser = Callable[[Image, float, float, float], Choice]


class Simulation:
    """One device in a world."""

    def __init__(self, world: World, chooser: Chooser, policy: Policy | None = None):
        """Begin at 0 seconds.

        Args:
            world: that it runs in.
            chooser: of paths.
            policy: that learns what happens.
        """
        self.world, self._chooser, self._policy = world, chooser, policy
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._free = {HEAD: 0.0, LOCAL: 0.0}  # when each of the device's threads is
        self.link_free = 0.0  # when the last byte that was sent has left
        self._newest: Image | None = None  # that waits for a path
        self._open: dict[int, Image] = {}  # that are begun and not done
        self._unanswered: set[int] = set()  # tickets
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Run until all images are done."""
        if self._policy is not None:
            self._warm_up(self._policy)
        self._at(0.0, self._take)
        while self._events:
            now, _, what = heapq.heappop(self._events)
            what(now)
        return self.outcome

    def _at(self, time: float, what: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), what))

    def _warm_up(self, policy: Policy) -> None:
        for number in range(WARM_UP):
            draw, times = self.world.draw(-1 - number), self.world.times
            policy.computed(HEAD, draw.head * times.head, 0.0)
            if times.local is not None:
                policy.computed(LOCAL, draw.local * times.local, 0.0)
        policy.pinged(2 * self.world.delay, 0.0)

    def _take(self, now: float) -> None:
        """Take an image; it replaces one that waits."""
        if now >= self.world.seconds:
            return
        number = self.outcome.images
        self.outcome.images += 1
        self._newest = image = Image(number, now, now + self.world.deadline, self.world.draw(number))
        if self.world.period:
            self._at((number + 1) * self.world.period, self._take)
        else:
            self._at(image.deadline, lambda at: self._end(image, at))
        self._begin(now)

    def _begin(self, now: float) -> None:
        """Begin with the newest image, if the device is free and there is a path."""
        image = self._newest
        if image is None or image.deadline <= now or self._free[HEAD] > now or len(self._open) >= self.world.in_flight:
            return
        choice = self._chooser(image, now, image.deadline - now, max(self._free[LOCAL] - now, 0.0))
        path = choice.path
        if path is None:
            return
        self._newest, self._open[image.number] = None, image
        if self.world.period:
            self._at(image.deadline, lambda at: self._end(image, at))
        if path.work == LOCAL:
            self._run_local(image, path, now)
            return
        if choice.hedge is not None:
            image.hedge = now + choice.hedge
            self._at(image.hedge, lambda at: self._hedge(image, at))
        self._compute(HEAD, image.draw.head * self.world.times.head, now, lambda at: self._send(image, path, at))

    def _compute(self, work: str, seconds: float, now: float, then: Callable[[float], None]) -> None:
        """Compute after all that the thread has to compute already."""
        self._free[work] = max(self._free[work], now) + seconds

        def finish(at: float) -> None:
            if self._policy is not None:
                self._policy.computed(work, seconds, at)
            then(at)
            self._begin(at)

        self._at(self._free[work], finish)

    def _run_local(self, image: Image, path: Path, now: float) -> None:
        """Run the local network, behind those images for which it would come too late after this one."""
        seconds = self.world.times.local
        assert seconds is not None
        for other in self._open.values():
            if other is not image and other.hedge is not None and other.hedge < max(now, self._free[LOCAL]) + seconds:
                self._hedge(other, now)
        image.hedge = None
        self._compute(LOCAL, image.draw.local * seconds, now, lambda at: self._finish(image, path, at))

    def _hedge(self, image: Image, now: float) -> None:
        """Run the local network beside a request that is not answered."""
        if not image.done and image.hedge is not None:
            image.hedge = None
            self._run_local(image, self.world.paths[-1], now)

    def _send(self, image: Image, path: Path, now: float) -> None:
        image.ticket = self._request(path, image.draw, now, lambda at: self._finish(image, path, at))

    def _request(self, path: Path, draw: Draw, now: float, then: Callable[[float], None]) -> int | None:
        """Send a payload. When its answer comes is known already, but the policy learns it only then."""
        payload = draw.payload(path)
        size = payload + REQUEST_BYTES
        self.outcome.sent += size
        policy = self._policy
        ticket = None if policy is None else policy.sent(size, payload, now)
        tail = draw.tail * self.world.times.tail
        self.link_free, arrives = self.world.answered(now, size, tail, self.link_free)
        if ticket is not None:
            self._unanswered.add(ticket)

        def answer(at: float) -> None:
            if policy is not None and ticket is not None:
                self._unanswered.discard(ticket)
                policy.answered(ticket, server=tail, now=at)
            then(at)
            self._begin(at)

        self._at(arrives, answer)
        return ticket

    def _finish(self, image: Image, path: Path, now: float) -> None:
        """Answer an image."""
        if image.done or now > image.deadline:
            return
        self.outcome.top1 += path.top1
        self.outcome.times.append(now - image.taken)
        self.outcome.paths[path.name] = self.outcome.paths.get(path.name, 0) + 1
        self._close(image, now)

    def _end(self, image: Image, now: float) -> None:
        """See at its deadline what is left of an image."""
        if self._policy is not None and image.ticket in self._unanswered:
            self._policy.late(now)
        if not image.done:
            self._close(image, now)

    def _close(self, image: Image, now: float) -> None:
        image.done = True
        self._open.pop(image.number, None)
        if image is self._newest:
            self._newest = None
        self._probe(now)
        if not self.world.period:
            self._at(max(now, self._free[HEAD]), self._take)
        self._begin(now)

    def _probe(self, now: float) -> None:
        if self._policy is not None and self._policy.probe(now):
            smallest = min((path for path in self.world.paths if path.work != LOCAL), key=lambda path: path.bytes_mean)
            self._request(smallest, self.world.draw(0), now, lambda at: None)
