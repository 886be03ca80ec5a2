"""How the comparison's two images look: colours, markers, titles, axes, and lines that lie on each other."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bottlefit_jax.compare.label_placement import label
from bottlefit_jax.compare.report import OURS
from bottlefit_jax.evaluation.plots import BLUE, GREY, ORANGE, RED

LOOKS = {  # method -> colour and marker; blue is BottleFit's
    "local": ("black", "s"),
    "jpeg": (ORANGE, "s"),
    "webp": (RED, "D"),
    "vanilla": ("#8c8c8c", "v"),
    "kd": ("#8a7a12", "^"),
    "hnd": ("#59a14f", "P"),
    "ghnd": ("#1c6b43", "X"),
    "bottlefit": (BLUE, "o"),
    "bottlefit-patch": ("#1e9bd7", "h"),
    "cr-bq": ("#7a4fa3", ">"),
    "autoencoder": ("#c2558f", "<"),
    "spinn": ("#7b5a3a", "d"),
}
TITLE_WIDTH = 88  # characters of 11 points, bold, on a figure of 9.6 inches
SAME_LINE = 0.04  # times that differ by no more hide each other
DASH = 5.0  # line widths of a colour where several lines take turns


def look(method: str) -> tuple[str, str, float]:
    """Return colour, marker and its size in points."""
    return (*LOOKS.get(method, (GREY, "o")), 9.5 if method in OURS else 6.5)


def title(axes: Axes, title: str):
    """Write the title in as many lines as the figure's width asks for."""
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, TITLE_WIDTH)]
    axes.set_title("\n".join(lines), fontsize=11, fontweight="bold", loc="left", pad=10, parse_math=False)


def decorate(axes: Axes):
    """Give a logarithmic x axis plain numbers, a quiet grid and no box."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, color=GREY)


def name(axes: Axes, row: dict, words: str, points: float) -> Annotation:
    """Make the label of a row, still to be moved to its place; ours are larger and bold."""
    ours = row["method"] in OURS
    return label(axes, words, look(row["method"])[0], points + ours, bold=ours)


def taking_turns(lines: Sequence[np.ndarray]) -> list[tuple | None]:
    """Return a dash pattern for each line that would hide, or be hidden by, another; None for one that stands alone.

    The patterns of lines at the same place fill each other's gaps, so that their colours take turns along it.
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
