"""The report's rate curve: top-1 against the bytes of an image, every rate of the student marked and named."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bottlefit_jax.evaluation.alternatives import FILES, TITLES, Alternative
from bottlefit_jax.evaluation.axes import decorate_log_axis
from bottlefit_jax.evaluation.colours import BLUE, GREEN, GREY, ORANGE
from bottlefit_jax.evaluation.label_placement import PIXELS, Labels, Place, label
from bottlefit_jax.evaluation.plots import figure, save
from bottlefit_jax.evaluation.report import Report, StudentResult
from bottlefit_jax.evaluation.report_text import DROP_GOAL

FAR = 12.0  # times the most bytes of a rate; files of more are outside the frame
LEAST_SPAN = 2.0  # points of top-1 in the frame at least, so that one image more or less does not look like a cliff
TITLE_WIDTH = 80  # characters of 11 points, bold
LOOKS = {"jpeg": (GREY, "^"), "webp": (ORANGE, "s")}
UNCODED = "float32"  # what a student without a quantiser sends


def rate_curve(path: str | os.PathLike, report: Report) -> bool:
    """Draw the rates of the student, with its teacher as a line, and JPEG and WebP files where they are in range.

    Args:
        path: where to write the PNG.
        report: of the run.

    Returns:
        Whether there was anything to draw; without a student no file is written.

    Raises:
        UserError: the file cannot be written.
    """
    plot = _figure(report)
    if plot is not None:
        save(plot, path)
    return plot is not None


def _figure(report: Report) -> Figure | None:
    student = report.student
    if student is None:
        return None
    rates = _rates(student)
    files = _files_in_range(report, rates)
    plot = figure(9.0, 4.8)
    axes = plot.subplots()
    sent = [sent for _, sent, _ in rates] + [row.sent for row in files]
    axes.set_xscale("log")
    axes.set_xlim(min(sent) / 1.8, max(sent) * 1.5)
    axes.set_ylim(*_span(report, [top1 for _, _, top1 in rates] + [row.top1 for row in files]))
    _decorate(axes, report)
    _teacher(axes, report)
    axes.plot(*_columns(rates), color=BLUE, marker="o", markersize=7, linewidth=2.2, zorder=4, gid="rates")
    if default := [rate for rate in rates if rate[0] == student.default_rate]:
        ring = {"markerfacecolor": "none", "markeredgewidth": 1.6, "linestyle": "none"}
        axes.plot(*_columns(default), color=BLUE, marker="o", markersize=13, zorder=4, gid="default", **ring)
    for method in FILES:
        rows = [row for row in files if row.method == method]
        colour, marker = LOOKS[method]
        places = [row.sent for row in rows], [row.top1 for row in rows]
        axes.plot(*places, color=colour, marker=marker, markersize=6, linewidth=1.4, zorder=3, gid=method)
    plot.draw_without_rendering()
    plot.set_layout_engine("none")  # from here on a pixel stays where it is
    _name_all(axes, rates, student.default_rate, files, report.teacher.top1 if report.teacher else None)
    return plot


def _rates(student: StudentResult) -> list[tuple[str, float, float]]:
    """Return (id, mean bytes, top-1) of each rate, or the one way of a student without a quantiser."""
    rows = [(rate.id, rate.bytes_mean, rate.top1) for rate in student.rates]
    return rows or [(UNCODED, student.payload, student.top1)]


def _columns(rates: Sequence[tuple[str, float, float]]) -> tuple[list[float], list[float]]:
    """Return x and y of rates."""
    return [sent for _, sent, _ in rates], [top1 for _, _, top1 in rates]


def _files_in_range(report: Report, rates: Sequence[tuple[str, float, float]]) -> list[Alternative]:
    """Return the files that the frame shows: not far more bytes than the student, no worse than its worst rate."""
    furthest = FAR * max(sent for _, sent, _ in rates)
    bottom, _ = _span(report, [top1 for _, _, top1 in rates])
    return [row for row in report.files if row.sent <= furthest and row.top1 >= bottom]


def _span(report: Report, accuracies: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest top-1 of a frame with these accuracies and the teacher's."""
    known = [*accuracies, *([] if report.teacher is None else [report.teacher.top1, report.teacher.top1 - DROP_GOAL])]
    low, high = min(known), max(known)
    low = min(low, high - LEAST_SPAN)
    room = 0.15 * (high - low)  # for names
    return low - room, high + room


def _decorate(axes: Axes, report: Report) -> None:
    """Set the title, the grid and the names of the axes."""
    measure = "agreement with the teacher" if report.agreement else "top-1"
    decorate_log_axis(axes)
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(high, 100)])
    axes.set_xlabel(f"sent per image, bytes (mean of {report.images:,} images, logarithmic)")
    axes.set_ylabel(f"{measure}, %")
    title = f"{measure.capitalize()} against bytes sent, on {report.dataset}; better is up and left"
    axes.set_title(textwrap.fill(title, TITLE_WIDTH), fontsize=11, fontweight="bold", loc="left", parse_math=False)


def _teacher(axes: Axes, report: Report) -> None:
    """Draw the teacher's top-1 as a line, named outside the frame, and the loss that BottleFit's authors allow."""
    if (teacher := report.teacher) is None:
        return
    beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 8.5}
    axes.axhline(teacher.top1, color="black", linewidth=1.2, zorder=2, gid="teacher")
    axes.annotate(f"teacher\n{teacher.top1:.2f} %", (1, teacher.top1), (6, 1), va="bottom", **beside)
    axes.axhspan(teacher.top1 - DROP_GOAL, teacher.top1, color=GREEN, alpha=0.14, linewidth=0)
    band = f"shaded: at most\n{DROP_GOAL} points less"
    axes.annotate(band, (1, teacher.top1), (6, -3), va="top", color=GREEN, **beside)


def _name_all(
    axes: Axes,
    rates: Sequence[tuple[str, float, float]],
    default: str | None,
    files: Sequence[Alternative],
    teacher: float | None,
) -> None:
    """Write a name and the bytes beside every marker, the default's in bold; names hide no marker and no line."""
    labels = Labels(axes)
    places = [labels.pixel(sent, top1) for _, sent, top1 in rates]
    curves = {method: [labels.pixel(row.sent, row.top1) for row in files if row.method == method] for method in FILES}
    for line in (places, *curves.values()):
        for place in line:
            ringed = line is places and rates[line.index(place)][0] == default
            half = (9 if ringed else 6) * PIXELS
            labels.avoid_point(place, half, half)
        labels.avoid_line(line)
    if teacher is not None:
        labels.avoid_line([labels.pixel(sent, teacher) for sent in axes.get_xlim()])
    for (name, sent, _), place in _default_first(rates, places, default):
        is_default = name == default
        size = f"{sent:,.0f} bytes{', default' if is_default else ''}"
        words = size if name.endswith("-bytes") else f"{name}\n{size}"
        labels.nearest(label(axes, words, BLUE, 9 if is_default else 8.5, bold=is_default), [place])
    for row in files:
        words = f"{TITLES[row.method]} {row.setting.removeprefix('quality ')}\n{row.sent:,.0f} bytes"
        place = labels.pixel(row.sent, row.top1)
        labels.nearest(label(axes, words, LOOKS[row.method][0], 8), [place], required=False)


def _default_first(
    rates: Sequence[tuple[str, float, float]], places: Sequence[Place], default: str | None
) -> list[tuple[tuple[str, float, float], Place]]:
    """Pair rates with their places, the default first, as it should get the best place for its name."""
    return sorted(zip(rates, places, strict=True), key=lambda pair: pair[0][0] != default)
