"""The plot of a replayed trace: the link's rate, and the path and latency of every image. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bottlefit_jax.drawing.axes import decorate, decorate_log_axis, log_limits
from bottlefit_jax.drawing.colours import BLACK, BLUE, GREEN, GREY, NAVY, PURPLE, SKY, VERMILLION, WINE
from bottlefit_jax.drawing.colours import LOCAL as LOCAL_LOOK
from bottlefit_jax.drawing.figures import SMALL, TEXT, figure, save, title
from bottlefit_jax.edge.path import LOCAL
from bottlefit_jax.errors import UserError
from bottlefit_jax.links.run import Answer, Run
from bottlefit_jax.links.world import Outcome

RATES = (BLUE, GREEN, PURPLE, SKY, WINE, NAVY)
MARKERS = ("o", "^", "D", "v", "P", "X", "p")  # not as many as colours, so that a pair comes again late
POINTS = 2000  # at which the link's rate is drawn


def draw(path: Path, run: Run, outcome: Outcome, *, paths: Sequence[str], deadline_ms: float) -> None:
    """Write the plot as PNG.

    Args:
        path: of the file.
        run: with at least one answer.
        outcome: of the run.
        paths: that there are, those that send the most first.
        deadline_ms: of an image.

    Raises:
        UserError: nothing was answered, or the file cannot be written.
    """
    if not run.answers:
        raise UserError("there is nothing to draw: no image had a result")
    save(_figure(run, outcome, paths=paths, deadline_ms=deadline_ms), path)


def message(run: Run, outcome: Outcome) -> str:
    """Return the title: how many images were in time, and how long the link was down meanwhile.

    Args:
        run: with at least one answer.
        outcome: of the run.
    """
    images = "image" if outcome.images == 1 else "images"
    text = f"{outcome.percent_in_time:.1f} % of {outcome.images:,} {images} in time on {run.trace.name}"
    seconds = _end(run)
    if down := sum(end - begin for begin, end in run.trace.outages(seconds)):
        text += f", which is down for {down:,.0f} of {seconds:,.0f} s"
    return f"{text} ({run.delay_ms:g} ms each way)"


def _end(run: Run) -> float:
    """Return when the last image was taken, seconds; a second at least, so that one image has a plot, too."""
    return max(1.0, *(answer.taken for answer in run.answers))


def _figure(run: Run, outcome: Outcome, *, paths: Sequence[str], deadline_ms: float) -> Figure:
    """Return the plot."""
    plot = figure(5.4)
    title(plot, message(run, outcome))
    above, below = plot.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    times = np.linspace(0, _end(run), POINTS)
    above.fill_between(times, [run.trace.rate(time) for time in times], color=GREY, alpha=0.35, linewidth=0, step="mid")
    above.set_ylabel("link, Mbit/s")
    above.set_ylim(bottom=0)
    for axes in (above, below):
        for number, (begin, end) in enumerate(run.trace.outages(_end(run))):
            name = "link down" if axes is below and not number else None
            axes.axvspan(begin, end, color=VERMILLION, alpha=0.14, linewidth=0, label=name, gid="outage")
    _answers(below, run.answers, paths)
    below.axhline(deadline_ms, color=BLACK, linewidth=1, linestyle=(0, (4, 2)))
    below.annotate(
        f"deadline\n{deadline_ms:g} ms",
        (1, deadline_ms),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
    )
    below.set_yscale("log")  # the network on the device takes a millisecond where a slow link takes a hundred
    shown = [max(1e3 * answer.seconds, 0.1) for answer in run.answers]
    below.set_ylim(*log_limits([deadline_ms, *shown], before=1.4, after=1.4))
    below.set_ylabel("until the answer, ms (logarithmic)")
    below.set_xlabel("time in the trace, s")
    for axes in (above, below):
        decorate(axes)
    decorate_log_axis(below.yaxis)
    plot.align_ylabels()
    entries = len(below.get_legend_handles_labels()[1])
    plot.legend(loc="outside lower center", ncols=min(entries, 5), frameon=False, fontsize=TEXT, markerscale=1.6)
    return plot


def _answers(axes: Axes, answers: Sequence[Answer], paths: Sequence[str]) -> None:
    """Draw a marker for every answer, in the look of its path, and a cross for every image without one."""
    rates = [name for name in paths if name != LOCAL]
    looks = {name: (RATES[at % len(RATES)], MARKERS[at % len(MARKERS)]) for at, name in enumerate(rates)}
    for name in paths:
        chosen = [answer for answer in answers if answer.path == name]
        if not chosen:
            continue
        colour, marker = looks.get(name, LOCAL_LOOK)
        places = [answer.taken for answer in chosen], [1e3 * answer.seconds for answer in chosen]
        axes.scatter(*places, s=10, color=colour, marker=marker, linewidths=0, label=name)
    if errors := [answer for answer in answers if answer.path is None]:
        places = [answer.taken for answer in errors], [1e3 * answer.seconds for answer in errors]
        axes.scatter(*places, s=18, color=VERMILLION, marker="x", linewidths=1, label="no answer")
