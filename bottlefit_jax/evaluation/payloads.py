"""What a student sends, and how often it is right when its latents arrive as payloads.

`fit_ladder` and `choose_rates` find the rates that are worth having; `measure_payloads` measures them in one pass over
the evaluation images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rate import Rate, symbols_of, values_of
from bottlefit_jax.codec.rates import Rates, make_rates, parse_rates, rates_text
from bottlefit_jax.codec.sizes import payload_sizes
from bottlefit_jax.evaluation import rates as ladder
from bottlefit_jax.evaluation.accuracy import percentages
from bottlefit_jax.evaluation.networks import Batches, require_finite
from bottlefit_jax.evaluation.split_student import SplitStudent

RAW = "raw"  # the rate without a codec: a byte for each value
MOST_TRIED, LEAST_TRIED = 4000, 1000  # evaluation images on which rates are chosen: as many as do not take long
TRIED_SIZE = 64  # side of the largest images of which MOST_TRIED are tried


@dataclasses.dataclass(frozen=True, kw_only=True)
class RateResult:
    """A rate over the evaluation images.

    Attributes:
        id: of the rate, or RAW.
        steps: of each channel; None for RAW.
        bytes_mean, bytes_p95: of an image's payload, its range included where the receiver does not have it.
        top1, top5: percent, of images that arrived as these payloads.
    """

    id: str
    steps: tuple[int, ...] | None
    bytes_mean: float
    bytes_p95: float
    top1: float
    top5: float

    def to_json(self) -> dict[str, Any]:
        """Return its row in `report.json`."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class PayloadResult:
    """A student behind payloads.

    Attributes:
        codec: makes and reads the payloads.
        rates: RAW and those of the codec, from the most bytes to the fewest.
        default: the rate of the report.
        float_top1: top-1 of the student without a quantiser, percent.
        range_bytes: of every payload, for the image's range; 0 where the receiver has it.
        by_class: the correct images of each class at the default rate.
        tables_from: the split of the images from which the codec's tables were made.
    """

    codec: Rates
    rates: tuple[RateResult, ...]
    default: RateResult
    float_top1: float
    range_bytes: int
    by_class: tuple[int, ...] = ()
    tables_from: str = "train"


def tried_limit(image_size: int) -> int:
    """Return on how many evaluation images rates are chosen."""
    return max(LEAST_TRIED, min(MOST_TRIED, MOST_TRIED * TRIED_SIZE**2 // image_size**2))


def fit_ladder(student: SplitStudent, batches: Batches) -> list[Rate]:
    """Make candidates for rates from training images, the first one lossless; equal on all hosts.

    Args:
        student: whose latents are sent.
        batches: of training images, no more than `rates.training_images`; the same on every host.
    """
    latents, affine = student.training_latents(batches)
    zero_point = int(np.clip(np.median(affine.zero_point), 0, 255))  # per channel, any does: it only shifts the steps
    candidates = ladder.fit_candidates(latents, lambda each: student.logits(each, affine), zero_point=zero_point)
    shape = latents.shape[1:]
    return [_same_on_all_hosts(rate, shape) for rate in candidates] if jax.process_count() > 1 else candidates


def choose_rates(
    student: SplitStudent, candidates: Sequence[Rate], batches: Batches, *, teacher_top1: float | None
) -> Rates:
    """Keep the candidates that are worth having, and the best default among them.

    Args:
        student: whose latents are sent.
        candidates: from `fit_ladder`.
        batches: of evaluation images, this host's share.
        teacher_top1: of the same images, percent; None without a teacher.
    """
    tables = [_Rounding(rate) for rate in candidates]
    tally, without, shape = _Tally(len(candidates)), _Tally(1), (0, 0, 0)
    for batch in batches:
        sent = student.send(batch)
        shape = sent.latents.shape[1:]
        without.add(0, sent.mask, [0] * int(sent.mask.sum()), sent.float_counts)
        for number, (rate, table) in enumerate(zip(candidates, tables, strict=True)):
            sizes = payload_sizes(sent.latents[sent.mask], rate)
            tally.add(number, sent.mask, sizes, student.counts(sent, table(sent.latents)))
    points = [
        ladder.RatePoint(rate, *tally.bytes(number, student.range_bytes), **percentages(tally.counts[number]))
        for number, rate in enumerate(candidates)
    ]
    float_top1 = percentages(without.counts[0])["top1"]
    chosen = ladder.choose(points, float_top1=float_top1, teacher_top1=teacher_top1)
    return make_rates([point.rate for point in chosen], head="", shape=shape)


def measure_payloads(student: SplitStudent, rates: Rates, batches: Batches) -> PayloadResult:
    """Send every image at every rate, and classify what arrives.

    Args:
        student: whose latents are sent.
        rates: of its latents.
        batches: of all evaluation images, this host's share.

    Raises:
        UserError: no images, or non-finite logits.
    """
    tally, raw, without = _Tally(len(rates.rates)), _Tally(1), _Tally(1)
    for batch in batches:
        sent = student.send(batch)
        whole = student.counts(sent, sent.latents)
        size = sent.latents[0].size
        raw.add(0, sent.mask, [size] * int(sent.mask.sum()), whole)
        without.add(0, sent.mask, [size] * int(sent.mask.sum()), sent.float_counts)
        for number, rate in enumerate(rates.rates):
            payloads = [wire.encode(latent, rate) for latent in sent.latents[sent.mask]]
            received = sent.latents.copy()
            received[sent.mask], problems = wire.decode_batch(payloads, rates)
            assert not any(problems), problems
            exact = set(rate.steps) == {1}  # what arrives is what was sent, on all hosts
            counts = whole if exact else student.counts(sent, received)
            tally.add(number, sent.mask, [len(payload) for payload in payloads], counts)
    require_finite(without.counts[0], "student")
    rows = [_row(RAW, None, raw, 0, student.range_bytes)]
    rows += [_row(rate.id, rate.steps, tally, number, student.range_bytes) for number, rate in enumerate(rates.rates)]
    rows.sort(key=lambda row: -row.bytes_mean)
    float_top1 = percentages(without.counts[0])["top1"]
    default = ladder.default_rate(rows, float_top1=float_top1)
    every = [RAW, *(rate.id for rate in rates.rates)]
    by_class = [*raw.counts, *tally.counts][every.index(default.id)]["by_class"]
    return PayloadResult(rates, tuple(rows), default, float_top1, student.range_bytes, tuple(map(int, by_class)))


class _Tally:
    """Sizes and counts of several rates, over batches and hosts."""

    def __init__(self, rates: int):
        self.counts: list[dict[str, Any]] = [{} for _ in range(rates)]
        self._sizes: list[list[np.ndarray]] = [[] for _ in range(rates)]

    def add(self, rate: int, mask: np.ndarray, sizes: Sequence[int] | np.ndarray, counts: Mapping[str, Any]) -> None:
        """Add a batch: the sizes of this host's images, the counts of all hosts'."""
        row = np.full(len(mask), -1, np.int32)
        row[mask] = sizes
        self._sizes[rate].append(row)
        for key, value in counts.items():
            self.counts[rate][key] = self.counts[rate].get(key, 0) + value

    def bytes(self, rate: int, extra: int) -> tuple[float, float]:
        """Return the mean and the 95th percentile of a rate's sizes and `extra` bytes, over all hosts."""
        sizes = np.asarray(multihost_utils.process_allgather(np.concatenate(self._sizes[rate]))).ravel()
        sizes = sizes[sizes >= 0]
        return float(sizes.mean()) + extra, float(np.percentile(sizes, 95)) + extra


def _row(id: str, steps: tuple[int, ...] | None, tally: _Tally, number: int, extra: int) -> RateResult:
    mean, p95 = tally.bytes(number, extra)
    return RateResult(id=id, steps=steps, bytes_mean=mean, bytes_p95=p95, **percentages(tally.counts[number]))


class _Rounding:
    """What arrives of latents at a rate, without payloads in between."""

    def __init__(self, rate: Rate):
        channels = [values_of(step, rate.zero_point)[symbols_of(step, rate.zero_point)] for step in rate.steps]
        self._values = np.stack(channels, axis=1)  # [256, c]

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        return self._values[latents, np.arange(latents.shape[-1])]


def _same_on_all_hosts(rate: Rate, shape: tuple[int, int, int]) -> Rate:
    """Return the first host's rate."""
    text = np.frombuffer(rates_text(make_rates([rate], head="", shape=shape)).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    text = multihost_utils.broadcast_one_to_all(np.resize(text, size))
    return parse_rates(np.asarray(text, np.uint8).tobytes().decode(), "the first host's rate").rates[0]
