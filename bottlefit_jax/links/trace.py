"""Rates of a link over time, from a file of two columns."""

import bisect
import csv
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from bottlefit_jax.errors import UserError

HEADER = ("seconds", "mbit_per_s")
BITS = 8e-6  # megabits of a byte


class Trace:
    """The rate of a link, which holds until the next time; after the last second it begins again.

    Attributes:
        name: for people.
        seconds: that it lasts.
    """

    def __init__(self, name: str, times: Sequence[float], rates: Sequence[float]):
        """Keep the rates.

        Args:
            name: for people.
            times: seconds, rising; the first rate holds from the beginning. The last one holds as long as the one
                before.
            rates: Mbit/s, one for each time; at least one above 0.
        """
        self.name = name
        start, last = times[0], times[-1] - times[-2] if len(times) > 1 else 1.0
        self.seconds = times[-1] - start + last
        self._times = [time - start for time in times] + [self.seconds]
        self._rates = list(rates)
        lengths = [end - begin for begin, end in itertools.pairwise(self._times)]
        self._carried = [0.0, *itertools.accumulate(rate * s for rate, s in zip(rates, lengths, strict=True))]  # Mbit

    def rate(self, time: float) -> float:
        """Return Mbit/s at a time in seconds."""
        return self._rates[bisect.bisect_right(self._times, time % self.seconds, hi=len(self._rates)) - 1]

    def outages(self, end: float) -> list[tuple[float, float]]:
        """Return from when to when nothing is carried, in seconds, up to `end`."""
        spans: list[tuple[float, float]] = []
        for round_ in range(math.ceil(end / self.seconds)):
            for begin, until, rate in zip(self._times, self._times[1:], self._rates, strict=False):
                first, last = round_ * self.seconds + begin, min(round_ * self.seconds + until, end)
                if rate or first >= end:
                    continue
                if spans and spans[-1][1] == first:
                    first, _ = spans.pop()
                spans.append((first, last))
        return spans

    def arrives(self, start: float, size: float) -> float:
        """Return when the last byte has left that was put on an empty link.

        Args:
            start: seconds.
            size: bytes.
        """
        rounds, offset = divmod(start, self.seconds)
        index = bisect.bisect_right(self._times, offset, hi=len(self._rates)) - 1
        carried, begin = self._carried[index], self._times[index]
        wanted = carried + self._rates[index] * (offset - begin) + BITS * size
        if carried < wanted <= self._carried[index + 1]:  # before the rate changes, as mostly: nothing to search for
            arrives = rounds * self.seconds + (begin + (wanted - carried) / self._rates[index])
            return arrives if arrives > start else start
        whole = self._carried[-1]
        more, wanted = divmod(wanted, whole)
        if not wanted and more:  # exactly at the end of a round
            more, wanted = more - 1, whole
        index = bisect.bisect_left(self._carried, wanted, lo=1) - 1
        rest = wanted - self._carried[index]
        within = self._times[index] + (rest / self._rates[index] if rest else 0.0)
        return max(start, (rounds + more) * self.seconds + within)


def read_trace(path: Path) -> Trace:
    """Read a trace.

    Args:
        path: of a CSV file with the columns `seconds` and `mbit_per_s`.

    Raises:
        UserError: the file cannot be read, is empty, or has times that do not rise, or rates that no link has.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no table of text"
        raise UserError(f"cannot read the trace {path}: {reason}") from None
    if not rows or tuple(cell.strip() for cell in rows[0]) != HEADER:
        raise UserError(f"the trace {path} must begin with the line {','.join(HEADER)}")
    values: list[tuple[float, float]] = []
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        time, rate = _values(path, number, row)
        if values and time <= values[-1][0]:
            before = values[-1][0]
            raise UserError(
                f"the trace {path} goes from {before:g} to {time:g} seconds in line {number}; time must rise"
            )
        values.append((time, rate))
    if not values:
        raise UserError(f"the trace {path} has no rates: give a line of seconds and Mbit/s for each change")
    if not any(rate for _, rate in values):
        raise UserError(f"the trace {path} has only rates of 0: nothing ever arrives")
    times, rates = zip(*values, strict=True)
    return Trace(path.stem, times, rates)


def read_traces(path: Path) -> list[Trace]:
    """Read a trace, or all `*.csv` of a folder by name.

    Raises:
        UserError: as `read_trace`; or the folder has none.
    """
    if not path.is_dir():
        return [read_trace(path)]
    files = sorted(path.glob("*.csv"))
    if not files:
        raise UserError(f"the folder {path} has no trace, which is a file NAME.csv")
    return [read_trace(file) for file in files]


def _values(path: Path, number: int, row: Sequence[str]) -> tuple[float, float]:
    """Return seconds and Mbit/s of a line."""
    try:
        time, rate = map(float, row)
    except ValueError:
        raise UserError(f"the trace {path} has {','.join(row)!r} in line {number}, not two numbers") from None
    if not (math.isfinite(time) and math.isfinite(rate) and rate >= 0):
        raise UserError(f"the trace {path} has {','.join(row)!r} in line {number}; a rate is 0 or more")
    return time, rate
