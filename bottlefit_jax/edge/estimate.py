"""Times that are not known before: positive quantities that drift, and what the policy expects of them.

Each is a random walk of its logarithm, observed with noise, which a Kalman filter follows. How far off its predictions
were lately widens or narrows those that come. Time is passed in, so that tests and simulations have a clock of their
own.
"""

import math
from typing import NamedTuple

LEAST = 1e-9  # of an observation: a clock may say 0
MOST_SPREAD = 4.0  # variance of a logarithm: a factor of 7 either way
REMEMBERED = 0.1  # weight of the newest error in the average of squared errors
NARROWEST, WIDEST = 0.5, 30.0  # of that average, in the variances that the filter predicted


class LogNormal(NamedTuple):
    """A distribution of a positive quantity: mean and variance of its logarithm."""

    mean: float
    variance: float

    @property
    def median(self) -> float:
        """The median, in the quantity's unit."""
        return math.exp(self.mean)

    def times(self, factor: float, variance: float = 0.0) -> "LogNormal":
        """Return the distribution of a multiple; `variance` is that of the factor's logarithm."""
        return LogNormal(self.mean + math.log(factor), min(self.variance + variance, MOST_SPREAD))

    def quantile(self, deviations: float) -> float:
        """Return the value so many standard deviations above the median."""
        return math.exp(self.mean + deviations * math.sqrt(self.variance))


class Drifting:
    """A positive quantity that changes by and by."""

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
        error, total = math.log(max(value, LEAST)) - self._mean, before + self._noise
        if self.known:
            self._error += REMEMBERED * (error**2 / total - self._error)
            self._error = min(max(self._error, NARROWEST), WIDEST)
        gain = before / total
        self._mean += gain * error
        self._variance = (1 - gain) * before
        self._since = now

    def expected(self, now: float) -> LogNormal:
        """Return the distribution of the next observation, `now` being the time in seconds."""
        return LogNormal(self._mean, min(self._error * (self._state(now) + self._noise), MOST_SPREAD))

    def _state(self, now: float) -> float:
        """Return the variance of the quantity itself at a time."""
        age = 0.0 if self._since is None else max(now - self._since, 0.0)
        return min(self._variance + self._walk * age, MOST_SPREAD)


class Moments(NamedTuple):
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

    def lognormal(self) -> LogNormal:
        """Return the lognormal distribution that has them, which is about that of a sum (Fenton, 1960)."""
        spread = math.log1p(self.variance / (self.mean * self.mean))
        return LogNormal(math.log(self.mean) - spread / 2, spread)


def probability_below(value: float, distribution: LogNormal) -> float:
    """Return the probability that the quantity is at most `value`, in its unit."""
    if value <= 0:
        return 0.0
    deviation = max(math.sqrt(distribution.variance), 1e-6)
    return 0.5 * math.erfc((distribution.mean - math.log(value)) / deviation / math.sqrt(2))
