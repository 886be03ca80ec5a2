"""How the comparison's two plots look: colours, markers, labels, and lines that lie on each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation

from bottlefit_jax.compare.methods import METHODS, OURS
from bottlefit_jax.drawing.colours import GREY
from bottlefit_jax.drawing.label_placement import label

SAME_LINE = 0.04  # times that differ by no more hide each other
DASH = 5.0  # line widths of a colour where several lines alternate


def look(method: str) -> tuple[str, str, float]:
    """Return colour, marker and its size in points."""
    known = METHODS.get(method)
    colour, marker = (GREY, "o") if known is None else (known.colour, known.marker)
    return colour, marker, (9.5 if method in OURS else 6.5) * (1.7 if marker in "*." else 1)  # these two cover little


def by_method(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """Group rows, those of a method in the order of their bytes."""
    groups: dict[str, list[dict]] = {}
    for row in sorted(rows, key=lambda row: row["bytes"]["mean"]):
        groups.setdefault(row["method"], []).append(row)
    return {row["method"]: groups[row["method"]] for row in rows}


def width_of(row: dict) -> str:
    """Return the channels of a row with a rate, "3 channels", or ""."""
    return row["setting"].split(", ")[0] if row.get("rate") else ""


def row_label(axes: Axes, row: dict, text: str, points: float) -> Annotation:
    """Make the label of a row, without a place yet; ours are larger and bold."""
    ours = row["method"] in OURS
    return label(axes, text, look(row["method"])[0], points + ours, bold=ours)


def count_beneath(rows: Sequence[dict], every: Sequence[Sequence[dict]]) -> int:
    """Count the methods drawn later that have a marker on this method's only one."""
    if len(rows) > 1:
        return 0
    later = every[[group is rows for group in every].index(True) + 1 :]
    return sum(any(_same_place(rows[0], other) for other in group) for group in later)


def _same_place(one: dict, other: dict) -> bool:
    """Return whether two markers hide each other: within 2 % of their bytes and a twentieth of a point."""
    near = abs(one["top1"]["mean"] - other["top1"]["mean"]) < 0.05
    return near and abs(one["bytes"]["mean"] - other["bytes"]["mean"]) <= 0.02 * one["bytes"]["mean"]


def alternating_dashes(lines: Sequence[np.ndarray]) -> list[tuple | None]:
    """Return a dash pattern for each line that coincides with another; None for the others.

    The patterns of lines at the same place fill each other's gaps, so that their colours alternate along it.
    """
    groups: list[list[int]] = []
    for number, line in enumerate(lines):
        for group in groups:
            if np.abs(line / lines[group[0]] - 1).max() <= SAME_LINE:
                group.append(number)
                break
        else:
            groups.append([number])
    dashes: list[tuple | None] = [None] * len(lines)
    for group in groups:
        for turn, number in enumerate(group if len(group) > 1 else []):
            dashes[number] = (-turn * DASH, (DASH, (len(group) - 1) * DASH))
    return dashes
