"""The rates of a bundle: code tables for what its head makes, measured through its tail."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.bundle import Manifest, RateEntry, read_bundle
from bottlefit_jax.codec.rates import Rates, make_rates, rates_text
from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.rates import LEAST, TARGETS, RatePoint, choose, default_rate, fit_candidates, measure
from export.open_files import run_onnx, session_of
from export.tail import LOGITS

TABLES, PLOT = "rates.json", "rates.png"
HOPELESS = 2 * max(TARGETS)  # points of top-1 below the best: no coarser rate will be chosen


@dataclasses.dataclass(frozen=True)
class Ladder:
    """The rates of a bundle, as they were measured on the evaluation images.

    Attributes:
        rates: the code tables.
        points: one for each rate, in their order.
        candidates: what was tried, the points among them.
        default: the id of the default rate.
    """

    rates: Rates
    points: tuple[RatePoint, ...]
    candidates: tuple[RatePoint, ...]
    default: str

    @property
    def default_point(self) -> RatePoint:
        """The default rate."""
        return next(point for point in self.points if point.rate.id == self.default)

    def entries(self) -> tuple[RateEntry, ...]:
        """Return what the manifest says of each rate."""
        return tuple(
            RateEntry(point.rate.id, point.rate.steps, TABLES, point.bytes_mean, point.bytes_p95, point.top1)
            for point in self.points
        )

    def write(self, folder: Path) -> None:
        """Write the file of code tables."""
        (folder / TABLES).write_text(rates_text(self.rates), encoding="utf-8")


def read_earlier(folder: Path, manifest: Manifest) -> Rates:
    """Return the code tables of an earlier bundle, for a bundle of the same head.

    Args:
        folder: of the earlier bundle.
        manifest: of the new one.

    Raises:
        UserError: the earlier bundle is invalid, has no rates, or has another head.
    """
    bundle = read_bundle(folder, verify=lambda earlier: [earlier.tables] if earlier.tables else [])
    earlier, head = bundle.manifest.head.id, manifest.head.id
    if earlier != head:
        raise UserError(
            f"--rates-from {folder} has head {earlier[:12]}…, and this student's is {head[:12]}…: devices need a new "
            "bundle anyway, so leave the flag out"
        )
    rates = bundle.read_rates()
    if rates is None:
        raise UserError(f"--rates-from {folder} has no rates: leave the flag out, and new ones are made")
    return rates


def measure_ladder(
    tail: Path,
    training: np.ndarray | Rates,
    evaluation: np.ndarray,
    labels: np.ndarray,
    *,
    columns: Sequence[int] | None,
    head: str,
    zero_point: int,
    float_top1: float,
    teacher_top1: float | None,
) -> Ladder:
    """Make and choose rates, or keep those of an earlier bundle; measure them by real payloads through tail.onnx.

    Args:
        tail: tail.onnx.
        training: uint8 [N, h, w, c] latents of training images, as the bundle's head makes them; or the rates to keep.
        evaluation: uint8 [M, h, w, c] latents of evaluation images.
        labels: int32 [M] of these.
        columns: the columns of the logits that are the dataset's classes; None for all.
        head: the head's id.
        zero_point: of the latents.
        float_top1: percent, of the student without a quantiser on the evaluation images.
        teacher_top1: percent, of the teacher on them; None where it is not known.
    """
    session = session_of(tail, threads=0)

    def logits(latents: np.ndarray) -> np.ndarray:
        return run_onnx(session, latents, LOGITS)[0]

    keep = isinstance(training, Rates)
    fitted = training.rates if keep else fit_candidates(training, logits, zero_point=zero_point)
    candidates: list[RatePoint] = []
    for rate in fitted:
        candidates.append(measure(rate, evaluation, labels, logits, class_indices=columns))
        best = max(point.top1 for point in candidates)
        if not keep and len(candidates) >= LEAST and candidates[-1].top1 < best - HOPELESS:
            break  # coarser ones lose even more
    points = candidates if keep else choose(candidates, float_top1=float_top1, teacher_top1=teacher_top1)
    made = [point.rate for point in points]
    rates = training if keep else make_rates(made, head=head, shape=evaluation.shape[1:])
    default = default_rate(points, float_top1=float_top1).rate.id
    return Ladder(rates, tuple(points), tuple(candidates), default)


def read_report(workdir: Path) -> dict[str, Any]:
    """Return the run's report.json; an empty one where there is none that can be read."""
    try:
        values = json.loads((workdir / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
