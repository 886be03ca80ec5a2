"""The plot of a measurement: latency against link rate, one panel for each delay. Needs matplotlib."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from bottlefit_jax.errors import UserError
from bottlefit_jax.files import atomic_file
from bottlefit_jax.links.summary import METHODS, Crossing, Row, at, delays

BLUE, ORANGE, GREEN, GREY = "#2f6db3", "#d9822b", "#2e8b57", "#6b6b6b"
# The line below is wider, the line above it is dashed with hollow markers, so that equal lines are all visible.
LOOKS: dict[str, dict[str, Any]] = {
    "split": {"color": BLUE, "marker": "o", "markersize": 5, "linewidth": 3.2},
    "local": {"color": GREEN, "marker": "s", "markersize": 7, "linewidth": 1.4, "markerfacecolor": "none"},
    "jpeg": {
        "color": ORANGE,
        "marker": "^",
        "markersize": 8,
        "linewidth": 1.7,
        "linestyle": (0, (4, 2)),
        "markerfacecolor": "none",
    },
}
DPI = 150
PANEL_INCHES, MIN_INCHES, HEIGHT_INCHES = 5.0, 6.4, 4.6
TITLE_POINTS, LETTER_WIDTH = 11, 0.68  # the width of a bold letter, as a share of its size
LABEL_POINTS = 26  # height of a crossing's label, which has two lines


def draw(path: Path, rows: Sequence[Row], crossings: Sequence[Crossing], names: dict[str, str], title: str) -> None:
    """Write the plot as PNG.

    Args:
        path: of the file.
        rows: as measured.
        crossings: of the rows.
        names: method -> its name in the plot.
        title: one line.

    Raises:
        UserError: nothing was measured, or the file cannot be written.
    """
    figure = _figure(rows, crossings, names, title)
    if figure is None:
        raise UserError("there is nothing to draw: no image was measured")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _figure(rows: Sequence[Row], crossings: Sequence[Crossing], names: dict[str, str], title: str) -> Figure | None:
    """Return the plot; None where nothing was measured."""
    values = [value for row in rows for p in (50, 95) if (value := row.p(p)) is not None]
    if not values:
        return None
    every, rates = delays(rows), sorted({row.rate_mbit or 0.0 for row in rows})
    width = max(PANEL_INCHES * len(every), MIN_INCHES)
    marks = [_marks([x for x in crossings if x.delay_ms == delay], rates, width / len(every)) for delay in every]
    levels = max((1 + level for panel in marks for _, level in panel), default=0)
    figure = Figure(
        figsize=(width, HEIGHT_INCHES + max(levels - 2, 0) * LABEL_POINTS / 72),
        dpi=DPI,
        layout="constrained",
        facecolor="white",
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(every), squeeze=False, sharey=True)[0]
    drawn: dict[str, Any] = {}
    for axes, delay, panel in zip(panels, every, marks, strict=True):
        drawn |= _lines(axes, at(rows, delay), names)
        _decorate(axes, rates, values, room=levels * LABEL_POINTS / (72 * HEIGHT_INCHES))
        _mark(axes, panel)
        axes.set_title(f"{delay:g} ms each way", fontsize=10, loc="left")
    far = ", band to p95" if any(row.p(95) is not None for row in rows) else ""
    panels[0].set_ylabel(f"latency of an image, ms: p50{far}")
    panels[0].tick_params(labelleft=True)
    letters = int(72 * (width - 0.3) / (TITLE_POINTS * LETTER_WIDTH))
    figure.suptitle(
        textwrap.fill(title, letters), fontsize=TITLE_POINTS, fontweight="bold", x=0.01, ha="left", parse_math=False
    )
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=len(drawn), frameon=False, fontsize=9)
    return figure


def _lines(axes: Axes, lines: dict[str, list[Row]], names: dict[str, str]) -> dict[str, Any]:
    """Draw a line of p50 and a band to p95 for every method that was measured; a failed row is a gap.

    Returns:
        Name -> line, for the legend.
    """
    drawn = {}
    for method in METHODS:
        measured = [row for row in lines[method] if row.p(50) is not None]
        if not measured:
            continue
        rates = [row.rate_mbit or float("nan") for row in lines[method]]
        middle = [float("nan") if (p := row.p(50)) is None else p for row in lines[method]]
        high = [float("nan") if (p := row.p(95)) is None else p for row in lines[method]]
        (drawn[names[method]],) = axes.plot(rates, middle, label=names[method], **LOOKS[method])
        axes.fill_between(rates, middle, high, color=LOOKS[method]["color"], alpha=0.18, linewidth=0)
    return drawn


def _decorate(axes: Axes, rates: list[float], values: list[float], *, room: float) -> None:
    """Set logarithmic axes with the measured rates as ticks, a grid and no box.

    Args:
        axes: the panel.
        rates: that were measured.
        values: all that are drawn, in ms.
        room: share of the panel's height for the labels below the lines.
    """
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(rates))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = min(values) / 1.3, max(values) * 1.4
    share = min(1.35 * room, 0.6)  # the panel is lower than the figure
    axes.set_ylim(high * (low / high) ** (1 / (1 - share)), high)
    axes.set_xlim(min(rates) / 1.5, max(rates) * 1.5)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, color=GREY)
    axes.set_xlabel("link rate, Mbit/s")


def _marks(crossings: Sequence[Crossing], rates: list[float], width: float) -> list[tuple[Crossing, int]]:
    """Return the crossings with the level of their label: the lowest without overlap; equal labels once."""
    inches = 0.8 * width / math.log(2.25 * max(rates) / min(rates))  # in a panel, for a factor of e
    ends: list[float] = []
    marks: list[tuple[Crossing, int]] = []
    labels = set()
    for crossing in sorted(crossings, key=lambda crossing: crossing.rate_mbit):
        if _label(crossing) in labels:
            continue
        labels.add(_label(crossing))
        middle = inches * math.log(crossing.rate_mbit)
        level = next((level for level, end in enumerate(ends) if middle - 0.45 > end), len(ends))
        ends[level : level + 1] = [middle + 0.45]
        marks.append((crossing, level))
    return marks


def _label(crossing: Crossing) -> str:
    return f"{crossing.rate_mbit:.2g} Mbit/s\n{crossing.ms:.3g} ms"


def _mark(axes: Axes, marks: Sequence[tuple[Crossing, int]]) -> None:
    """Draw a ring where two lines cross, and its rate and latency below the lines."""
    for crossing, level in marks:
        axes.plot(
            crossing.rate_mbit,
            crossing.ms,
            "o",
            markersize=12,
            markerfacecolor="none",
            color="black",
            markeredgewidth=1.3,
        )
        bottom = axes.get_ylim()[0]
        axes.plot(
            [crossing.rate_mbit] * 2, [bottom, crossing.ms], color="black", linestyle=":", linewidth=0.9, zorder=1
        )
        axes.annotate(
            _label(crossing),
            (crossing.rate_mbit, bottom),
            xytext=(0, 6 + LABEL_POINTS * level),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
        )
