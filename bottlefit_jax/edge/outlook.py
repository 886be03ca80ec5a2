"""What a device expects of an image before it chooses: how long head, link and server take, and what each rate brings.

Times are seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bottlefit_jax.edge.estimate import LogNormal, Moments, probability_below
from bottlefit_jax.edge.link_model import Transfers
from bottlefit_jax.edge.path import Path


@dataclass(slots=True)
class Option:
    """A rate that an image could take.

    Attributes:
        path: the rate.
        probability: of an answer in time.
        expected: seconds until then, median.
        value: the top-1 to expect.
    """

    path: Path
    probability: float
    expected: float
    value: float


@dataclass(slots=True)
class Outlook:
    """What is expected of an image, whatever its rate.

    Attributes:
        paths: to the server that may be taken, the most accurate first.
        delay: seconds of the link.
        link: its rate.
        head: seconds that it takes.
        others: of the seconds that head and server take.
        busy, waiting: seconds for which the link is busy from now on, and from when the payload is there.
        room: seconds for which it may be busy behind the image.
    """

    paths: Sequence[Path]
    delay: float
    link: Transfers
    head: LogNormal
    others: Moments
    busy: float
    waiting: float
    room: float

    def option(self, path: Path, left: float, fallback: float) -> Option:
        """Return what a rate brings.

        Args:
            path: the rate.
            left: seconds in which there shall be an answer.
            fallback: the top-1 of what answers instead.
        """
        seconds = self.others.sum_with(self.link.of(path, self.waiting))
        probability = probability_below(left - self.delay, seconds)
        return Option(path, probability, self.delay + seconds.median, fallback + probability * (path.top1 - fallback))
