"""The rate curve of a report and of a bundle: top-1 against the bytes of an image, every rate marked and named."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bottlefit_jax.drawing.axes import decorate, decorate_log_axis, log_limits
from bottlefit_jax.drawing.colours import BLACK, BLUE, GREEN, JPEG, WEBP, ink
from bottlefit_jax.drawing.figures import SMALL, TEXT, figure, save, title
from bottlefit_jax.drawing.label_placement import PIXELS, Labels, Place, label
from bottlefit_jax.evaluation.alternatives import FILES, TITLES
from bottlefit_jax.evaluation.report import Report
from bottlefit_jax.evaluation.report_text import DROP_GOAL

FAR = 12.0  # times the most bytes of a rate; files of more are outside the frame
LEAST_SPAN = 2.0  # points of top-1 in the frame at least, so that one image more or less does not look like a cliff
LOOKS = {"jpeg": JPEG, "webp": WEBP}
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
        return f"{self.words}\n{self.sent:,.0f} bytes"

    @property
    def words(self) -> str:
        """Its format and quality: JPEG 50."""
        return f"{TITLES[self.method]} {self.setting.removeprefix('quality ')}"


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
    plot = figure(4.8)
    title(plot, message(curve))
    axes = plot.subplots()
    sent = [sent for _, sent, _ in curve.rates] + [row.sent for row in files]
    axes.set_xscale("log")
    axes.set_xlim(*log_limits(sent, before=1.8))
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
    more = max(LEAST_SPAN - (high - low), 0)
    high = min(high + more / 2, max(high, 100.0))
    low = min(low, high - LEAST_SPAN)
    room = 0.15 * (high - low)  # for names
    return low - room, high + room


def _decorate(axes: Axes, curve: RateCurve, files: Sequence[ImageFiles]) -> None:
    """Set the title, the grid and the names of the axes."""
    measure = "agreement with the teacher" if curve.agreement else "top-1"
    decorate(axes)
    decorate_log_axis(axes.xaxis)
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(high, 100)])
    fewer = {row.images for row in files} - {curve.images}
    count = f"{curve.images:,} images" + (f", files of {min(fewer):,}" if fewer else "")
    axes.set_xlabel(f"sent per image, bytes (mean of {count}, logarithmic)")
    axes.set_ylabel(f"{measure}, %")


def message(curve: RateCurve) -> str:
    """Return the plot's title: what an image costs at the default rate, and the smallest file that does as well.

    Args:
        curve: what is drawn; without a default rate it is about the most accurate one.
    """
    most = max(curve.rates, key=lambda rate: rate[2])
    _, sent, top1 = next((rate for rate in curve.rates if rate[0] == curve.default), most)
    size = f"{sent:,.0f} bytes an image"
    if curve.agreement:
        text = f"{size} keep {top1:.1f} % of the teacher's answers on {curve.dataset}"
    elif curve.teacher_top1 is None:
        text = f"{size} give {top1:.1f} % top-1 on {curve.dataset}"
    else:
        points = round(curve.teacher_top1 - top1, 1)
        change = f"cost {points:.1f} points of top-1" if points > 0 else "cost no top-1"
        change = f"give {-points:.1f} points of top-1 more than the teacher has" if points < 0 else change
        text = f"{size} {change} on {curve.dataset}"
    as_good = [row for row in curve.files if row.top1 is not None and row.top1 >= top1]
    if as_good:
        file = min(as_good, key=lambda row: row.sent)
        text += f"; {file.words} does as well with {file.sent:,.0f}"
    return text


def _teacher(axes: Axes, top1: float | None) -> None:
    """Draw the teacher's top-1 as a line, named outside the frame, and the loss that BottleFit's authors allow."""
    if top1 is None:
        return
    beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": SMALL}
    axes.axhline(top1, color=BLACK, linewidth=1.2, zorder=2, gid="teacher")
    axes.annotate(f"teacher\n{top1:.2f} %", (1, top1), (6, 1), va="bottom", **beside)
    axes.axhspan(top1 - DROP_GOAL, top1, color=GREEN, alpha=0.14, linewidth=0)
    band = f"shaded: at most\n{DROP_GOAL} points less"
    axes.annotate(band, (1, top1), (6, -3), va="top", color=ink(GREEN), **beside)


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
    for (name, sent, top1), place in _default_first(curve.rates, places, curve.default):
        is_default = name == curve.default
        size = f"{sent:,.0f} bytes{', default' if is_default else ''}"
        words = size if name.endswith("-bytes") else f"{name}\n{size}"
        words += f"\n{top1:.2f} %" if len(places) == 1 else ""
        labels.nearest(label(axes, words, BLUE, TEXT if is_default else SMALL, bold=is_default), [place])
    for row, top1 in known:
        place = labels.pixel(row.sent, top1)
        labels.nearest(label(axes, row.name, LOOKS[row.method][0], SMALL), [place], required=False)
    for row in files:
        if row.top1 is None:
            place = labels.pixel(row.sent, sum(axes.get_ylim()) / 2)
            labels.nearest(label(axes, row.name, LOOKS[row.method][0], SMALL), [place])


def _default_first(
    rates: Sequence[RatePlace], places: Sequence[Place], default: str | None
) -> list[tuple[RatePlace, Place]]:
    """Pair rates with their places, the default first, as it should get the best place for its name."""
    return sorted(zip(rates, places, strict=True), key=lambda pair: pair[0][0] != default)
