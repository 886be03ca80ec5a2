"""The rows of the table: settings of a method in order, seeds as mean and spread.

The seeds of a student have rates of their own, with steps and bytes that differ. A row takes from each seed the rate
that meets one target: the cheapest one that loses at most so many points of top-1.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bottlefit_jax.compare.items import Item
from bottlefit_jax.evaluation.payloads import RAW
from bottlefit_jax.evaluation.rates import LOSSLESS, TARGETS

Result = Mapping[str, Any]
Times = Mapping[str, Mapping[str, float]]
UNKNOWN = {"device": None, "server": None}


def same_network(result: Result) -> str:
    """Return a text that is equal for trainings of the same network, which differ in their weights alone."""
    return f"{result['latent']} {result['params']} {result['macs']}"


def table(
    items: Sequence[Item], results: Mapping[str, Result], failures: Mapping[str, str], times: Times
) -> list[dict[str, Any]]:
    """Make a row for each setting of each method, in the methods' order, and for each failure its reason.

    Args:
        items: everything to measure.
        results: by an item's name; items not yet measured have none.
        failures: reasons by an item's name.
        times: milliseconds of "device" and "server" by an item's name; {} before they are measured.
    """
    rows = []
    for method in dict.fromkeys(item.method for item in items):
        groups: dict[Any, list[Item]] = {}
        for item in items:
            if item.method == method:
                groups.setdefault((item.quality, item.channels), []).append(item)
        for group in groups.values():
            done = [item for item in group if item.name in results]
            if done:
                rows += _measured(done, [results[item.name] for item in done], times, results["local"])
            rows += [_failed(item, failures[item.name]) for item in group if item.name in failures]
    return rows


def _measured(group: Sequence[Item], results: Sequence[Result], times: Times, teacher: Result) -> list[dict[str, Any]]:
    """Make the rows of one setting, all its seeds together; an early exit has a row for each threshold."""
    ms = times.get(group[0].name, UNKNOWN)
    common = {"params": results[0]["params"], "macs": results[0]["macs"]}
    if "exits" not in results[0]:
        return [
            _row(group, chosen, teacher, ms=dict(ms), setting=setting, rate=rate, **common)
            for rate, setting, chosen in _by_target(results, teacher["top1"])
        ]
    rows = []
    for number, first in enumerate(results[0]["exits"]):
        exits = [result["exits"][number] for result in results]
        sent = statistics.fmean(each["sent"] for each in exits)
        server = None if ms["server"] is None else ms["server"] * sent
        threshold = first["threshold"]
        setting = f"threshold {threshold:g}, {100 * sent:.0f} % sent" if threshold <= 1 else "no exit"
        rows.append(_row(group, exits, teacher, ms={**ms, "server": server}, setting=setting, **common))
    return rows


def _by_target(results: Sequence[Result], teacher: float) -> list[tuple[str | None, str | None, Sequence[Result]]]:
    """Return for each target its name, the setting of its row, and the rate of each seed.

    A target that has the same rate in all seeds as the one before is left out. Points are counted as they are where the
    rates are chosen: from the teacher, or from the best of the seed's rates where that is lower.
    """
    if "latent" not in results[0]:  # nothing was trained
        return [(None, None, results)]
    channels = f"{results[0]['latent'][-1]} channels"
    if not all(result.get("rates") for result in results):
        measured_before = any("rates" not in result for result in results)
        return [(None, f"{channels}, not coded" if measured_before else channels, results)]
    rows = []
    for target in (0.0, *TARGETS):
        chosen = [_cheapest(result, teacher, target) for result in results]
        if not rows or chosen != rows[-1][2]:
            name = f"within-{target:g}" if target else LOSSLESS
            words = f"within {target:g} points" if target else "lossless"
            rows.append((name, f"{channels}, {words}", chosen))
    return rows


def _cheapest(result: Result, teacher: float, target: float) -> Result:
    """Return the rate of one training that meets a target, as a result."""
    rates = [rate for rate in result["rates"] if rate["id"] != RAW]
    if not target:
        rates = [rate for rate in rates if rate["id"] == LOSSLESS]
    reference = min(teacher, max(rate["top1"] for rate in rates))
    rate = min(
        (rate for rate in rates if rate["top1"] >= reference - target - 1e-9), key=lambda rate: rate["bytes_mean"]
    )
    return {**rate, "bytes": {"mean": rate["bytes_mean"], "p95": rate["bytes_p95"]}}


def _row(
    group: Sequence[Item],
    results: Sequence[Result],
    teacher: Result,
    *,
    setting: str | None = None,
    rate: str | None = None,
    **measured: Any,
) -> dict[str, Any]:
    top1 = _over_seeds([result["top1"] for result in results])
    return {
        **_heading(group[0], setting),
        "rate": rate,
        "top1": top1,
        "top5": _over_seeds([result["top5"] for result in results]),
        "drop_points": teacher["top1"] - top1["mean"],
        "bytes": {key: statistics.fmean(result["bytes"][key] for result in results) for key in ("mean", "p95")},
        **measured,
        "seeds": [
            {"seed": item.seed, **{key: result[key] for key in ("top1", "top5", "bytes")}}
            for item, result in zip(group, results, strict=True)
        ],
        "error": None,
    }


def _failed(item: Item, reason: str) -> dict[str, Any]:
    """Make a row with the reason why there are no numbers."""
    seed = "" if item.seed is None else f"seed {item.seed}"
    channels = "" if item.channels is None else f"{item.channels} channels"
    nothing = dict.fromkeys(("top1", "top5", "drop_points", "bytes", "params", "macs"))
    heading = _heading(item, ", ".join(filter(None, (channels, seed))) or None)
    return {**heading, "rate": None, **nothing, "ms": UNKNOWN, "seeds": [], "error": reason}


def _heading(item: Item, setting: str | None) -> dict[str, Any]:
    if setting is None:
        setting = "" if item.quality is None else f"quality {item.quality}"
    return {
        "method": item.method.name,
        "title": item.method.title,
        "setting": setting,
        "trained": item.method.change is not None,
    }


def _over_seeds(values: Sequence[float]) -> dict[str, float | None]:
    """Return mean and sample standard deviation; the latter is None for one value."""
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}
