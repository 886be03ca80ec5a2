"""The comparison's two plots: accuracy against bytes, and latency against the rate of the link."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bottlefit_jax.compare.curves import mean_points
from bottlefit_jax.compare.methods import OURS
from bottlefit_jax.compare.plot_style import alternating_dashes, count_beneath, look, row_label, title
from bottlefit_jax.compare.report import best, measured, row_name, within_goal
from bottlefit_jax.evaluation.axes import decorate_log_axis
from bottlefit_jax.evaluation.colours import GREEN
from bottlefit_jax.evaluation.label_placement import ABOVE, BESIDE, PIXELS, Labels, frame, label, size, stacked
from bottlefit_jax.evaluation.plots import figure, save
from bottlefit_jax.evaluation.report_text import DROP_GOAL

DEPTH = 15.0  # points under the teacher within which every setting is shown
DEEPEST = 40.0  # the most that a poor method can stretch that; below it, it leaves the frame too
LEAST_BYTES = 1.0  # a mean below it, of a method that sends little more than nothing, is outside the frame
RATES = np.geomspace(0.1, 100, 61)  # Mbit/s


def rate_accuracy(path: str | os.PathLike, comparison: dict) -> bool:
    """Draw top-1 against the bytes of an image, with a name beside every method.

    Args:
        path: where to write the PNG.
        comparison: the structure of `compare.json`.

    Returns:
        Whether there was anything to draw; if not, no file is written.

    Raises:
        UserError: the file cannot be written.
    """
    plot = _rate_accuracy(comparison)
    if plot is not None:
        save(plot, path)
    return plot is not None


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


def _rate_accuracy(comparison: dict) -> Figure | None:
    rows = [row for row in comparison["rows"] if measured(row) and row["method"] != "local"]
    if not any(row["bytes"]["mean"] >= LEAST_BYTES for row in rows):
        return None
    plot = figure(9.6, 6.4)
    axes = plot.subplots()
    bottom = _floor(comparison["teacher"]["top1"], rows)
    _rate_axes(axes, comparison, rows, bottom)
    curves = _curves(rows)
    ladders = {name: _ladder(comparison, group) for name, group in curves.items()}
    for name, group in curves.items():
        _curve(axes, group, ladders[name], bottom, beneath=count_beneath(group, list(curves.values())))
    plot.draw_without_rendering()
    plot.set_layout_engine("none")  # from here on a pixel stays where it is
    _name_all(axes, curves, ladders, comparison["teacher"]["top1"], bottom)
    return plot


def _floor(teacher: float, rows: Sequence[dict]) -> float:
    """Return the lowest top-1 that is shown, a little below everything that must be seen.

    That is every trained method at its best setting, other settings within DEPTH, and the paper's claim.
    """
    trained = [best(group)["top1"] for group in _by_method(rows).values() if group[0]["trained"]]
    near = [row["top1"] for row in rows if row["top1"]["mean"] >= teacher - DEPTH]
    lowest = min([teacher - DROP_GOAL, *(top1["mean"] - (top1["std"] or 0) for top1 in (*trained, *near))])
    return max(lowest - min(0.15 * (teacher - lowest), 1), teacher - DEEPEST, 0)


def _by_method(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """Group rows, those of a method in the order of their bytes."""
    groups: dict[str, list[dict]] = {}
    for row in sorted(rows, key=lambda row: row["bytes"]["mean"]):
        groups.setdefault(row["method"], []).append(row)
    return {row["method"]: groups[row["method"]] for row in rows}


def _curves(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """Group rows into curves, by name: one for a method, or one for each number of channels where it has rates."""
    curves: dict[str, list[dict]] = {}
    for method in _by_method(rows).values():
        widths = list(dict.fromkeys(_width(row) for row in method))
        for width in widths:
            name = f"{method[0]['title']}, {width}" if width and len(widths) > 1 else method[0]["title"]
            curves[name] = [row for row in method if _width(row) == width]
    return curves


def _width(row: dict) -> str:
    """Return the channels of a row with a rate, "3 channels", or ""."""
    return row["setting"].split(", ")[0] if row.get("rate") else ""


def _ladder(comparison: dict, rows: Sequence[dict]) -> dict | None:
    """Return what was measured of a curve seed by seed, where its rows are only some of it: it was sent at rates."""
    same = [one for one in comparison["curves"] if one["method"] == rows[0]["method"]]
    return next((one for one in same if f"{one['channels']} channels" == _width(rows[0])), None)


def _line(rows: Sequence[dict], ladder: dict | None) -> list[tuple[float, float]]:
    """Return the line of a curve: through every measured rate, or where seeds have no bytes in common, the rows."""
    through = mean_points(ladder) if ladder else []
    sent = [(row["bytes"]["mean"], row["top1"]["mean"]) for row in rows if row["bytes"]["mean"] >= LEAST_BYTES]
    return through if len(through) > 1 else sent


def _rate_axes(axes: Axes, comparison: dict, rows: Sequence[dict], bottom: float):
    """Set the axes up, with the teacher as a line and the paper's claim as a band."""
    teacher = comparison["teacher"]
    sent = [row["bytes"]["mean"] for row in rows if row["bytes"]["mean"] >= LEAST_BYTES]
    axes.set_xscale("log")
    axes.set_xlim(min(sent) / 2, max(sent) * 1.6)  # names need room on the left
    highest = max([teacher["top1"], *(row["top1"]["mean"] + (row["top1"]["std"] or 0) for row in rows)])
    axes.set_ylim(bottom, highest + 0.07 * (highest - bottom))
    axes.axhspan(teacher["top1"] - DROP_GOAL, teacher["top1"], color=GREEN, alpha=0.16, linewidth=0)
    axes.axhline(teacher["top1"], color="black", linewidth=1.2)
    beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 8.5}
    axes.annotate(
        f"teacher = local,\n0 bytes: {teacher['top1']:.1f} %", (1, teacher["top1"]), (6, 1), va="bottom", **beside
    )
    axes.annotate(
        f"shaded: at most\n{DROP_GOAL} points less,\nthe paper's claim",
        (1, teacher["top1"] - DROP_GOAL / 2),
        (6, -2),
        va="top",
        color=GREEN,
        **beside,
    )
    decorate_log_axis(axes)
    dots = "\nmarkers: rows of the table; small dots: every rate of every seed" if comparison["curves"] else ""
    axes.set_xlabel(f"sent per image, bytes (mean, logarithmic){dots}")
    axes.set_ylabel("top-1, %")
    title(axes, f"{teacher['name']} on {comparison['dataset']}: accuracy against bytes sent; better is up and left")


def _curve(axes: Axes, rows: Sequence[dict], ladder: dict | None, bottom: float, *, beneath: int):
    """Draw one method: a line, its rows with error bars, a dot for each rate, and a triangle where it leaves the frame.

    A marker grows with the number of markers that it lies `beneath`, so that it is seen around them.
    """
    method = rows[0]["method"]
    colour, marker, size = look(method)
    size += 5.0 * beneath
    # ours are larger, so markers on top of them leave them visible
    order = 2.5 - 0.1 * beneath if beneath else 3 if method in OURS else 4
    sending = [row for row in rows if row["bytes"]["mean"] >= LEAST_BYTES]
    width = 2.2 if method in OURS else 1.4
    axes.plot(*zip(*_line(rows, ladder), strict=True), color=colour, linewidth=width, zorder=order)
    dots = [point for seed in (ladder["seeds"] if ladder else ()) for point in seed["points"]]
    if dots:
        axes.plot(*zip(*dots, strict=True), ".", color=colour, markersize=4, alpha=0.55, zorder=order, gid="rates")
    axes.errorbar(
        [row["bytes"]["mean"] for row in sending],
        [row["top1"]["mean"] for row in sending],
        [row["top1"]["std"] or 0 for row in sending],
        color=colour,
        marker=marker,
        markersize=size,
        markeredgecolor="white",
        markeredgewidth=0.6,
        linestyle="none",
        elinewidth=1.1,
        capsize=2.5,
        label=rows[0]["title"],
        zorder=order,
    )
    for row in rows:
        edge = _edge(row, bottom)
        if edge:
            axes.plot(*_at(axes, row, bottom), edge, color=colour, markersize=6.5, clip_on=False, zorder=6, gid="edge")


def _edge(row: dict, bottom: float) -> str:
    """Return the marker of a row outside the frame: left for few bytes, down for a low accuracy; "" inside it."""
    if row["bytes"]["mean"] < LEAST_BYTES:
        return "<"
    return "v" if row["top1"]["mean"] < bottom else ""


def _few(sent: float) -> str:
    """Write a mean below LEAST_BYTES: 0 bytes, 0.05 bytes."""
    return f"{sent:.1g} bytes"


def _at(axes: Axes, row: dict, bottom: float) -> tuple[float, float]:
    """Return where a row is drawn: its place, or the nearest point of the frame."""
    return max(row["bytes"]["mean"], axes.get_xlim()[0]), max(row["top1"]["mean"], bottom)


def _name_all(axes: Axes, curves: dict[str, list[dict]], ladders: dict, teacher: float, bottom: float):
    """Write all names: of columns of near-equal bytes first, then of lines, then of settings where there is room."""
    labels = Labels(axes)
    at = {id(row): labels.pixel(*_at(axes, row, bottom)) for rows in curves.values() for row in rows}
    _avoid(labels, curves, ladders, at)
    left, _, right, _ = frame(axes)
    labels.avoid_point((left, labels.pixel(1, teacher)[1]), right - left, 2)
    for column in _columns([rows[0] for rows in curves.values() if len(rows) == 1], at):
        labels.column([row_label(axes, row, row["title"], 10) for row in column], [at[id(row)] for row in column])
    ours_first = sorted(curves.items(), key=lambda curve: curve[1][0]["method"] not in OURS)
    lines = {name: rows for name, rows in ours_first if len(rows) > 1}
    for name, rows in lines.items():
        inside = [row for row in rows if not _edge(row, bottom)] or rows
        middle = (len(inside) - 1) / 2
        anchors = [inside[index] for index in sorted(range(len(inside)), key=lambda index: abs(index - middle))]
        labels.nearest(row_label(axes, rows[0], name, 10), [at[id(row)] for row in anchors])
    for row in (row for rows in lines.values() for row in rows):
        edge, words = _edge(row, bottom), row["setting"].replace("quality ", "q")
        if row.get("rate") and not edge:
            continue  # a label between so many markers could belong to any
        beyond = [_few(row["bytes"]["mean"])] if edge == "<" else []
        beyond += [f"{row['top1']['mean']:.0f} %"] if row["top1"]["mean"] < bottom else []
        words = f"{words}: {', '.join(beyond)}" if beyond else words
        upright = edge == "v"
        text = label(axes, words, look(row["method"])[0], 7.5, upright=upright)
        labels.nearest(text, [at[id(row)]], directions=ABOVE if upright else BESIDE, required=bool(edge))


def _avoid(labels: Labels, curves: dict[str, list[dict]], ladders: dict, at: dict):
    """Keep the labels off markers, error bars and lines."""
    for name, rows in curves.items():
        half = (look(rows[0]["method"])[2] / 2 + 1) * PIXELS
        for row in rows:
            std = row["top1"]["std"] or 0
            labels.avoid_point(at[id(row)], half, max(half, labels.pixel(1, std)[1] - labels.pixel(1, 0)[1]))
        labels.avoid_line(labels.pixel(*point) for point in _line(rows, ladders[name]))


def _columns(rows: Sequence[dict], at: dict) -> list[list[dict]]:
    """Group rows whose markers stand nearly above each other."""
    columns: list[list[dict]] = []
    for row in sorted(rows, key=lambda row: at[id(row)][0]):
        if columns and at[id(row)][0] - at[id(columns[-1][-1])][0] < 20 * PIXELS:
            columns[-1].append(row)
        else:
            columns.append([row])
    return columns


def _latency(comparison: dict) -> Figure | None:
    timed = _by_method([row for row in comparison["rows"] if measured(row) and None not in _ms(row)])
    if not timed:
        return None
    plot = figure(9.6, 6.4)
    axes = plot.subplots()
    texts, ends = [], []
    chosen = [best(rows) for rows in timed.values()]
    dashes = alternating_dashes([_times(row, comparison["device_slower"]) for row in chosen])
    for number, (row, dash) in enumerate(zip(chosen, dashes, strict=True)):
        times = _times(row, comparison["device_slower"])
        _latency_line(axes, row, times, dash, first_marker=5 * number % 12)
        ends.append((RATES[-1], times[-1]))
        several = sum(measured(other) and other["method"] == row["method"] for other in comparison["rows"]) > 1
        words = row_name(row) if several else row["title"]
        if (width := _width(row)) and all(_width(other) == width for other in timed[row["method"]]):
            words = words.replace(f", {width}", "")
        words += "" if within_goal(row) else f" (−{row['drop_points']:.1f} points)"
        texts.append(row_label(axes, row, words, 9))
    _link_axes(axes, comparison)
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


def _link_axes(axes: Axes, comparison: dict):
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(RATES[0], RATES[-1])
    decorate_log_axis(axes)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(
        f"link rate, Mbit/s\nsolid: within {DROP_GOAL} points of the teacher; dashed: loses more\n"
        "several colours: methods that take the same time"
    )
    axes.set_ylabel("time for an image, ms: device + link + server")
    slower = comparison["device_slower"]
    text = f"{comparison['teacher']['name']} on {comparison['dataset']}: latency against link rate"
    text += f"\ndevice {slower:g} times slower than the measuring core" if slower != 1 else ""
    title(axes, text)
