"""The rates of a student: a ladder of steps is tried, measured by real payloads, and the useful ones are kept.

    candidates = fit_candidates(training, logits, zero_point=zero_point)
    points = [measure(rate, evaluation, labels, logits) for rate in candidates]
    chosen = choose(points, float_top1=float_top1, teacher_top1=teacher_top1)

A coarser step of a channel saves bits of that channel's entropy and costs accuracy by the error that it makes. Each
candidate has, for one price of a bit, the steps whose errors and bits together cost least. What an error in a channel
costs is measured: the divergence of the predictions when that channel alone is coarse. Other candidates have one step
for all channels: a student that was trained with the rate term has met those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.fit import fit_rate
from bottlefit_jax.codec.rate import Rate, symbols_of, values_of
from bottlefit_jax.codec.rates import make_rates
from bottlefit_jax.evaluation.accuracy import correct_counts, percentages

STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128)
LESS, FEWEST = 0.9, 0.12  # bits of a candidate: of those of the one before, and of those of the first
TARGETS = (0.1, 0.3, 0.6, 1.5, 3.0)  # points of top-1 that a rate may lose
LEAST = 5  # rates of a student, with `lossless`
DEFAULT_POINTS = 0.3  # that the default rate may lose against the student without a quantiser
LOSSLESS = "lossless"
# Training images whose latents make the tables. Large latents need fewer: each pixel has a symbol of every channel. At
# 7 x 7 pixels 1000 images instead of 2000 gave payloads that were 0.1 to 0.6 % larger, 250 gave 1.3 %.
FEWEST_IMAGES, MOST_IMAGES, ENOUGH_PIXELS, MOST_VALUES = 200, 2000, 150_000, 1 << 26
PROBED, PROBE_STEP = 256, 16  # images and step by which the cost of an error is measured
BATCH = 32
TINY = 1e-30
# latents [B, h, w, c] uint8, at most BATCH of them -> [B, classes], of NumPy or JAX
Logits = Callable[[np.ndarray], Any]


@dataclasses.dataclass(frozen=True)
class RatePoint:
    """A rate over the evaluation images.

    Attributes:
        rate: how payloads are made.
        bytes_mean, bytes_p95: of a payload.
        top1, top5: in percent, of the images that were sent as these payloads.
    """

    rate: Rate
    bytes_mean: float
    bytes_p95: float
    top1: float
    top5: float

    def to_json(self) -> dict[str, Any]:
        """Return the values as `report.json` and `parity.json` have them."""
        measured = {key: getattr(self, key) for key in ("bytes_mean", "bytes_p95", "top1", "top5")}
        return {"id": self.rate.id, "steps": list(self.rate.steps), **measured}


class Measured(Protocol):
    """What `default_rate` looks at."""

    @property
    def bytes_mean(self) -> float:
        """Of a payload."""
        ...

    @property
    def top1(self) -> float:
        """In percent."""
        ...


Point = TypeVar("Point", bound=Measured)


def training_images(shape: tuple[int, int, int]) -> int:
    """Return how many training images make the code tables of latents of `shape`, (h, w, c)."""
    height, width, channels = shape
    enough = min(MOST_IMAGES, max(FEWEST_IMAGES, ENOUGH_PIXELS // (height * width)))
    return max(1, min(enough, MOST_VALUES // (height * width * channels)))


def channel_costs(training: np.ndarray, logits: Logits, *, zero_point: int) -> np.ndarray:
    """Measure how much an error in each channel changes what is predicted.

    Args:
        training: [N, h, w, c] uint8 latents; PROBED of them are looked at.
        logits: of latents.
        zero_point: of the latents.

    Returns:
        [c]: nats of Kullback-Leibler divergence that a mean squared error of 1 in a channel causes. A channel whose
        values are all equal has 0.
    """
    probed = training[:: max(1, len(training) // PROBED)][:PROBED]
    before = _log_probabilities(probed, logits)
    symbols = symbols_of(PROBE_STEP, zero_point)
    coarse = values_of(PROBE_STEP, zero_point)[symbols[probed]]
    costs = np.zeros(probed.shape[3])
    for channel in range(len(costs)):
        changed = probed.copy()
        changed[..., channel] = coarse[..., channel]
        error = np.square(changed[..., channel].astype(float) - probed[..., channel]).mean()
        after = _log_probabilities(changed, logits)
        divergence = (np.exp(before) * (before - after)).sum(1).mean()
        costs[channel] = max(divergence, 0.0) / error if error else 0.0
    return costs


def fit_candidates(training: np.ndarray, logits: Logits, *, zero_point: int) -> list[Rate]:
    """Make candidates from the finest to the coarsest, the first one lossless.

    Args:
        training: [N, h, w, c] uint8 latents.
        logits: of latents.
        zero_point: of the latents.
    """
    costs = channel_costs(training, logits, zero_point=zero_point)
    ladder = _step_ladder(training, costs, zero_point)
    return [
        fit_rate(training, steps, zero_point=zero_point, id=LOSSLESS if number == 0 else f"candidate-{number}")
        for number, steps in enumerate(ladder)
    ]


def measure(
    rate: Rate,
    latents: np.ndarray,
    labels: np.ndarray,
    logits: Logits,
    *,
    class_indices: Sequence[int] | None = None,
) -> RatePoint:
    """Send latents at a rate, and classify what arrives.

    Args:
        rate: numbered or not.
        latents: [N, h, w, c] uint8, of evaluation images.
        labels: [N].
        logits: of latents.
        class_indices: the columns of the logits that are the data set's classes; None for all.
    """
    rates = make_rates([rate], head="", shape=latents.shape[1:])
    sizes, scores = [], []
    for start in range(0, len(latents), BATCH):
        payloads = [wire.encode(latent, rates.rates[0]) for latent in latents[start : start + BATCH]]
        received, problems = wire.decode_batch(payloads, rates)
        assert not any(problems), problems
        sizes += map(len, payloads)
        scores.append(np.asarray(logits(received)))
    counts = correct_counts(np.concatenate(scores), labels, np.ones(len(labels), bool), class_indices=class_indices)
    return RatePoint(rate, float(np.mean(sizes)), float(np.percentile(sizes, 95)), **percentages(counts))


def choose(points: Sequence[RatePoint], *, float_top1: float, teacher_top1: float | None) -> list[RatePoint]:
    """Keep lossless, the cheapest rate within each of TARGETS, and the best default; with an id that says which.

    Points are counted from the teacher, or from the best candidate where that is lower. Where two targets have the same
    rate it is kept once, with the id of the tighter target. Where fewer than LEAST are left, candidates from the widest
    gaps between them join, if possible such that none is better with fewer bytes.

    Args:
        points: all candidates, the first one lossless.
        float_top1: in percent, of the student without a quantiser.
        teacher_top1: in percent; None where there is no teacher.

    Returns:
        From the most bytes to the fewest.
    """
    best = max(point.top1 for point in points)
    reference = best if teacher_top1 is None else min(best, teacher_top1)
    chosen = {LOSSLESS: points[0]}
    for target in TARGETS:
        within = [point for point in points if point.top1 >= reference - target - 1e-9]
        cheapest = min(within, key=lambda point: point.bytes_mean)
        if not _contains(chosen.values(), cheapest):
            chosen[f"within-{target:g}"] = cheapest
    # Where the student beats its teacher, rates that lose little of the teacher's top-1 lose much of the student's.
    default = default_rate(points, float_top1=float_top1)
    if not _contains(chosen.values(), default):
        chosen[f"within-{DEFAULT_POINTS:g}-of-student"] = default
    good = [point for point in points if point.bytes_mean >= cheapest.bytes_mean]  # of the last target
    useful = [point for point in good if not any(_beats(other, point) for other in points)]
    for pool in (useful, good, list(points)):
        while len(chosen) < LEAST and (rest := [point for point in pool if not _contains(chosen.values(), point)]):
            farthest = max(rest, key=lambda point: _distance(point, list(chosen.values())))
            chosen[f"{farthest.bytes_mean:.0f}-bytes"] = farthest
    ranked = sorted(chosen.items(), key=lambda item: -item[1].bytes_mean)
    return [dataclasses.replace(point, rate=dataclasses.replace(point.rate, id=name)) for name, point in ranked]


def default_rate(points: Sequence[Point], *, float_top1: float) -> Point:
    """Return the cheapest rate within DEFAULT_POINTS of the student without a quantiser, or the best where none is."""
    within = [point for point in points if point.top1 >= float_top1 - DEFAULT_POINTS - 1e-9]
    if not within:
        return max(points, key=lambda point: (point.top1, -point.bytes_mean))
    return min(within, key=lambda point: point.bytes_mean)


def _beats(one: RatePoint, other: RatePoint) -> bool:
    return one.bytes_mean <= other.bytes_mean and one.top1 > other.top1


def _contains(points: Iterable[RatePoint], point: RatePoint) -> bool:
    return any(point is other for other in points)


def _log_probabilities(latents: np.ndarray, logits: Logits) -> np.ndarray:
    """Return the logarithms of the predicted probabilities, [N, classes] float64."""
    parts = [np.asarray(logits(latents[start : start + BATCH]), np.float64) for start in range(0, len(latents), BATCH)]
    values = np.concatenate(parts)
    values -= values.max(1, keepdims=True)
    return values - np.log(np.exp(values).sum(1, keepdims=True))


def _distance(point: RatePoint, others: Sequence[RatePoint]) -> float:
    """Return by what factor the bytes of a point differ from those of the nearest other, as a logarithm."""
    return min(abs(np.log(point.bytes_mean / other.bytes_mean)) for other in others)


def _step_ladder(training: np.ndarray, costs: np.ndarray, zero_point: int) -> list[tuple[int, ...]]:
    """Return steps for each channel, from the most bits to the fewest.

    By price each has about LESS of the entropy of the one before; between these are those of one step for all.
    """
    bits, errors = _bits_and_errors(training, zero_point)  # [c, steps]
    totals = bits.sum(0)
    uniform = {(step,) * len(costs): total for step, total in zip(STEPS, totals, strict=True)}
    by_price = dict(_by_price(bits, costs[:, None] * errors))
    found = by_price | {steps: total for steps, total in uniform.items() if FEWEST * totals[0] <= total < totals[0]}
    return sorted(found, key=lambda steps: -found[steps])


def _by_price(bits: np.ndarray, damage: np.ndarray) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield steps for each channel and the entropy of an image in bits, the first ones lossless.

    Args:
        bits: [c, steps], entropy of an image.
        damage: [c, steps], what the errors cost.
    """
    size = float(bits[:, 0].sum())
    yield (1,) * len(bits), size
    fewest = FEWEST * size
    unit = max(float(damage.max()), TINY) / max(float(bits.max()), TINY)
    for price in np.geomspace(1e-8, 1e3, 1200) * unit:
        best = np.argmin(damage + price * bits, axis=1)
        total = float(np.take_along_axis(bits, best[:, None], axis=1).sum())
        if fewest <= total <= LESS * size:
            size = total
            yield tuple(STEPS[index] for index in best), total


def _bits_and_errors(training: np.ndarray, zero_point: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each channel and step, the entropy of an image in bits and the mean squared error of a value."""
    pixels = training.shape[1] * training.shape[2]
    counts = np.stack([np.bincount(channel, minlength=256) for channel in training.reshape(-1, training.shape[3]).T])
    bits, errors = np.empty((len(counts), len(STEPS))), np.empty((len(counts), len(STEPS)))
    for column, step in enumerate(STEPS):
        symbols, values = symbols_of(step, zero_point), values_of(step, zero_point)
        squared = (np.arange(256) - values[symbols].astype(int)) ** 2
        for row, histogram in enumerate(counts):
            shares = np.bincount(symbols, weights=histogram) / histogram.sum()
            shares = shares[shares > 0]
            bits[row, column] = -pixels * (shares * np.log2(shares)).sum()
            errors[row, column] = (squared * histogram).sum() / histogram.sum()
    return bits, errors
