"""The comparison's first plot: accuracy against bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bottlefit_jax.compare.curves import mean_points
from bottlefit_jax.compare.messages import rate_message
from bottlefit_jax.compare.methods import OURS
from bottlefit_jax.compare.plot_style import by_method, count_beneath, look, row_label, width_of
from bottlefit_jax.compare.report import best, measured
from bottlefit_jax.drawing.axes import decorate, decorate_log_axis, log_limits
from bottlefit_jax.drawing.colours import BLACK, GREEN, JPEG, ink
from bottlefit_jax.drawing.figures import SMALL, TEXT, figure, save, title
from bottlefit_jax.drawing.label_placement import ABOVE, BESIDE, PIXELS, Labels, frame, label
from bottlefit_jax.evaluation.report_text import DROP_GOAL

DEPTH = 15.0  # points under the teacher within which every setting is shown
DEEPEST = 40.0  # the most that a poor method can stretch that; below it, it leaves the frame too
LEAST_BYTES = 1.0  # a mean below it, of a method that sends little more than nothing, is outside the frame


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


def _rate_accuracy(comparison: dict) -> Figure | None:
    rows = [row for row in comparison["rows"] if measured(row) and row["method"] != "local"]
    if not any(row["bytes"]["mean"] >= LEAST_BYTES for row in rows):
        return None
    plot = figure(6.0)
    title(plot, rate_message(comparison, rows))
    axes = plot.subplots()
    bottom = _floor(comparison["teacher"]["top1"], rows)
    _rate_axes(axes, comparison, rows, bottom)
    curves = _curves(rows)
    ladders = {name: _ladder(comparison, group) for name, group in curves.items()}
    for name, group in curves.items():
        _curve(axes, group, ladders[name], bottom, beneath=count_beneath(group, list(curves.values())))
    if len(rows) == 1:
        (place,) = ((row["bytes"]["mean"], row["top1"]["mean"]) for row in rows)
        heights = [place[1], comparison["teacher"]["top1"]]
        axes.plot([place[0]] * 2, heights, color=BLACK, linestyle=":", linewidth=1, zorder=1, gid="drop")
    plot.draw_without_rendering()
    plot.set_layout_engine("none")  # from here on a pixel stays where it is
    _name_all(axes, curves, ladders, comparison, bottom)
    return plot


def _floor(teacher: float, rows: Sequence[dict]) -> float:
    """Return the lowest top-1 that is shown, a little below everything that must be seen.

    That is every trained method at its best setting, other settings within DEPTH, and the paper's claim.
    """
    trained = [best(group)["top1"] for group in by_method(rows).values() if group[0]["trained"]]
    near = [row["top1"] for row in rows if row["top1"]["mean"] >= teacher - DEPTH]
    lowest = min([teacher - DROP_GOAL, *(top1["mean"] - (top1["std"] or 0) for top1 in (*trained, *near))])
    return max(lowest - min(0.15 * (teacher - lowest), 1), teacher - DEEPEST, 0)


def _curves(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """Group rows into curves, by name: one for a method, or one for each number of channels where it has rates."""
    curves: dict[str, list[dict]] = {}
    for method in by_method(rows).values():
        widths = list(dict.fromkeys(width_of(row) for row in method))
        for width in widths:
            name = f"{method[0]['title']}, {width}" if width and len(widths) > 1 else method[0]["title"]
            curves[name] = [row for row in method if width_of(row) == width]
    return curves


def _ladder(comparison: dict, rows: Sequence[dict]) -> dict | None:
    """Return what was measured of a curve seed by seed, where its rows are only some of it: it was sent at rates."""
    same = [one for one in comparison["curves"] if one["method"] == rows[0]["method"]]
    return next((one for one in same if f"{one['channels']} channels" == width_of(rows[0])), None)


def _line(rows: Sequence[dict], ladder: dict | None) -> list[tuple[float, float]]:
    """Return the line of a curve: through every measured rate, or where seeds have no bytes in common, the rows."""
    through = mean_points(ladder) if ladder else []
    sent = [(row["bytes"]["mean"], row["top1"]["mean"]) for row in rows if row["bytes"]["mean"] >= LEAST_BYTES]
    return through if len(through) > 1 else sent


def _rate_axes(axes: Axes, comparison: dict, rows: Sequence[dict], bottom: float):
    """Set the axes up, with the teacher as a line and the paper's claim as a band."""
    teacher = comparison["teacher"]
    sent = [row["bytes"]["mean"] for row in rows if row["bytes"]["mean"] >= LEAST_BYTES]
    if (file := _file(comparison, rows)) is not None:
        sent.append(file)
        axes.axvline(file, color=JPEG[0], linestyle=":", linewidth=1.4, gid="jpeg95")
    axes.set_xscale("log")
    axes.set_xlim(*log_limits(sent, before=2.0, after=1.6))  # names need room on the left
    highest = max([teacher["top1"], *(row["top1"]["mean"] + (row["top1"]["std"] or 0) for row in rows)])
    axes.set_ylim(bottom, highest + 0.07 * (highest - bottom))
    axes.axhspan(teacher["top1"] - DROP_GOAL, teacher["top1"], color=GREEN, alpha=0.16, linewidth=0)
    axes.axhline(teacher["top1"], color=BLACK, linewidth=1.2)
    beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": SMALL}
    axes.annotate(
        f"teacher = local,\n0 bytes: {teacher['top1']:.1f} %", (1, teacher["top1"]), (6, 1), va="bottom", **beside
    )
    axes.annotate(
        f"shaded: at most\n{DROP_GOAL} points less,\nthe paper's claim",
        (1, teacher["top1"] - DROP_GOAL / 2),
        (6, -2),
        va="top",
        color=ink(GREEN),
        **beside,
    )
    decorate(axes)
    decorate_log_axis(axes.xaxis)
    dots = "\nmarkers: rows of the table; small dots: every rate of every seed" if comparison["curves"] else ""
    axes.set_xlabel(f"sent per image, bytes (mean, logarithmic); better is up and left{dots}")
    axes.set_ylabel("top-1, %")


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


def _name_all(axes: Axes, curves: dict[str, list[dict]], ladders: dict, comparison: dict, bottom: float):
    """Write all names: of columns of near-equal bytes first, then of lines, then of settings where there is room."""
    labels = Labels(axes)
    at = {id(row): labels.pixel(*_at(axes, row, bottom)) for rows in curves.values() for row in rows}
    _avoid(labels, curves, ladders, at)
    left, _, right, _ = frame(axes)
    labels.avoid_point((left, labels.pixel(1, comparison["teacher"]["top1"])[1]), right - left, 2)
    file = _file(comparison, [row for rows in curves.values() for row in rows])
    if file is not None:
        labels.avoid_line([labels.pixel(file, y) for y in axes.get_ylim()])
    for column in _columns([rows[0] for rows in curves.values() if len(rows) == 1], at):
        texts = [row_label(axes, row, _alone(row) if len(at) == 1 else row["title"], TEXT) for row in column]
        labels.column(texts, [at[id(row)] for row in column])
    ours_first = sorted(curves.items(), key=lambda curve: curve[1][0]["method"] not in OURS)
    lines = {name: rows for name, rows in ours_first if len(rows) > 1}
    for name, rows in lines.items():
        inside = [row for row in rows if not _edge(row, bottom)] or rows
        middle = (len(inside) - 1) / 2
        anchors = [inside[index] for index in sorted(range(len(inside)), key=lambda index: abs(index - middle))]
        labels.nearest(row_label(axes, rows[0], name, TEXT), [at[id(row)] for row in anchors])
    for row in (row for rows in lines.values() for row in rows):
        edge = _edge(row, bottom)
        if row.get("rate") and not edge and len(curves) > 1:
            continue  # a label between so many markers could belong to any
        upright = edge == "v"
        text = label(axes, _setting(row, bottom), look(row["method"])[0], SMALL, upright=upright)
        labels.nearest(text, [at[id(row)]], directions=ABOVE if upright else BESIDE, required=bool(edge))
    if file is not None:
        place = labels.pixel(file, sum(axes.get_ylim()) / 2)
        labels.nearest(label(axes, f"JPEG 95\n{file:,.0f} bytes", JPEG[0], SMALL), [place])


def _file(comparison: dict, rows: Sequence[dict]) -> float | None:
    """Return the bytes of an image as JPEG at quality 95, where no row shows what JPEG sends; else None."""
    return None if any(row["method"] == "jpeg" for row in rows) else comparison["jpeg95_bytes"]


def _alone(row: dict) -> str:
    """Return all that is to be said of the only row."""
    return f"{row['title']}\n{row['bytes']['mean']:,.0f} bytes, {row['top1']['mean']:.2f} %"


def _setting(row: dict, bottom: float) -> str:
    """Return the setting of a row, with what the frame does not show."""
    words = row["setting"].replace("quality ", "q")
    if row.get("rate"):
        words = f"{words.removeprefix(width_of(row) + ', ')}: {row['bytes']['mean']:,.0f} bytes"
    beyond = [_few(row["bytes"]["mean"])] if _edge(row, bottom) == "<" else []
    beyond += [f"{row['top1']['mean']:.0f} %"] if row["top1"]["mean"] < bottom else []
    return f"{words}: {', '.join(beyond)}" if beyond else words


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
