"""A device, a link and a server in virtual time: hours of a trace in seconds, with the policy that the device has.

The link has a rate that a trace gives, a delay in each direction, and a queue: a byte waits for those before it, as in
`proxy`. The device computes heads in one thread and the local network in another, each in turn.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from bottlefit_jax.edge.attempts import FIRST_DELAY, LONGEST_DELAY, SHORTEST_PART, pause
from bottlefit_jax.edge.budget import Budget
from bottlefit_jax.edge.link_model import PING_EVERY
from bottlefit_jax.edge.options import AUTO_IN_FLIGHT
from bottlefit_jax.edge.path import HEAD, LOCAL, Path
from bottlefit_jax.edge.policy import Choice, Policy
from bottlefit_jax.links.virtual_server import Events, VirtualServer
from bottlefit_jax.links.world import ANSWER_BYTES, PING_BYTES, PONG_BYTES, REQUEST_BYTES, Draw, Outcome, World

MEAN_PART = (1 + SHORTEST_PART) / 2  # of the delay before a further attempt, of which the device takes a random part
WARM_UP = 3  # computations of each kind that the policy has seen before the first image


@dataclass(slots=True, eq=False)
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


@dataclass(slots=True, eq=False)
class Request:
    """A payload on its way, with all its attempts.

    Attributes:
        image, path: which one, and how it is sent.
        size: bytes of an attempt.
        ticket: as of `Image`.
        began, sent: when the first attempt did, and the last one.
        delay: before the next attempt, of which a part is waited, seconds.
    """

    image: Image
    path: Path
    size: float
    ticket: int | None
    began: float
    sent: float
    delay: float = FIRST_DELAY

    def pause(self, now: float, last: float) -> float:
        """Return the seconds to wait before the next attempt; 0 or less where there is no time for one as the last."""
        deadline = self.image.deadline
        return pause(MEAN_PART * self.delay, deadline - now, deadline - self.began, last)


# the image, the time, the seconds to its deadline, and those until the local network could begin -> a path
Chooser = Callable[[Image, float, float, float], Choice]


class Simulation:
    """One device in a world."""

    __slots__ = (
        "_chooser",
        "_events",
        "_head_free",
        "_last_seconds",
        "_local_free",
        "_newest",
        "_open",
        "_pinged",
        "_policy",
        "_server",
        "_smallest",
        "_unanswered",
        "link_free",
        "outcome",
        "world",
    )

    def __init__(
        self,
        world: World,
        chooser: Chooser,
        policy: Policy | None = None,
        *,
        events: Events | None = None,
        server: VirtualServer | None = None,
    ):
        """Begin at 0 seconds.

        Args:
            world: that it runs in.
            chooser: of paths.
            policy: that learns what happens.
            events: of all devices; None: it is alone.
            server: that the device uses; None: one of its own.
        """
        self.world, self._chooser, self._policy = world, chooser, policy
        self._events = Events() if events is None else events
        self._server = VirtualServer(self._events, world.times.batch) if server is None else server
        self._smallest = min(
            (path for path in world.paths if path.work != LOCAL), key=lambda path: path.bytes_mean, default=None
        )
        self._head_free = self._local_free = 0.0  # when each of the device's threads is
        self.link_free = 0.0  # when the last byte that was sent has left
        self._last_seconds = 0.0  # that the last answer took
        self._pinged = 0.0  # when the link's delay was last measured
        self._newest: Image | None = None  # that waits for a path
        self._open: dict[int, Image] = {}  # that are begun and not done
        self._unanswered: set[int] = set()  # tickets
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Run until all images are done; for a device that is alone."""
        self.start()
        self._events.run()
        return self.outcome

    def start(self, at: float = 0.0) -> None:
        """Plan the first image."""
        if self._policy is not None:
            self._warm_up(self._policy)
        self._events.at(at, self._take)

    def _warm_up(self, policy: Policy) -> None:
        for number in range(WARM_UP):
            draw, times = self.world.draw(-1 - number), self.world.times
            policy.computed(HEAD, draw.head * times.head, 0.0)
            if times.local is not None:
                policy.computed(LOCAL, draw.local * times.local, 0.0)
        policy.pinged(2 * self.world.delay, 0.0)

    def _take(self, now: float) -> None:
        """Take an image; it replaces one that waits."""
        world, outcome = self.world, self.outcome
        if now >= world.seconds:
            return
        number = outcome.images
        outcome.images += 1
        self._newest = image = Image(number, now, now + world.deadline, world.draw(number))
        if world.irregular:
            self._events.at(now + image.draw.gap * world.period, self._take)
        elif world.period:
            self._events.at((number + 1) * world.period, self._take)
        else:
            self._events.at(image.deadline, partial(self._end, image))
        self._begin(now)

    def _begin(self, now: float) -> None:
        """Begin with the newest image, if the device is free and there is a path."""
        image = self._newest
        if image is None or image.deadline <= now or self._head_free > now:
            return
        world = self.world
        if len(self._open) >= world.in_flight:
            return
        self._ping(now)
        begins = self._local_free - now if self._local_free > now else 0.0
        path, _, _, _, hedge = self._chooser(image, now, image.deadline - now, begins)
        if path is None:
            return
        self._newest, self._open[image.number] = None, image
        if world.period:
            self._events.at(image.deadline, partial(self._end, image))
        if path.work == LOCAL:
            self._run_local(image, path, now)
            return
        if hedge is not None:
            image.hedge = now + hedge
            self._events.at(image.hedge, partial(self._hedge, image))
        seconds = image.draw.head * world.times.head
        self._head_free = now + seconds
        self._events.at(self._head_free, partial(self._send, image, path, seconds))

    def _run_local(self, image: Image, path: Path, now: float) -> None:
        """Run the local network, behind those older images for which it would come too late after this one."""
        seconds = self.world.times.local
        assert seconds is not None
        for other in self._open.values():
            if other.hedge is None or other.deadline >= image.deadline:
                continue
            if other.hedge < max(now, self._local_free) + seconds:
                self._hedge(other, now)
        image.hedge = None
        seconds *= image.draw.local
        self._local_free = max(self._local_free, now) + seconds
        self._events.at(self._local_free, partial(self._local_ended, image, path, seconds))

    def _local_ended(self, image: Image, path: Path, seconds: float, now: float) -> None:
        if self._policy is not None:
            self._policy.computed(LOCAL, seconds, now)
        self._finish(image, path, now)
        self._begin(now)

    def _hedge(self, image: Image, now: float) -> None:
        """Run the local network beside a request that is not answered."""
        if not image.done and image.hedge is not None:
            image.hedge = None
            self._run_local(image, self.world.paths[-1], now)

    def _send(self, image: Image, path: Path, seconds: float, now: float) -> None:
        """Send what the head has made of an image in so many seconds."""
        if self._policy is not None:
            self._policy.computed(HEAD, seconds, now)
        image.ticket = self._request(image, path, now)
        self._begin(now)

    def _request(self, image: Image, path: Path, now: float) -> int | None:
        """Send a payload, again where it is refused, and let the policy learn what comes of it."""
        payload, policy = image.draw.payload(path), self._policy
        size = payload + REQUEST_BYTES
        ticket = None if policy is None else policy.sent(size, payload, now)
        if ticket is not None:
            self._unanswered.add(ticket)
        self._attempt(Request(image, path, size, ticket, now, now), now)
        return ticket

    def _attempt(self, request: Request, now: float) -> None:
        request.sent, left = now, max(request.image.deadline - now, 0.0)
        self._events.at(self._sent(request.size, now), partial(self._arrive, request, left))

    def _arrive(self, request: Request, left: float, now: float) -> None:
        """Hand a request to the server, and the seconds that were left of the deadline when it was sent."""
        done = partial(self._leave, request)
        self._server.submit(now, deadline=now + left, factor=request.image.draw.tail, done=done)

    def _leave(self, request: Request, now: float, seconds: float | None) -> None:
        """Send the server's answer back, or its refusal."""
        arrives = self.world.trace.arrives(now, ANSWER_BYTES) + self.world.delay
        self._events.at(arrives, partial(self._answer, request, seconds))

    def _answer(self, request: Request, seconds: float | None, now: float) -> None:
        """Take in an answer, for which the server took so many seconds, or a refusal."""
        policy, ticket = self._policy, request.ticket
        if seconds is None and (wait := request.pause(now, self._last_seconds)) > 0:
            request.delay = min(2 * request.delay, LONGEST_DELAY)
            self._events.at(now + wait, partial(self._attempt, request))
            return
        if policy is not None and ticket is not None:
            counted = ticket in self._unanswered
            self._unanswered.discard(ticket)
            if seconds is not None:
                policy.answered(ticket, server=seconds, now=now)
            elif counted:
                policy.failed(ticket, now)
            else:
                policy.forget(ticket)
        if seconds is not None:
            self._last_seconds = now - request.sent
            self._finish(request.image, request.path, now)
        self._begin(now)

    def _sent(self, size: float, now: float) -> float:
        """Put bytes on the link, behind those that are there, and return when the last one is at the other end."""
        self.outcome.sent += size
        self.link_free = self.world.trace.arrives(max(now, self.link_free), size)
        return self.link_free + self.world.delay

    def _ping(self, now: float) -> None:
        """Measure the link's delay, where that was long ago."""
        policy = self._policy
        if policy is None or now - self._pinged <= PING_EVERY:
            return
        self._pinged = now
        arrives = self.world.trace.arrives(self._sent(PING_BYTES, now), PONG_BYTES) + self.world.delay
        self._events.at(arrives, lambda at: policy.pinged(at - now, at))

    def _finish(self, image: Image, path: Path, now: float) -> None:
        """Answer an image."""
        if image.done or now > image.deadline:
            return
        outcome = self.outcome
        outcome.top1 += path.top1
        outcome.times.append(now - image.taken)
        outcome.paths[path.name] = outcome.paths.get(path.name, 0) + 1
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
            self._events.at(max(now, self._head_free), self._take)
        self._begin(now)

    def _probe(self, now: float) -> None:
        if self._policy is not None and self._policy.probe(now):
            assert self._smallest is not None
            probe = Image(-1, now, now + self.world.deadline, self.world.draw(0), done=True)  # no image waits for it
            self._request(probe, self._smallest, now)


def with_policy(
    world: World,
    bytes_per_second: float | None,
    *,
    events: Events | None = None,
    server: VirtualServer | None = None,
) -> Simulation:
    """Return a device whose paths the policy chooses.

    Args:
        world: that it runs in.
        bytes_per_second: that the policy may send; None: as many as the link carries.
        events: as of `Simulation`.
        server: as of `Simulation`.
    """
    world = replace(world, in_flight=AUTO_IN_FLIGHT)
    policy = Policy(world.paths, budget=None if bytes_per_second is None else Budget(bytes_per_second))
    policy.paced = world.period > 0

    def choose(_: Image, now: float, left: float, local_begins: float) -> Choice:
        return policy.choose(now, left, local_begins)

    return Simulation(world, choose, policy, events=events, server=server)
