"""The rate curve of a report and of a bundle: top-1 against the bytes of an image, every rate marked and named."""

from __future__ import annotations

import dataclasses
import os
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bottlefit_jax.evaluation.alternatives import FILES, TITLES
from bottlefit_jax.evaluation.axes import decorate_log_axis
from bottlefit_jax.evaluation.colours import BLUE, GREEN, GREY, ORANGE
from bottlefit_jax.evaluation.label_placement import PIXELS, Labels, Place, label
from bottlefit_jax.evaluation.plots import figure, save
from bottlefit_jax.evaluation.report import Report
from bottlefit_jax.evaluation.report_text import DROP_GOAL

FAR = 12.0  # times the most bytes of a rate; files of more are outside the frame
LEAST_SPAN = 2.0  # points of top-1 in the frame at least, so that one image more or less does not look like a cliff
TITLE_WIDTH = 80  # characters of 11 points, bold
LOOKS = {"jpeg": (GREY, "^"), "webp": (ORANGE, "s")}
UNCODED = "float32"  # what a student without a quantiser sends

RatePlace = tuple[str, float, float]  # id, mean bytes, top-1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """The images as files of one format and quality.

    Attributes:
        method: one of `alternatives.FILES`.
        setting: such as `quality 50`.
        sent: bytes of a file, mean.
        top1: percent, of the teacher on them; None where it was not measured.
        images: how many there are.
    """

    method: str
    setting: str
    sent: float
    top1: float | None
    images: int

    @property
    def name(self) -> str:
        """Its name in the plot."""
        return f"{TITLES[self.method]} {self.setting.removeprefix('quality ')}\n{self.sent:,.0f} bytes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RateCurve:
    """What the plot shows.

    Attributes:
        dataset: name of the evaluation images.
        images: how many they are.
        rates: of the student, from the most bytes to the fewest.
        default: id of the default rate; None where there is none.
        teacher_top1: percent; None without a teacher.
        files: the images as files.
        tried: bytes and top-1 of other rates, which were not kept.
        agreement: whether the values are agreement with the teacher, because the images have no labels.
    """

    dataset: str
    images: int
    rates: Sequence[RatePlace]
    default: str | None
    teacher_top1: float | None
    files: Sequence[ImageFiles]
    tried: Sequence[tuple[float, float]] = ()
    agreement: bool = False


def curve_of(report: Report) -> RateCurve | None:
    """Return the rate curve of a report; None without a student."""
    student = report.student
    if student is None:
        return None
    rates = [(rate.id, rate.bytes_mean, rate.top1) for rate in student.rates]
    return RateCurve(
        dataset=report.dataset,
        images=report.images,
        rates=rates or [(UNCODED, student.payload, student.top1)],
        default=student.default_rate,
        teacher_top1=None if report.teacher is None else report.teacher.top1,
        files=[
            ImageFiles(method=row.method, setting=row.setting, sent=row.sent, top1=row.top1, images=row.images)
            for row in report.files
        ],
        agreement=report.agreement,
    )


def draw_rate_curve(path: str | os.PathLike, curve: RateCurve) -> None:
    """Draw the rates of a student, with its teacher as a line, and JPEG and WebP files where they are in range.

    Args:
        path: where to write the PNG.
        curve: what to draw.

    Raises:
        UserError: the file cannot be written.
    """
    save(_figure(curve), path)


def _figure(curve: RateCurve) -> Figure:
    files = _files_in_range(curve)
    plot = figure(9.0, 4.8)
    axes = plot.subplots()
    sent = [sent for _, sent, _ in curve.rates] + [row.sent for row in files]
    axes.set_xscale("log")
    axes.set_xlim(min(sent) / 1.8, max(sent) * 1.5)
    axes.set_ylim(*_span(curve, [row.top1 for row in files if row.top1 is not None]))
    _decorate(axes, curve, files)
    _teacher(axes, curve.teacher_top1)
    tried = sorted(curve.tried)
    axes.plot(
        [sent for sent, _ in tried],
        [top1 for _, top1 in tried],
        color=BLUE,
        alpha=0.35,
        linewidth=1.0,
        marker=".",
        markersize=4,
        gid="tried",
    )
    axes.plot(*_columns(curve.rates), color=BLUE, marker="o", markersize=7, linewidth=2.2, zorder=4, gid="rates")
    if default := [rate for rate in curve.rates if rate[0] == curve.default]:
        ring = {"markerfacecolor": "none", "markeredgewidth": 1.6, "linestyle": "none"}
        axes.plot(*_columns(default), color=BLUE, marker="o", markersize=13, zorder=4, gid="default", **ring)
    _files(axes, files)
    plot.draw_without_rendering()
    plot.set_layout_engine("none")  # from here on a pixel stays where it is
    _name_all(axes, curve, files)
    return plot


def _files(axes: Axes, files: Sequence[ImageFiles]) -> None:
    """Draw the files of each format: markers, or a dotted line where their accuracy is not known."""
    for method in FILES:
        colour, marker = LOOKS[method]
        known = [(row.sent, row.top1) for row in files if row.method == method and row.top1 is not None]
        places = [sent for sent, _ in known], [top1 for _, top1 in known]
        axes.plot(*places, color=colour, marker=marker, markersize=6, linewidth=1.4, zorder=3, gid=method)
        for row in files:
            if row.method == method and row.top1 is None:
                axes.axvline(row.sent, color=colour, linestyle=":", linewidth=1.2, gid=f"{method} bytes")


def _columns(rates: Sequence[RatePlace]) -> tuple[list[float], list[float]]:
    """Return x and y of rates."""
    return [sent for _, sent, _ in rates], [top1 for _, _, top1 in rates]


def _files_in_range(curve: RateCurve) -> list[ImageFiles]:
    """Return the files that the frame shows: not far more bytes than the student, no worse than its worst rate."""
    furthest = FAR * max(sent for _, sent, _ in curve.rates)
    bottom, _ = _span(curve, [])
    return [row for row in curve.files if row.sent <= furthest and (row.top1 is None or row.top1 >= bottom)]


def _span(curve: RateCurve, others: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest top-1 of a frame with the rates', the teacher's and these."""
    teacher = [] if curve.teacher_top1 is None else [curve.teacher_top1, curve.teacher_top1 - DROP_GOAL]
    known = [*(top1 for _, _, top1 in curve.rates), *others, *teacher]
    low, high = min(known), max(known)
    low = min(low, high - LEAST_SPAN)
    room = 0.15 * (high - low)  # for names
    return low - room, high + room


def _decorate(axes: Axes, curve: RateCurve, files: Sequence[ImageFiles]) -> None:
    """Set the title, the grid and the names of the axes."""
    measure = "agreement with the teacher" if curve.agreement else "top-1"
    decorate_log_axis(axes)
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(high, 100)])
    fewer = {row.images for row in files} - {curve.images}
    count = f"{curve.images:,} images" + (f", files of {min(fewer):,}" if fewer else "")
    axes.set_xlabel(f"sent per image, bytes (mean of {count}, logarithmic)")
    axes.set_ylabel(f"{measure}, %")
    title = f"{measure.capitalize()} against bytes sent, on {curve.dataset}; better is up and left"
    axes.set_title(textwrap.fill(title, TITLE_WIDTH), fontsize=11, fontweight="bold", loc="left", parse_math=False)


def _teacher(axes: Axes, top1: float | None) -> None:
    """Draw the teacher's top-1 as a line, named outside the frame, and the loss that BottleFit's authors allow."""
    if top1 is None:
        return
    beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 8.5}
    axes.axhline(top1, color="black", linewidth=1.2, zorder=2, gid="teacher")
    axes.annotate(f"teacher\n{top1:.2f} %", (1, top1), (6, 1), va="bottom", **beside)
    axes.axhspan(top1 - DROP_GOAL, top1, color=GREEN, alpha=0.14, linewidth=0)
    band = f"shaded: at most\n{DROP_GOAL} points less"
    axes.annotate(band, (1, top1), (6, -3), va="top", color=GREEN, **beside)


def _name_all(axes: Axes, curve: RateCurve, files: Sequence[ImageFiles]) -> None:
    """Write a name and the bytes beside every marker, the default's in bold; names hide no marker and no line."""
    labels, known = Labels(axes), [(row, row.top1) for row in files if row.top1 is not None]
    places = [labels.pixel(sent, top1) for _, sent, top1 in curve.rates]
    curves = {method: [labels.pixel(row.sent, top1) for row, top1 in known if row.method == method] for method in FILES}
    for line in (places, *curves.values()):
        for place in line:
            ringed = line is places and curve.rates[line.index(place)][0] == curve.default
            half = (9 if ringed else 6) * PIXELS
            labels.avoid_point(place, half, half)
        labels.avoid_line(line)
    if curve.teacher_top1 is not None:
        labels.avoid_line([labels.pixel(sent, curve.teacher_top1) for sent in axes.get_xlim()])
    for (name, sent, _), place in _default_first(curve.rates, places, curve.default):
        is_default = name == curve.default
        size = f"{sent:,.0f} bytes{', default' if is_default else ''}"
        words = size if name.endswith("-bytes") else f"{name}\n{size}"
        labels.nearest(label(axes, words, BLUE, 9 if is_default else 8.5, bold=is_default), [place])
    for row, top1 in known:
        place = labels.pixel(row.sent, top1)
        labels.nearest(label(axes, row.name, LOOKS[row.method][0], 8), [place], required=False)
    for row in files:
        if row.top1 is None:
            place = labels.pixel(row.sent, sum(axes.get_ylim()) / 2)
            labels.nearest(label(axes, row.name, LOOKS[row.method][0], 8), [place])


def _default_first(
    rates: Sequence[RatePlace], places: Sequence[Place], default: str | None
) -> list[tuple[RatePlace, Place]]:
    """Pair rates with their places, the default first, as it should get the best place for its name."""
    return sorted(zip(rates, places, strict=True), key=lambda pair: pair[0][0] != default)
