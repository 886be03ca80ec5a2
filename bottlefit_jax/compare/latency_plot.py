"""The comparison's second plot: the time for an image against the rate of the link, a line per method."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bottlefit_jax.compare.messages import latency_message
from bottlefit_jax.compare.methods import OURS
from bottlefit_jax.compare.plot_style import alternating_dashes, by_method, look, row_label, width_of
from bottlefit_jax.compare.report import best, measured, row_name, within_goal
from bottlefit_jax.drawing.axes import decorate, decorate_log_axis, log_limits
from bottlefit_jax.drawing.figures import SMALL, figure, save, title
from bottlefit_jax.drawing.label_placement import PIXELS, Labels, frame, size, stacked
from bottlefit_jax.evaluation.report_text import DROP_GOAL

RATES = np.geomspace(0.1, 100, 61)  # Mbit/s


def latency(path: str | os.PathLike, comparison: dict) -> bool:
    """Draw the time for an image against the rate of the link, a line per method.

    A method with several settings is drawn at the one that sends the fewest bytes within the goal, or loses least.

    Args:
        path: where to write the PNG.
        comparison: the structure of `compare.json`.

    Returns:
        Whether there was anything to draw; if not, no file is written.

    Raises:
        UserError: the file cannot be written.
    """
    plot = _latency(comparison)
    if plot is not None:
        save(plot, path)
    return plot is not None


def _latency(comparison: dict) -> Figure | None:
    timed = by_method([row for row in comparison["rows"] if measured(row) and None not in _ms(row)])
    if not timed:
        return None
    chosen = [best(rows) for rows in timed.values()]
    slower = comparison["device_slower"]
    times = [_times(row, slower) for row in chosen]
    plot = figure(5.8)
    subject = f"{comparison['teacher']['name']} on {comparison['dataset']}"
    subject += f", device {slower:g} times slower than the measuring core" if slower != 1 else ""
    title(plot, f"{latency_message(chosen, times, RATES)} ({subject})")
    axes = plot.subplots()
    texts, ends = [], []
    dashes = alternating_dashes(times)
    for number, (row, taken, dash) in enumerate(zip(chosen, times, dashes, strict=True)):
        _latency_line(axes, row, taken, dash, first_marker=5 * number % 12)
        ends.append((RATES[-1], taken[-1]))
        several = sum(measured(other) and other["method"] == row["method"] for other in comparison["rows"]) > 1
        words = row_name(row) if several else row["title"]
        if (width := width_of(row)) and all(width_of(other) == width for other in timed[row["method"]]):
            words = words.replace(f", {width}", "")
        words += "" if within_goal(row) else f" (−{row['drop_points']:.1f} points)"
        texts.append(row_label(axes, row, words, SMALL))
    _link_axes(axes, times)
    axes.set_xlabel("link rate, Mbit/s" + _legend(chosen, dashes))
    margin = (max(size(text)[0] for text in texts) + 30 * PIXELS) / plot.bbox.width
    plot.set_layout_engine("constrained", rect=(0, 0, 1 - margin, 1))
    plot.draw_without_rendering()
    plot.set_layout_engine("none")  # from here on a pixel stays where it is
    labels = Labels(axes)
    _, low, right, high = frame(axes)
    places, left = [labels.pixel(*end) for end in ends], right + 24 * PIXELS
    bottoms = stacked([size(text) for text in texts], places, low, high)
    for text, place, bottom in zip(texts, places, bottoms, strict=True):
        width, height = size(text)
        labels.settle(text, place, (left, bottom, left + width, bottom + height))
    return plot


def _ms(row: dict) -> tuple[float | None, float | None]:
    ms = row["ms"] or {}
    return ms.get("device"), ms.get("server")


def _times(row: dict, slower: float) -> np.ndarray:
    """Return the milliseconds of one row at all rates."""
    device, server = _ms(row)
    return (device or 0) * slower + row["bytes"]["mean"] * 8 / (RATES * 1000) + (server or 0)


def _latency_line(axes: Axes, row: dict, times: np.ndarray, dash: tuple | None, *, first_marker: int):
    """Draw the time of one row over all rates, dashed where it loses too much or coincides with other lines."""
    colour, marker, size = look(row["method"])
    alone = "-" if within_goal(row) else "--"
    axes.plot(
        RATES,
        times,
        color=colour,
        marker=marker,
        markersize=size - 1.5,
        markevery=(first_marker, 12),
        markeredgecolor="white",
        markeredgewidth=0.5,
        linewidth=(2.2 if row["method"] in OURS else 1.4) if dash is None else 2.2,
        linestyle=alone if dash is None else dash,
        dash_capstyle="butt",
        label=row_name(row),
        zorder=5 if row["method"] in OURS else 3,
    )


def _link_axes(axes: Axes, times: Sequence[np.ndarray]):
    """Set logarithmic axes up that hold all times."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(RATES[0], RATES[-1])
    axes.set_ylim(*log_limits([float(value) for taken in times for value in (taken.min(), taken.max())], after=1.3))
    decorate(axes)
    decorate_log_axis(axes.xaxis)
    decorate_log_axis(axes.yaxis)
    axes.set_ylabel("time for an image, ms: device + link + server")


def _legend(rows: Sequence[dict], dashes: Sequence[tuple | None]) -> str:
    """Explain the styles of lines that there are."""
    alone = [row for row, dash in zip(rows, dashes, strict=True) if dash is None]
    lines = []
    if not all(within_goal(row) for row in alone):
        lines.append(f"solid: within {DROP_GOAL} points of the teacher; dashed: loses more")
    if len(alone) < len(rows):
        lines.append("several colours: methods that take the same time")
    return "".join(f"\n{line}" for line in lines)
