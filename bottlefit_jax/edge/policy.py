"""Which path an image takes: the one of which the highest accuracy can be expected within the deadline.

The policy has no socket, no thread and no clock of its own: the client, or a simulation, tells it what happened and
when, and asks. All times are seconds.

    policy = Policy(paths_of(manifest, local=True))
    choice = policy.choose(now, left=0.1)                # a path, and when to begin the local network beside it
    ticket = policy.sent(size, payload, now)             # what the link carries is known to all later choices
    policy.answered(ticket, server=0.004, now=now)       # or failed(ticket, now); a late answer is an answer, too
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from bottlefit_jax.edge.budget import Budget
from bottlefit_jax.edge.estimate import Drifting, LogNormal, Moments
from bottlefit_jax.edge.link_model import LinkModel
from bottlefit_jax.edge.outlook import Option, Outlook
from bottlefit_jax.edge.path import HEAD, LOCAL, Path

FIXED = "fixed"  # the name of having no policy: every image takes the same path
CONFIDENCE = 0.95  # wanted probability of an answer by the deadline
# The next values were chosen by `links.simulate` on traces of five mobile links, at deadlines of 0.1 to 0.5 seconds.
WORTH_TRYING = 0.6  # probability from which the server is tried where the local network can still follow
HOPELESS = 0.5  # probability below which an image is sent only where the next one is not late for it
SHARE, LONGEST_QUEUE = 0.65, 0.15  # of the time for a transfer, and seconds, that the link may be busy at most
BUSY_DEVIATIONS = 0.5  # standard deviations above the median at which that must still hold
HIGHEST = 3.5  # standard deviations above the median of the device's times that are kept for them
LEARN_EVERY = 0.5  # seconds after which an image that will be late is sent all the same: the link may have changed
FAILURES = 3  # in a row, until the server is given up for a while
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 8.0  # seconds between two probes; they double
INTERVAL_WEIGHT = 0.1  # of the newest time between two images, in their mean
GUESSED_SECONDS = 0.01  # of any computation
UNKNOWN = LogNormal(math.log(GUESSED_SECONDS), 0.0)
WAKING, WAKING_SHARE = 0.005, 0.05  # seconds, and of the deadline: by how much a thread may begin late on a busy device
LINGER, SHORTEST_LINGER = 3.0, 2.0  # of the deadline, and seconds: how long a late answer is still waited for
NOT_LIKELY = "no rate is likely to be in time"
USED_UP = "the budget of bytes is used up"
LIKELY = "the most accurate that is likely to be in time"
SOONER = "an answer is expected sooner than by a rate that is as accurate"


def linger(deadline: float) -> float:
    """Return for how many seconds an answer is waited for, be it late, as there is something to learn from it."""
    return max(LINGER * deadline, SHORTEST_LINGER)


class Choice(NamedTuple):
    """What to do with an image.

    Attributes:
        path: to take; None: nothing that is known can be in time, until an answer has come.
        reason: in words.
        probability: that the path gives an answer by the deadline.
        expected: seconds until then, median.
        hedge: seconds from now after which the local network has to begin, if there is no answer by then; None where
            there is none, or it is the path itself.
    """

    path: Path | None
    reason: str
    probability: float = 0.0
    expected: float = 0.0
    hedge: float | None = None


class Policy:
    """Observes what was sent and answered, and chooses. For one thread at a time.

    Attributes:
        paced: images come by themselves, as a camera's: those for which the device has no time are lost.
    """

    __slots__ = (
        "_budget",
        "_chosen",
        "_failures",
        "_highest_top1",
        "_interval",
        "_link",
        "_local",
        "_pause",
        "_probed",
        "_remote",
        "_sent",
        "_server",
        "_works",
        "confidence",
        "paced",
        "paths",
    )

    def __init__(self, paths: Sequence[Path], *, confidence: float = CONFIDENCE, budget: Budget | None = None):
        """Know nothing yet.

        Args:
            paths: that there are.
            confidence: probability with which the deadline shall be met.
            budget: of bytes, all of a request counted; None: as many as the link carries.
        """
        self.paths, self.confidence, self._budget = tuple(paths), confidence, budget
        self.paced = False
        self._remote = sorted((path for path in paths if path.work != LOCAL), key=lambda path: -path.top1)
        self._highest_top1 = max((path.top1 for path in self._remote), default=-math.inf)
        self._local = next((path for path in paths if path.work == LOCAL), None)
        self._link = LinkModel()
        self._server = Drifting(GUESSED_SECONDS, unsure=1.0, walk=0.1, noise=0.15)
        self._works: dict[str, Drifting] = {}
        self._chosen: float | None = None  # when the last image came
        self._interval = 0.0  # mean, from one image to the next
        self._failures = 0  # in a row
        self._sent = float("-inf")  # the last request
        self._pause, self._probed = FIRST_PAUSE, float("-inf")

    def computed(self, work: str, seconds: float, now: float) -> None:
        """Take in how long the device computed.

        Args:
            work: HEAD, from the image to the payload; or LOCAL.
            seconds: that it took.
            now: the time.
        """
        known = self._works.get(work)
        if known is None:
            known = self._works[work] = Drifting(max(seconds, 1e-6), unsure=0.5, walk=0.02, noise=0.05)
        known.observe(seconds, now)

    def seconds(self, work: str, now: float) -> float:
        """Return how long HEAD or LOCAL is expected to take for an image, median."""
        return self._expected(work, now).median

    def pinged(self, seconds: float, now: float) -> None:
        """Take in how long a message without content took, there and back."""
        self._link.pinged(seconds, now)

    def sent(self, size: float, payload: float, now: float) -> int:
        """Take in that a request has left, as `LinkModel.sent`. Call `answered` or `failed` at its end."""
        self._sent = now
        if self._budget is not None:
            self._budget.spend(size, now)
        return self._link.sent(size, payload, now)

    def answered(self, ticket: int, *, server: float | None, now: float) -> None:
        """Take in an answer, in time or late.

        Args:
            ticket: of the request.
            server: seconds in the server's queue and tail; None where it does not say.
            now: the time.
        """
        if server is not None:
            self._server.observe(server, now)
        self._link.answered(ticket, server or 0.0, now)
        self._failures, self._pause, self._probed = 0, FIRST_PAUSE, now

    def failed(self, ticket: int, now: float) -> None:
        """Take in that a request will never be answered: it was refused, or its connection is lost."""
        self.forget(ticket)
        self.late(now)

    def forget(self, ticket: int) -> None:
        """Take in that a request whose deadline has passed will never be answered."""
        self._link.failed(ticket)

    def late(self, now: float) -> None:
        """Take in that a deadline passed without the server's answer, which may still come."""
        self._failures += 1
        if self._failures == FAILURES:
            self._probed = now

    @property
    def is_open(self) -> bool:
        """Whether the server is given up, until it answers something."""
        return self._failures >= FAILURES

    def probe(self, now: float) -> bool:
        """Return whether to send a payload now, any one and small, to see what the link has become.

        The pauses grow while there is no answer. There is no probe while a request is on its way: that is one.
        """
        if self._link.is_busy or now - self._probed < self._pause:
            return False
        self._probed, self._pause = now, min(2 * self._pause, LONGEST_PAUSE)
        return True

    def choose(self, now: float, left: float, local_begins: float = 0.0) -> Choice:
        """Choose a path for an image.

        Args:
            now: the time.
            left: seconds to its deadline.
            local_begins: seconds from now on in which the local network still runs for other images.
        """
        if self._chosen is not None:
            self._interval += INTERVAL_WEIGHT * (now - self._chosen - self._interval)
        self._chosen = now
        if self._local is None:
            return self._by_server(now, left)
        local = self._expected(LOCAL, now)
        reserved = left - local_begins - local.quantile(HIGHEST)
        if reserved < 0:
            return self._by_server(now, left)
        reserved = max(reserved - min(WAKING, WAKING_SHARE * left), 0.0)
        # A device that computes the local network for one image misses those that come meanwhile
        local_seconds = local.median
        share = min(self._interval / local_seconds, 1.0) if self.paced and self._interval else 1.0
        best = self._beside_local(now, left, reserved, share, local_begins + local_seconds)
        if isinstance(best, str):
            return Choice(self._local, best, 1.0, local_begins + local_seconds)
        return Choice(best.path, LIKELY, best.probability, best.expected, reserved)

    def _beside_local(
        self, now: float, left: float, reserved: float, share: float, local_seconds: float
    ) -> Option | str:
        """Choose a rate where the local network can follow, or say why it is the better choice.

        Args:
            now: the time.
            left: seconds to the deadline.
            reserved: seconds until the local network has to begin.
            share: of the images for which it has time.
            local_seconds: until it would have an answer.
        """
        assert self._local is not None
        fallback = share * self._local.top1
        if self._highest_top1 < fallback:
            return "no rate is as accurate"
        if self.is_open:
            return "the server is given up for now"
        outlook = self._outlook(now, left)
        if not outlook.paths:
            return USED_UP
        if outlook.head.quantile(HIGHEST) > reserved:
            return "there is no time for the server and then for the local network"
        if share == 1.0:
            best, _ = self._best(outlook, left, WORTH_TRYING, fallback)
        else:
            best, _ = self._best(outlook, reserved, self.confidence, fallback)
        if best is None or best.value < fallback:
            return NOT_LIKELY
        if best.value == fallback and best.expected >= local_seconds:
            return SOONER
        return best

    def _by_server(self, now: float, left: float) -> Choice:
        """Choose a rate where no local network can follow."""
        outlook = self._outlook(now, left)
        if not outlook.paths:
            return Choice(None, USED_UP)
        best, seen = self._best(outlook, left, self.confidence, 0.0)
        if best is not None:
            return Choice(best.path, LIKELY, best.probability, best.expected)
        best = max(seen, key=lambda each: (each.value, -each.expected))
        probability, expected = best.probability, best.expected
        if probability < HOPELESS:
            ends = outlook.busy + outlook.link.of(best.path).median
            if ends > (outlook.room if self.paced else left):  # the next image would be late for it
                if self._link.is_busy:
                    return Choice(None, "what was sent before is still on its way", probability, expected)
                if now - self._sent < LEARN_EVERY:
                    reason = "too late, and the link is left to the next image"
                    return Choice(None, reason, probability, expected)
        return Choice(best.path, "the most likely to be in time", probability, expected)

    def _best(
        self, outlook: Outlook, left: float, wanted: float, fallback: float
    ) -> tuple[Option | None, list[Option]]:
        """Return the rate of the highest value among those that are likely enough to be answered; None without one.

        Of those, it is one behind which the link has room for the next image, or else the one that sends the least.
        The list has the rates that were looked at: all of them where there is none to return.

        Args:
            outlook: for the image.
            left: seconds in which there shall be an answer.
            wanted: probability of that.
            fallback: the top-1 of what answers instead.
        """
        best, crowded, seen = None, None, []
        for path in outlook.paths:  # the most accurate first
            if best is not None and best.value > path.top1 and best.value > fallback:
                break  # no other can have a higher value
            option = outlook.option(path, left, fallback)
            seen.append(option)
            if option.probability < wanted:
                continue
            if outlook.busy + outlook.link.of(path).quantile(BUSY_DEVIATIONS) > outlook.room:
                if crowded is None or path.bytes_mean < crowded.path.bytes_mean:
                    crowded = option
            elif best is None or (option.value, -option.expected) > (best.value, -best.expected):
                best = option  # of equals the sooner
        return crowded if best is None else best, seen

    def _outlook(self, now: float, left: float) -> Outlook:
        """Return what is the same for all rates of an image with so many seconds to its deadline."""
        work, server, delay = self._expected(HEAD, now), self._server.expected(now), self._link.delay
        head_seconds = work.median
        fixed, link, paths = delay + head_seconds + self._server.median, self._link.expected(now), self._remote
        if self._budget is not None:
            bytes_left = self._budget.left(now)
            paths = [path for path in paths if path.bytes_mean + link.overhead <= bytes_left]
        return Outlook(
            paths,
            delay,
            link,
            work,
            Moments.of(work).plus(server),
            self._link.waiting(now),
            self._link.waiting(now + head_seconds),
            max(self._interval, min(SHARE * (left - fixed), LONGEST_QUEUE)),
        )

    def _expected(self, work: str, now: float) -> LogNormal:
        """Return how long the device computes."""
        known = self._works.get(work)
        return UNKNOWN if known is None else known.expected(now)
