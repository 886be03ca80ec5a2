"""The plot of a replayed trace: the link's rate, and the path and latency of every image. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bottlefit_jax.edge.path import LOCAL
from bottlefit_jax.errors import UserError
from bottlefit_jax.files import atomic_file
from bottlefit_jax.links.run import Run
from bottlefit_jax.links.world import Outcome

DPI = 150
GREY, RED, ORANGE = "#6b6b6b", "#c0392b", "#d9822b"
RATES = "viridis_r"  # colours of rates, which differ in lightness as well
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
    figure = Figure(figsize=(8.0, 5.2), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    times = np.linspace(0, max(answer.taken for answer in run.answers), POINTS)
    above.fill_between(times, [run.trace.rate(time) for time in times], color=GREY, alpha=0.35, linewidth=0, step="mid")
    above.set_ylabel("link, Mbit/s")
    above.set_ylim(bottom=0)
    answered = {answer.path for answer in run.answers}
    names, colours = [name for name in paths if name in answered], _colours(paths)
    for name in names:
        chosen = [answer for answer in run.answers if answer.path == name]
        below.scatter(
            [answer.taken for answer in chosen],
            [1e3 * answer.seconds for answer in chosen],
            s=7,
            color=colours[name],
            marker="s" if name == LOCAL else "o",
            linewidths=0,
            label=name,
        )
    if errors := [answer for answer in run.answers if answer.path is None]:
        late = [1e3 * answer.seconds for answer in errors]
        below.scatter([answer.taken for answer in errors], late, s=18, color=RED, marker="x", label="no answer")
    below.axhline(deadline_ms, color="black", linewidth=1, linestyle=(0, (4, 2)))
    below.annotate(
        "deadline", (0, deadline_ms), xytext=(2, 3), textcoords="offset points", fontsize=8.5, annotation_clip=False
    )
    below.set_ylim(0, max(1.15 * deadline_ms, 1.05 * max(1e3 * answer.seconds for answer in run.answers)))
    below.set_ylabel("until the answer, ms")
    below.set_xlabel("seconds of the trace")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8.5, color=GREY)
    figure.legend(loc="outside lower center", ncols=min(len(names) + bool(errors), 6), frameon=False, fontsize=8.5)
    in_time = f"{outcome.to_json()['in_time']:.1f} % of {outcome.images:,} images in time"
    figure.suptitle(
        f"{run.trace.name}, {run.delay_ms:g} ms each way: {in_time}",
        fontsize=11,
        fontweight="bold",
        x=0.01,
        ha="left",
        parse_math=False,
    )
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _colours(paths: Sequence[str]) -> dict[str, Any]:
    """Return a colour for each path."""
    rates = [name for name in paths if name != LOCAL]
    places = np.linspace(0.95, 0.1, max(len(rates), 1))
    return {LOCAL: ORANGE, **{name: colormaps[RATES](place) for name, place in zip(rates, places, strict=False)}}
