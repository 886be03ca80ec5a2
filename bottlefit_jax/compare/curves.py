"""What each method was measured at, seed by seed: the points of its curve, accuracy against bytes."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bottlefit_jax.compare.items import Item
from bottlefit_jax.evaluation.payloads import RAW

Result = Mapping[str, Any]
Curve = dict[str, Any]
Points = Sequence[Sequence[float]]  # (bytes, top-1), from the fewest bytes to the most


def measured_curves(items: Sequence[Item], results: Mapping[str, Result]) -> list[Curve]:
    """Make a curve for each method, or for each number of channels of a method that was trained with several.

    Args:
        items: everything to measure.
        results: by an item's name; items not yet measured have none.

    Returns:
        {"method", "title", "channels", "trained", "keeps_teacher", "macs", "seeds"}, in the order of the items; "seeds"
        has {"seed", "points"} for each training, every rate of its ladder a point.
    """
    groups: dict[tuple[str, int | None], list[Item]] = {}
    for item in items:
        if item.name in results and item.method.name != "local":
            groups.setdefault((item.method.name, item.channels), []).append(item)
    curves = []
    for group in groups.values():
        method, first = group[0].method, results[group[0].name]
        seeds: dict[int | None, list[tuple[float, float]]] = {}
        for item in group:
            seeds.setdefault(item.seed, []).extend(_points(results[item.name]))
        curves.append(
            {
                "method": method.name,
                "title": method.title,
                "channels": first["latent"][-1] if "latent" in first else None,
                "trained": method.change is not None,
                "keeps_teacher": method.keeps_teacher,
                "macs": first["macs"],
                "seeds": [{"seed": seed, "points": _in_order(points)} for seed, points in seeds.items()],
            }
        )
    return curves


def top1_at(points: Points, sent: float) -> float | None:
    """Return the top-1 at a number of bytes, linear in their logarithm between points; None outside their range."""
    if not points or not points[0][0] <= sent <= points[-1][0]:
        return None
    logarithms, top1 = zip(*((math.log(each), value) for each, value in points), strict=True)
    return float(np.interp(math.log(sent), logarithms, top1))


def mean_at(curve: Curve, sent: float) -> dict[str, float | None] | None:
    """Return {"mean", "std"} of all seeds' top-1 at a number of bytes; None where it is outside the range of one."""
    values = [top1_at(seed["points"], sent) for seed in curve["seeds"]]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return {"mean": statistics.fmean(known), "std": statistics.stdev(known) if len(known) > 1 else None}


def mean_points(curve: Curve) -> list[tuple[float, float]]:
    """Return the seeds' mean curve, at every number of bytes that a seed was measured at and all seeds have."""
    measured = sorted({sent for seed in curve["seeds"] for sent, _ in seed["points"]})
    means = ((sent, mean_at(curve, sent)) for sent in measured)
    return [(sent, mean["mean"]) for sent, mean in means if mean is not None and mean["mean"] is not None]


def _points(result: Result) -> list[tuple[float, float]]:
    """Return (bytes, top-1) of one item: of each threshold of an exit, of each coded rate, or of the item itself."""
    if "exits" in result:
        return [(each["bytes"]["mean"], each["top1"]) for each in result["exits"]]
    coded = [rate for rate in result.get("rates") or () if rate["id"] != RAW]
    return [(rate["bytes_mean"], rate["top1"]) for rate in coded] or [(result["bytes"]["mean"], result["top1"])]


def _in_order(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Sort points by bytes; of equal bytes the most accurate counts, and points without bytes have no logarithm."""
    best: dict[float, float] = {}
    for sent, top1 in points:
        best[sent] = max(top1, best.get(sent, top1))
    return sorted((sent, top1) for sent, top1 in best.items() if sent > 0)
