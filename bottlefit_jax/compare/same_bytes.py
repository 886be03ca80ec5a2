"""The table of accuracies at the same bytes, its rows grouped by what the device computes."""

from collections.abc import Sequence
from typing import Any

from bottlefit_jax.compare.curves import Curve, mean_at
from bottlefit_jax.evaluation.markdown import count_text, markdown_table

DECADE = (1, 1.2, 1.6, 2, 3, 4, 6, 8)  # byte counts, times a power of ten
COUNTS = tuple(round(number * 10**power) for power in range(1, 6) for number in DECADE)
LARGEST, SMALLEST = 12, (6, 8)  # columns at most; counts below ten
ALIKE = 1.25  # encoders whose multiply-adds differ by no larger factor are compared with each other
NOTHING = "–"


def same_bytes(curves: Sequence[Curve]) -> dict[str, Any]:
    """Interpolate every curve at the same numbers of bytes.

    Args:
        curves: from `measured_curves`.

    Returns:
        {"bytes", "groups"}: the counts at which two trained methods were measured (one, where there is no second), and
        for each group of methods {"heading", "rows"}; a row has "title", "macs", and "top1", {"mean", "std"} or None
        for each count.
    """
    several = len({curve["method"] for curve in curves if curve["trained"]}) > 1
    counts = [count for count in (*SMALLEST, *COUNTS) if _trained_at(curves, count) >= 1 + several]
    counts = counts[:: -(-len(counts) // LARGEST) or 1]
    widths: dict[str, int] = {}
    for curve in curves:
        widths[curve["method"]] = widths.get(curve["method"], 0) + 1

    def row(curve: Curve) -> dict[str, Any]:
        title = curve["title"] + (f", {curve['channels']} channels" if widths[curve["method"]] > 1 else "")
        known = {key: curve[key] for key in ("method", "macs")}
        return {"title": title, **known, "top1": [mean_at(curve, count) for count in counts]}

    groups = [(_heading(group), [row(curve) for curve in group]) for group in _groups(curves)]
    return {"bytes": counts, "groups": [{"heading": heading, "rows": rows} for heading, rows in groups]}


def same_bytes_text(table: dict[str, Any]) -> list[str]:
    """Write the table as blocks of Markdown; [] where nothing was measured at the same bytes."""
    counts = table["bytes"]
    if not counts:
        return []
    columns = (f"{count:,}" for count in counts)
    rows: list[tuple[str, ...]] = [("top-1 %, at bytes per image:", "multiply-adds on the device", *columns)]
    for group in table["groups"]:
        rows.append((f"**{group['heading']}**", *[""] * (1 + len(counts))))
        rows += [
            (row["title"], count_text(row["macs"]) if row["macs"] else "0", *map(_cell, row["top1"]))
            for row in group["rows"]
        ]
    return [
        "## Accuracy at the same bytes",
        markdown_table(rows, "l" + "r" * (1 + len(counts))),
        "Means of the seeds; each seed is interpolated between the rates that it was measured at, linearly in the "
        f"logarithm of the bytes. {NOTHING} is outside what every seed was measured at.",
    ]


def _trained_at(curves: Sequence[Curve], count: float) -> int:
    return len({curve["method"] for curve in curves if curve["trained"] and mean_at(curve, count)})


def _groups(curves: Sequence[Curve]) -> list[list[Curve]]:
    """Group curves: own encoders by multiply-adds from the cheapest on, heads of the teacher's parts, images."""
    groups: list[list[Curve]] = []
    trained = [curve for curve in curves if curve["trained"]]
    for curve in sorted((curve for curve in trained if not curve["keeps_teacher"]), key=lambda curve: curve["macs"]):
        if groups and curve["macs"] <= ALIKE * groups[-1][0]["macs"]:
            groups[-1].append(curve)
        else:
            groups.append([curve])
    order = [id(curve) for curve in curves]
    groups = [sorted(group, key=lambda curve: order.index(id(curve))) for group in groups]
    groups.append([curve for curve in trained if curve["keeps_teacher"]])
    groups.append([curve for curve in curves if not curve["trained"]])
    return [group for group in groups if group]


def _heading(group: Sequence[Curve]) -> str:
    if not group[0]["trained"]:
        return "images sent as files, the whole teacher on the server"
    fewest, most = (count_text(limit(curve["macs"] for curve in group)) for limit in (min, max))
    cost = f"{fewest} multiply-adds" if fewest == most else f"{fewest} to {most} multiply-adds"
    return f"{'the teacher up to the cut' if group[0]['keeps_teacher'] else 'an encoder of its own'}, {cost}"


def _cell(top1: dict[str, float | None] | None) -> str:
    return NOTHING if top1 is None else f"{top1['mean']:.2f}"
