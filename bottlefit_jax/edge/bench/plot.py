"""The picture of a measurement: latency against link rate, a panel per delay. Needs matplotlib."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from bottlefit_jax.edge.bench.summary import METHODS, Crossing, Row, at
from bottlefit_jax.errors import UserError

BLUE, ORANGE, GREEN, GREY = "#2f6db3", "#d9822b", "#2e8b57", "#6b6b6b"
LOOKS = {"split": (BLUE, "o"), "local": (GREEN, "s"), "jpeg": (ORANGE, "^")}
DPI = 150


def draw(path: Path, rows: Sequence[Row], crossings: Sequence[Crossing], names: dict[str, str], title: str) -> None:
    """Writes the picture as PNG.

    Args:
        path: where to.
        rows, crossings: as measured.
        names: method -> what a person calls it.
        title: one line.

    Raises:
        UserError: nothing was measured, or the file cannot be written.
    """
    delays = sorted({row.delay_ms for row in rows})
    values = [value for row in rows for p in (50, 95) if (value := row.p(p)) is not None]
    if not values:
        raise UserError("there is nothing to draw: no picture was measured")
    figure = Figure(figsize=(max(5.0 * len(delays), 6.0), 4.6), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(delays), squeeze=False, sharey=True)[0]
    for axes, delay in zip(panels, delays, strict=True):
        _lines(axes, at(rows, delay), names)
        _decorate(axes, sorted({row.rate_mbit for row in rows}), values, room=len(crossings) > 0)
        _mark(axes, [one for one in crossings if one.delay_ms == delay])
        axes.set_title(f"{delay:g} ms each way", fontsize=10, loc="left")
    panels[0].set_ylabel("latency of a picture, ms")
    panels[0].tick_params(labelleft=True)
    figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left", parse_math=False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    _save(figure, path)


def _lines(axes: Axes, lines: dict[str, list[Row]], names: dict[str, str]) -> None:
    """A line of p50 and a band up to p95 for every method; a failed cell is a gap."""
    for method in METHODS:
        colour, marker = LOOKS[method]
        rates = [row.rate_mbit for row in lines[method]]
        middle = [float("nan") if (p := row.p(50)) is None else p for row in lines[method]]
        high = [float("nan") if (p := row.p(95)) is None else p for row in lines[method]]
        label = f"{names[method]}: p50, band to p95"
        axes.plot(rates, middle, color=colour, marker=marker, markersize=4.5, linewidth=1.7, label=label)
        axes.fill_between(rates, middle, high, color=colour, alpha=0.22, linewidth=0)


def _decorate(axes: Axes, rates: list[float], values: list[float], *, room: bool) -> None:
    """Logarithmic axes with the measured rates as ticks, a quiet grid and no box; `room` for words below the lines."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(rates))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = min(values), max(values)
    axes.set_ylim(low / (1.6 * (1.6 * high / low) ** 0.3 if room else 1.6), high * 1.6)
    axes.set_xlim(min(rates) / 1.5, max(rates) * 1.5)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, color=GREY)
    axes.set_xlabel("link rate, Mbit/s")


def _mark(axes: Axes, crossings: list[Crossing]) -> None:
    """A ring where two lines cross, and below, where no line is, its rate and latency; neighbours at two heights."""
    for number, one in enumerate(crossings):
        axes.plot(one.rate_mbit, one.ms, "o", markersize=10, markerfacecolor="none", color="black", markeredgewidth=1.3)
        bottom = axes.get_ylim()[0]
        axes.plot([one.rate_mbit] * 2, [bottom, one.ms], color="black", linestyle=":", linewidth=0.9, zorder=1)
        axes.annotate(
            f"{one.rate_mbit:.2g} Mbit/s\n{one.ms:.3g} ms",
            (one.rate_mbit, bottom),
            xytext=(0, 8 + 26 * (number % 2)),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
        )


def _save(figure: Figure, path: Path) -> None:
    """Writes it beside its place, then moves it there."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        figure.savefig(partial, format="png")
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
