"""The measurements as rows, one for each method, rate and delay: percentiles, and which of two methods is faster.

Medians alone decide nothing: of two rows, one is faster only where the 95 % intervals of their medians do not overlap.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

METHODS = ("split", "local", "jpeg")
STEPS = ("preprocess", "head", "quantizer", "encode", "network", "queue", "decode", "tail", "total")
NOT_COMPUTED = ("network", "queue", "decode", "tail", "total")  # in these steps the device itself computes nothing
PERCENTILES = {50: 1, 95: 20, 99: 100}  # percentile -> the fewest images that have one beyond it
MIN_IMAGES = 6  # of 5, even the interval from the smallest to the largest holds the median with 94 % only
NOISY = 3.0  # a p95 of more times the p50 is a disturbance, not the method


@dataclass(frozen=True)
class Sample:
    """The measurement of one image.

    Attributes:
        ms: milliseconds of each step that the method has.
        payload: bytes of its payload or JPEG.
    """

    ms: dict[str, float]
    payload: int = 0

    @property
    def compute_ms(self) -> float:
        """The ms in which the device computes: all but the link and the server."""
        return sum(value for step, value in self.ms.items() if step not in NOT_COMPUTED)

    def on_a_slower_device(self, times: float) -> "Sample":
        """Return a model of the same measurement on a device that computes `times` as long."""
        ms = {step: value if step in NOT_COMPUTED else times * value for step, value in self.ms.items()}
        return Sample({**ms, "total": self.ms["total"] + (times - 1) * self.compute_ms}, self.payload)


@dataclass(frozen=True)
class Row:
    """One method on one link.

    Attributes:
        method: one of METHODS.
        rate_mbit, delay_ms: None on a link that is not shaped.
        images: the number that was measured.
        ms: step -> "p50", "p95", "p99" -> ms; without the percentiles that need more images.
        payload: mean bytes of payload or JPEG.
        bytes_sent: mean of all bytes that the device sent; None where an image failed or the link does not count.
        energy_mj: mean energy of one image in mJ; None without meter and watts.
        error: why images are missing; None where none is.
        interval: (low, high) in ms, the 95 % interval of the median of the total; None with fewer than MIN_IMAGES.
    """

    method: str
    rate_mbit: float | None
    delay_ms: float | None
    images: int = 0
    ms: dict[str, dict[str, float]] = field(default_factory=dict)
    payload: float | None = None
    bytes_sent: float | None = None
    energy_mj: float | None = None
    error: str | None = None
    interval: tuple[float, float] | None = None

    def p(self, percentile: int) -> float | None:
        """Return a percentile of the total in ms; None where images are missing or too few."""
        return None if self.error else self.ms.get("total", {}).get(f"p{percentile}")

    @property
    def noisy(self) -> bool:
        """Whether a disturbance decided how long some images took."""
        middle, high = self.p(50), self.p(95)
        return middle is not None and high is not None and high > NOISY * middle


@dataclass(frozen=True)
class Crossing:
    """Where two methods take equally long.

    Attributes:
        delay_ms: of the link.
        below: the method that is faster on slower links.
        above: the method that is faster on faster links.
        rate_mbit, ms: where the lines of the medians meet.
        between: the nearest measured rates on either side at which the intervals do not overlap.
    """

    delay_ms: float | None
    below: str
    above: str
    rate_mbit: float
    ms: float
    between: tuple[float, float]


def percentiles(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Return the percentiles of every step in ms, as Row has them."""
    result = {}
    for step in STEPS:
        values = [sample.ms[step] for sample in samples if step in sample.ms]
        if values:
            enough = [p for p, fewest in PERCENTILES.items() if len(values) >= fewest]
            result[step] = {f"p{p}": round(float(np.percentile(values, p)), 4) for p in enough}
    return result


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return a 95 % interval of the median, for any distribution; None with fewer values than MIN_IMAGES.

    It spans the intervals of all values, of the first half and of the second half. So a disturbance that lasts a while,
    which makes neighbouring values depend on each other, widens it.

    Args:
        values: in the order in which they were measured.
    """
    half = len(values) // 2
    parts = [_order_interval(part) for part in (values, values[:half], values[half:])]
    if parts[0] is None:
        return None
    known = [part for part in parts if part is not None]
    return min(low for low, _ in known), max(high for _, high in known)


def _order_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return two of the values that enclose the median with 95 %, by the binomial distribution of those below it."""
    count = len(values)
    if count < MIN_IMAGES:
        return None
    below, tail = 0, 0.5**count  # the probability that at most `below` of the values are under the median
    while (more := tail + math.comb(count, below + 1) * 0.5**count) <= 0.025:
        below, tail = below + 1, more
    ordered = sorted(values)
    return ordered[below], ordered[count - 1 - below]


def delays(rows: Sequence[Row]) -> list[float | None]:
    """Return the delays of the rows, in order."""
    return sorted({row.delay_ms for row in rows}, key=lambda delay: delay or 0.0)


def at(rows: Sequence[Row], delay_ms: float | None) -> dict[str, list[Row]]:
    """Return the rows of one delay by method, from the slowest link to the fastest."""
    chosen = sorted((row for row in rows if row.delay_ms == delay_ms), key=lambda row: row.rate_mbit or 0.0)
    return {method: [row for row in chosen if row.method == method] for method in METHODS}


def faster(first: Row, second: Row) -> int:
    """Return -1 where the first is faster, 1 where the second is, 0 where their intervals overlap."""
    one, other = first.interval, second.interval
    if first.p(50) is None or second.p(50) is None or one is None or other is None:
        return 0
    return -1 if one[1] < other[0] else 1 if other[1] < one[0] else 0


def pairs(lines: dict[str, list[Row]], first: str, second: str) -> list[tuple[Row, Row]]:
    """Return the rows of two methods on the same links, where both were measured without an error."""
    return [
        (one, other)
        for one in lines[first]
        for other in lines[second]
        if one.rate_mbit == other.rate_mbit and one.p(50) is not None and other.p(50) is not None
    ]


def winner(rows: Sequence[Row]) -> Row | None:
    """Return the row that is faster than all others; None where the intervals do not decide. Skip failed rows."""
    measured = [row for row in rows if row.p(50) is not None]
    best = min(measured, key=lambda row: row.p(50) or 0.0, default=None)
    if best is None or any(faster(best, other) >= 0 for other in measured if other is not best):
        return None
    return best


def crossings(rows: Sequence[Row]) -> list[Crossing]:
    """Return where one method becomes faster than another, between two rates at which the intervals decide it."""
    result = []
    for delay in delays(rows):
        lines = at(rows, delay)
        for first, second in itertools.combinations(METHODS, 2):
            result += _between(delay, pairs(lines, first, second))
    return sorted(result, key=lambda crossing: (crossing.delay_ms or 0.0, crossing.rate_mbit))


def _between(delay: float | None, pairs: Sequence[tuple[Row, Row]]) -> Iterator[Crossing]:
    """Yield the crossings of two lines, which are straight on logarithmic axes, between rates that are decided."""
    decided = [number for number, pair in enumerate(pairs) if pair[0].rate_mbit and faster(*pair)]
    for start, end in itertools.pairwise(decided):
        if faster(*pairs[start]) == faster(*pairs[end]):
            continue
        names = [row.method for row in pairs[start]]
        below, above = names if faster(*pairs[start]) < 0 else names[::-1]
        rate, ms = next(
            meeting
            for one, other in itertools.pairwise(pairs[start : end + 1])
            if (meeting := _meeting(one, other)) is not None
        )
        between = (pairs[start][0].rate_mbit or 0.0, pairs[end][0].rate_mbit or 0.0)
        yield Crossing(delay, below, above, rate, ms, between)


def _meeting(one: tuple[Row, Row], other: tuple[Row, Row]) -> tuple[float, float] | None:
    """Return rate and ms at which the lines between two neighbouring pairs of medians meet; None where they do not."""
    (x0, a0, b0), (x1, a1, b1) = (
        [math.log(value or 1.0) for value in (pair[0].rate_mbit, pair[0].p(50), pair[1].p(50))] for pair in (one, other)
    )
    if (a0 < b0) == (a1 < b1):
        return None
    share = (b0 - a0) / ((b0 - a0) - (b1 - a1))
    return math.exp(x0 + share * (x1 - x0)), math.exp(a0 + share * (a1 - a0))


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows as bench.json has them."""
    return [asdict(row) for row in rows]
