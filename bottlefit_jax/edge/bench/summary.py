"""What was measured, in numbers: a row per method, rate and delay, its percentiles, and where two methods cross."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

METHODS = ("split", "local", "jpeg")
STEPS = ("prepare", "head", "quantizer", "network", "queue", "tail", "total")
ELSEWHERE = ("network", "queue", "tail", "total")  # of these the device computes nothing
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Sample:
    """One picture: ms by step, where the method has the step, and the bytes that it asked the link to carry."""

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
        pictures: that were measured.
        ms: step -> "p50", "p95", "p99"; empty where no picture was measured.
        payload: mean bytes of latent or JPEG.
        bytes_sent: mean bytes that the device sent, all counted; None where some pictures failed.
        energy_mj: mean energy of one picture in mJ, None without meter and watts.
        error: why pictures are missing.
    """

    method: str
    rate_mbit: float
    delay_ms: float
    pictures: int = 0
    ms: dict[str, dict[str, float]] = field(default_factory=dict)
    payload: float | None = None
    bytes_sent: float | None = None
    energy_mj: float | None = None
    error: str | None = None

    def p(self, percentile: int) -> float | None:
        """A percentile of the total in ms, where it was measured without an error."""
        return None if self.error or "total" not in self.ms else self.ms["total"][f"p{percentile}"]


@dataclass(frozen=True)
class Crossing:
    """Where `below`, the faster of the two on slower links, and `above`, the faster on faster ones, are equal."""

    delay_ms: float
    below: str
    above: str
    rate_mbit: float
    ms: float


def percentiles(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Percentiles in ms of every step that the samples have."""
    found = {}
    for step in STEPS:
        values = [sample.ms[step] for sample in samples if step in sample.ms]
        if values:
            found[step] = {f"p{p}": round(float(np.percentile(values, p)), 4) for p in PERCENTILES}
    return found


def at(rows: Sequence[Row], delay_ms: float) -> dict[str, list[Row]]:
    """The rows of one delay, by method, from the slowest link to the fastest."""
    chosen = sorted((row for row in rows if row.delay_ms == delay_ms), key=lambda row: row.rate_mbit)
    return {method: [row for row in chosen if row.method == method] for method in METHODS}


def winner(rows: Sequence[Row]) -> Row | None:
    """The row with the lowest p50 of the total, of those without an error."""
    able = [row for row in rows if row.p(50) is not None]
    return min(able, key=lambda row: row.p(50) or 0.0, default=None)


def crossings(rows: Sequence[Row]) -> list[Crossing]:
    """Where the p50 of two methods are equal, between two rates: straight lines on logarithmic axes, as drawn."""
    found = []
    for delay in sorted({row.delay_ms for row in rows}):
        lines = at(rows, delay)
        for first, second in itertools.combinations(METHODS, 2):
            found += _between(delay, lines[first], lines[second])
    return sorted(found, key=lambda one: (one.delay_ms, one.rate_mbit))


def _between(delay: float, first: list[Row], second: list[Row]) -> Iterator[Crossing]:
    """The crossings of two lines."""
    pairs = [(one, other) for one in first for other in second if one.rate_mbit == other.rate_mbit]
    points = [
        (math.log(one.rate_mbit), math.log(a), math.log(b))
        for one, other in pairs
        if (a := one.p(50)) is not None and (b := other.p(50)) is not None
    ]
    for (x0, a0, b0), (x1, a1, b1) in itertools.pairwise(points):
        if (a0 < b0) == (a1 < b1):
            continue
        share = (b0 - a0) / ((b0 - a0) - (b1 - a1))
        names = (first[0].method, second[0].method)
        below, above = names if a0 < b0 else names[::-1]
        rate, ms = math.exp(x0 + share * (x1 - x0)), math.exp(a0 + share * (a1 - a0))
        yield Crossing(delay, below, above, rate, ms)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as bench.json has them."""
    return [asdict(row) for row in rows]
