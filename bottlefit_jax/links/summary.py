"""What was measured, in numbers: a row per method, rate and delay, its percentiles, and which of two methods is faster.

Nothing is concluded from medians alone: two rows are compared by the 95 % intervals of their medians, and differ only
where these have no value in common.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

METHODS = ("split", "local", "jpeg")
STEPS = ("prepare", "head", "quantizer", "network", "queue", "tail", "total")
ELSEWHERE = ("network", "queue", "tail", "total")  # of these the device computes nothing
PERCENTILES = {50: 1, 95: 20, 99: 100}  # and how many images each needs: fewer have none beyond it
LEAST_IMAGES = 6  # fewer have no 95 % interval of the median: even from the least to the largest it is 94 %
NOISY = 3.0  # times p50: a p95 beyond this is a disturbance, not the method


@dataclass(frozen=True)
class Sample:
    """One image: ms by step, where the method has the step, and the bytes that it asked the link to carry."""

    ms: dict[str, float]
    payload: int = 0

    @property
    def computing(self) -> float:
        """The ms in which the device itself works: all but the link and the server."""
        return sum(value for step, value in self.ms.items() if step not in ELSEWHERE)

    def on_a_slower_device(self, times: float) -> "Sample":
        """The same, had the device computed `times` as long: a model."""
        ms = {step: value if step in ELSEWHERE else times * value for step, value in self.ms.items()}
        return Sample({**ms, "total": self.ms["total"] + (times - 1) * self.computing}, self.payload)


@dataclass(frozen=True)
class Row:
    """One method on one link.

    Attributes:
        rate_mbit, delay_ms: None on a link that nobody shapes.
        images: that were measured.
        ms: step -> "p50", "p95", "p99", of which only those are there that so many images give; empty without any.
        payload: mean bytes of latent or JPEG.
        bytes_sent: mean bytes that the device sent, all counted; None where some images failed or nobody counts.
        energy_mj: mean energy of one image in mJ, None without meter and watts.
        error: why images are missing.
        interval: (low, high) in ms, 95 % of the median of the total; None with fewer images than LEAST_IMAGES.
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
        """A percentile of the total in ms, where it was measured without an error, on enough images."""
        return None if self.error else self.ms.get("total", {}).get(f"p{percentile}")

    @property
    def noisy(self) -> bool:
        """Whether something else than the method decided how long some images took."""
        middle, high = self.p(50), self.p(95)
        return middle is not None and high is not None and high > NOISY * middle


@dataclass(frozen=True)
class Crossing:
    """Where `below`, the faster of the two on slower links, and `above`, the faster on faster ones, are equal.

    Attributes:
        rate_mbit, ms: where the lines of the medians meet.
        between: the measured rates on either side at which the intervals part; the crossing is known no better.
    """

    delay_ms: float | None
    below: str
    above: str
    rate_mbit: float
    ms: float
    between: tuple[float, float]


def percentiles(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Percentiles in ms of every step that the samples have: those that so many samples can give."""
    found = {}
    for step in STEPS:
        values = [sample.ms[step] for sample in samples if step in sample.ms]
        if values:
            given = [p for p, least in PERCENTILES.items() if len(values) >= least]
            found[step] = {f"p{p}": round(float(np.percentile(values, p)), 4) for p in given}
    return found


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """A 95 % interval of the median, whatever the distribution; None with fewer values than LEAST_IMAGES.

    It spans the intervals of all values and of each half in time, so that a disturbance during the measurement, which
    makes the values depend on each other, widens it.
    """
    half = len(values) // 2
    parts = [_order_interval(part) for part in (values, values[:half], values[half:])]
    if parts[0] is None:
        return None
    known = [part for part in parts if part is not None]
    return min(low for low, _ in known), max(high for _, high in known)


def _order_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The values between which the median is with 95 %, by the binomial distribution of how many are below it."""
    count = len(values)
    if count < LEAST_IMAGES:
        return None
    below, tail = 0, 0.5**count  # the probability that at most `below` of the values are under the median
    while (more := tail + math.comb(count, below + 1) * 0.5**count) <= 0.025:
        below, tail = below + 1, more
    ordered = sorted(values)
    return ordered[below], ordered[count - 1 - below]


def delays(rows: Sequence[Row]) -> list[float | None]:
    """The delays that the rows have, in order."""
    return sorted({row.delay_ms for row in rows}, key=lambda delay: delay or 0.0)


def at(rows: Sequence[Row], delay_ms: float | None) -> dict[str, list[Row]]:
    """The rows of one delay, by method, from the slowest link to the fastest."""
    chosen = sorted((row for row in rows if row.delay_ms == delay_ms), key=lambda row: row.rate_mbit or 0.0)
    return {method: [row for row in chosen if row.method == method] for method in METHODS}


def faster(first: Row, second: Row) -> int:
    """-1 where the first is faster, 1 where the second is, 0 where their intervals have a value in common."""
    one, other = first.interval, second.interval
    if first.p(50) is None or second.p(50) is None or one is None or other is None:
        return 0
    return -1 if one[1] < other[0] else 1 if other[1] < one[0] else 0


def pairs(lines: dict[str, list[Row]], first: str, second: str) -> list[tuple[Row, Row]]:
    """The rows of two methods on the same links, both measured without an error."""
    return [
        (one, other)
        for one in lines[first]
        for other in lines[second]
        if one.rate_mbit == other.rate_mbit and one.p(50) is not None and other.p(50) is not None
    ]


def winner(rows: Sequence[Row]) -> Row | None:
    """The row that is faster than every other without an error; None where the intervals do not decide it."""
    able = [row for row in rows if row.p(50) is not None]
    best = min(able, key=lambda row: row.p(50) or 0.0, default=None)
    if best is None or any(faster(best, other) >= 0 for other in able if other is not best):
        return None
    return best


def crossings(rows: Sequence[Row]) -> list[Crossing]:
    """Where one method becomes faster than another, between two rates at which the intervals say so."""
    found = []
    for delay in delays(rows):
        lines = at(rows, delay)
        for first, second in itertools.combinations(METHODS, 2):
            found += _between(delay, pairs(lines, first, second))
    return sorted(found, key=lambda one: (one.delay_ms or 0.0, one.rate_mbit))


def _between(delay: float | None, pairs: Sequence[tuple[Row, Row]]) -> Iterator[Crossing]:
    """The crossings of two lines: straight on logarithmic axes, as drawn, between rates that are decided."""
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
    """Rate and ms at which the medians of two neighbouring pairs are equal; None where they are not."""
    (x0, a0, b0), (x1, a1, b1) = (
        [math.log(value or 1.0) for value in (pair[0].rate_mbit, pair[0].p(50), pair[1].p(50))] for pair in (one, other)
    )
    if (a0 < b0) == (a1 < b1):
        return None
    share = (b0 - a0) / ((b0 - a0) - (b1 - a1))
    return math.exp(x0 + share * (x1 - x0)), math.exp(a0 + share * (a1 - a0))


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as bench.json has them."""
    return [asdict(row) for row in rows]
