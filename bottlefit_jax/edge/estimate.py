"""Times that are not known before: positive quantities that drift, and what the policy expects of them.

Each is a random walk of its logarithm, observed with noise, which a Kalman filter follows. How far off its predictions
were lately widens or narrows those that come. Time is passed in, so that tests and simulations have a clock of their
own.

Simulations call all this dozens of times for each image. That is why the values here are plain dataclasses with slots,
which Python makes in half the time of a named tuple, and why some comparisons stand where `min` and `max` would do.
"""

import math
from dataclasses import dataclass

LEAST = 1e-9  # of an observation: a clock may say 0
MOST_SPREAD = 4.0  # variance of a logarithm: a factor of 7 either way
REMEMBERED = 0.1  # weight of the newest error in the average of squared errors
SQRT_2 = math.sqrt(2)
NARROWEST, WIDEST = 0.5, 30.0  # of that average, in the variances that the filter predicted


@dataclass(slots=True)
class LogNormal:
    """A distribution of a positive quantity: mean and variance of its logarithm."""

    mean: float
    variance: float

    @property
    def median(self) -> float:
        """The median, in the quantity's unit."""
        return math.exp(self.mean)

    def times(self, factor: float, variance: float = 0.0) -> "LogNormal":
        """Return the distribution of a multiple; `variance` is that of the factor's logarithm."""
        variance += self.variance
        return LogNormal(self.mean + math.log(factor), variance if variance < MOST_SPREAD else MOST_SPREAD)

    def quantile(self, deviations: float) -> float:
        """Return the value so many standard deviations above the median."""
        return math.exp(self.mean + deviations * math.sqrt(self.variance))


class Drifting:
    """A positive quantity that changes by and by.

    Attributes:
        median: of the next observation, whenever that is.
    """

    __slots__ = ("_error", "_mean", "_noise", "_since", "_variance", "_walk", "median")

    def __init__(self, guess: float, *, unsure: float, walk: float, noise: float):
        """Begin with a guess.

        Args:
            guess: of the quantity, in any unit.
            unsure: standard deviation of the guess's logarithm.
            walk: standard deviation by which the logarithm moves within a second.
            noise: standard deviation of the logarithm of one observation around the quantity.
        """
        self._mean, self._variance = math.log(guess), unsure**2
        self._walk, self._noise = walk**2, noise**2
        self._since: float | None = None  # the last observation
        self._error = 1.0  # average squared error, in predicted variances
        self.median = math.exp(self._mean)

    @property
    def known(self) -> bool:
        """Whether anything has been observed."""
        return self._since is not None

    def observe(self, value: float, now: float) -> None:
        """Take in an observation.

        Args:
            value: in the guess's unit.
            now: seconds, not before the last observation's.
        """
        before = self._state(now)
        error, total = math.log(value if value > LEAST else LEAST) - self._mean, before + self._noise
        if self._since is not None:
            average = self._error + REMEMBERED * (error**2 / total - self._error)
            self._error = NARROWEST if average < NARROWEST else WIDEST if average > WIDEST else average
        gain = before / total
        self._mean += gain * error
        self._variance = (1 - gain) * before
        self._since = now
        self.median = math.exp(self._mean)

    def expected(self, now: float) -> LogNormal:
        """Return the distribution of the next observation, `now` being the time in seconds."""
        variance = self._error * (self._state(now) + self._noise)
        return LogNormal(self._mean, variance if variance < MOST_SPREAD else MOST_SPREAD)

    def _state(self, now: float) -> float:
        """Return the variance of the quantity itself at a time."""
        if self._since is None or now <= self._since:
            variance = self._variance
        else:
            variance = self._variance + self._walk * (now - self._since)
        return variance if variance < MOST_SPREAD else MOST_SPREAD


@dataclass(slots=True)
class Moments:
    """Mean and variance of a positive quantity, in its unit; those of a sum are sums."""

    mean: float
    variance: float

    @classmethod
    def of(cls, part: LogNormal) -> "Moments":
        """Return those of a lognormal distribution."""
        mean = math.exp(part.mean + part.variance / 2)
        return cls(mean, math.expm1(part.variance) * mean * mean)

    def plus(self, part: LogNormal) -> "Moments":
        """Return those of the sum with an independent quantity."""
        other = Moments.of(part)
        return Moments(self.mean + other.mean, self.variance + other.variance)

    def sum_with(self, part: LogNormal) -> LogNormal:
        """Return about the distribution of the sum with an independent quantity: it has the sum's moments.

        This is the approximation of Fenton (1960).
        """
        mean = math.exp(part.mean + part.variance / 2)
        variance = self.variance + math.expm1(part.variance) * mean * mean
        mean += self.mean
        spread = math.log1p(variance / (mean * mean))
        return LogNormal(math.log(mean) - spread / 2, spread)


def probability_below(value: float, distribution: LogNormal) -> float:
    """Return the probability that the quantity is at most `value`, in its unit."""
    if value <= 0:
        return 0.0
    deviation = math.sqrt(distribution.variance)
    return 0.5 * math.erfc((distribution.mean - math.log(value)) / (deviation if deviation > 1e-6 else 1e-6) / SQRT_2)
