"""The plot of a measurement: latency against link rate, one panel for each delay. Needs matplotlib."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bottlefit_jax.drawing.axes import decorate, decorate_log_axis, log_limits, number
from bottlefit_jax.drawing.colours import BLACK, JPEG, LOCAL, SPLIT, ink
from bottlefit_jax.drawing.figures import SMALL, TEXT, WIDTH, figure, save, title
from bottlefit_jax.errors import UserError
from bottlefit_jax.links.summary import METHODS, Crossing, Row, at, delays, winner

# The line below is wider, the line above it is dashed with hollow markers, so that equal lines are all visible.
LOOKS: dict[str, dict[str, Any]] = {
    "split": {"color": SPLIT[0], "marker": SPLIT[1], "markersize": 5, "linewidth": 3.2},
    "local": {
        "color": LOCAL[0],
        "marker": LOCAL[1],
        "markersize": 7,
        "linewidth": 1.4,
        "linestyle": "-.",
        "markerfacecolor": "none",
    },
    "jpeg": {
        "color": JPEG[0],
        "marker": JPEG[1],
        "markersize": 8,
        "linewidth": 1.7,
        "linestyle": (0, (4, 2)),
        "markerfacecolor": "none",
    },
}
COLUMNS, PANEL_INCHES = 2, 4.2  # panels beside each other, and their height
LABEL_POINTS = 26  # height of a crossing's label, which has two lines
TICK_INCHES = 0.36  # between two rates that both have their number


def draw(path: Path, rows: Sequence[Row], crossings: Sequence[Crossing], names: dict[str, str], subject: str) -> None:
    """Write the plot as PNG.

    Args:
        path: of the file.
        rows: as measured.
        crossings: of the rows.
        names: method -> its name in the plot.
        subject: what was measured, for the title, which says who was fastest.

    Raises:
        UserError: nothing was measured, or the file cannot be written.
    """
    plot = _figure(rows, crossings, names, subject)
    if plot is None:
        raise UserError("there is nothing to draw: no image was measured")
    save(plot, path)


def message(rows: Sequence[Row], names: dict[str, str]) -> str:
    """Return on how many links each method was faster than all others, or what the only one takes.

    Args:
        rows: as measured, one at least without an error.
        names: method -> its name in the plot.
    """
    measured = {row.method for row in rows if row.p(50) is not None}
    if len(measured) == 1:
        values = [value for row in rows if (value := row.p(50)) is not None]
        low, high = number(min(values)), number(max(values))
        span = low if low == high else f"{low} to {high}"
        return f"{_capital(names[measured.pop()])} takes {span} ms an image, p50"
    links: dict[Any, list[Row]] = {}
    for row in rows:
        links.setdefault((row.delay_ms, row.rate_mbit), []).append(row)
    bests = [winner(group) for group in links.values()]
    won = Counter(best.method for best in bests if best is not None).most_common()
    count = "the only link" if len(links) == 1 else f"{{}} of {len(links)} links"
    if not won:
        return f"No method is clearly the fastest on {count.format('any')}"
    text = f"{_capital(names[won[0][0]])} is fastest on {count.format(won[0][1])}"
    text += "".join(f", {names[method]} on {times}" for method, times in won[1:])
    undecided = bests.count(None)
    return text + (f"; {undecided} undecided" if undecided else "")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _figure(rows: Sequence[Row], crossings: Sequence[Crossing], names: dict[str, str], subject: str) -> Figure | None:
    """Return the plot; None where nothing was measured."""
    values = [value for row in rows for p in (50, 95) if (value := row.p(p)) is not None]
    if not values:
        return None
    every, rates = delays(rows), sorted({row.rate_mbit or 0.0 for row in rows})
    columns = min(len(every), COLUMNS)
    marks = [_marks([x for x in crossings if x.delay_ms == delay], rates, WIDTH / columns) for delay in every]
    levels = max((1 + level for panel in marks for _, level in panel), default=0)
    high = PANEL_INCHES + max(levels - 2, 0) * LABEL_POINTS / 72
    plot = figure(0.6 + high * math.ceil(len(every) / columns))
    title(plot, f"{message(rows, names)}: {subject}")
    drawn: dict[str, Any] = {}
    for index, (delay, panel) in enumerate(zip(every, marks, strict=True)):
        axes = plot.add_subplot(math.ceil(len(every) / columns), columns, index + 1)
        drawn |= _lines(axes, at(rows, delay), names)
        _decorate(axes, rates, values, room=levels * LABEL_POINTS / (72 * high), inches=0.8 * WIDTH / columns)
        _mark(axes, panel)
        axes.set_title(f"{delay:g} ms each way", fontsize=TEXT, loc="left")
        if index % columns == 0:
            far = ", band to p95" if any(row.p(95) is not None for row in rows) else ""
            axes.set_ylabel(f"latency of an image, ms: p50{far}")
    below = {"loc": "outside lower center", "ncols": len(drawn), "frameon": False, "fontsize": TEXT, "handlelength": 3}
    plot.legend(drawn.values(), drawn.keys(), **below)
    return plot


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
        if len(rates) == 1:  # a marker alone says little
            axes.annotate(
                f"{number(middle[0])} ms",
                (rates[0], middle[0]),
                xytext=(10, 0),
                textcoords="offset points",
                va="center",
                color=ink(LOOKS[method]["color"]),
                fontsize=TEXT,
            )
    return drawn


def _decorate(axes: Axes, rates: list[float], values: list[float], *, room: float, inches: float) -> None:
    """Set logarithmic axes with the measured rates as ticks, a grid and no box.

    Args:
        axes: the panel.
        rates: that were measured.
        values: all that are drawn, in ms.
        room: share of the panel's height for the labels below the lines.
        inches: width of the panel.
    """
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = log_limits(values, before=1.3, after=1.4)
    share = min(1.35 * room, 0.6)  # the panel is lower than the figure
    axes.set_ylim(high * (low / high) ** (1 / (1 - share)), high)
    axes.set_xlim(*log_limits(rates))
    decorate(axes)
    decorate_log_axis(axes.yaxis)
    left, right = axes.get_xlim()
    axes.xaxis.set_major_locator(FixedLocator(_ticks(rates, inches / math.log(right / left))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.set_xlabel("link rate, Mbit/s")


def _ticks(rates: Sequence[float], inches: float) -> list[float]:
    """Return the rates whose numbers have room beside each other, the fastest among them.

    Args:
        rates: that were measured, rising.
        inches: for a factor of e.
    """
    ticks: list[float] = []
    for rate in reversed(rates):
        if not ticks or inches * math.log(ticks[-1] / rate) >= TICK_INCHES:
            ticks.append(rate)
    return ticks[::-1]


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
    return f"{number(float(f'{crossing.rate_mbit:.2g}'))} Mbit/s\n{number(crossing.ms)} ms"


def _mark(axes: Axes, marks: Sequence[tuple[Crossing, int]]) -> None:
    """Draw a ring where two lines cross, and its rate and latency below the lines."""
    for crossing, level in marks:
        axes.plot(
            crossing.rate_mbit,
            crossing.ms,
            "o",
            markersize=12,
            markerfacecolor="none",
            color=BLACK,
            markeredgewidth=1.3,
        )
        bottom = axes.get_ylim()[0]
        axes.plot([crossing.rate_mbit] * 2, [bottom, crossing.ms], color=BLACK, linestyle=":", linewidth=0.9, zorder=1)
        axes.annotate(
            _label(crossing),
            (crossing.rate_mbit, bottom),
            xytext=(0, 6 + LABEL_POINTS * level),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
        )
