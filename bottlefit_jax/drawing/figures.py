"""Figures of one width, their titles, and their files. They use figures alone, no global plot state."""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from bottlefit_jax.files import atomic_file

DPI = 150
WIDTH = 8.0  # inches; a report shows a plot about 800 pixels wide, which are then 100 an inch
TITLE, TEXT, SMALL = 11.0, 9.0, 8.0  # points; at 100 pixels an inch the smallest letters are 11 pixels high
MARGIN = 0.01  # of the width, on either side of a title


def figure(height: float) -> Figure:
    """Make a figure WIDTH inches wide, with a layout engine and without global state.

    Args:
        height: inches.
    """
    made = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    return made


def title(plot: Figure, text: str) -> None:
    """Write what a reader should see above the plot, in as many lines as the width needs; $ has no meaning.

    Args:
        plot: the figure, whose layout is not final yet.
        text: a sentence; its own line breaks are kept.
    """
    room = (1 - 2 * MARGIN) * plot.bbox.width
    lines = [line for part in text.splitlines() for line in _wrapped(plot, part, room)]
    plot.suptitle("\n".join(lines), fontsize=TITLE, fontweight="bold", x=MARGIN, ha="left", parse_math=False)


def save(plot: Figure, path: str | os.PathLike) -> None:
    """Write a PNG, complete or not at all.

    Raises:
        UserError: it cannot be written (full disk, no such folder, no permission).
    """
    with atomic_file(Path(path)) as temporary:
        plot.savefig(temporary, format="png")


def _wrapped(plot: Figure, text: str, room: float) -> list[str]:
    """Break a title into lines of at most `room` pixels, inside a word where that alone is wider."""
    font = FontProperties(size=TITLE, weight="bold")
    renderer = plot.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue]

    def fits(line: str) -> bool:
        return renderer.get_text_width_height_descent(line, font, ismath=False)[0] <= room

    lines = [""]
    for word in text.split():
        if fits(longer := f"{lines[-1]} {word}".strip()):
            lines[-1] = longer
            continue
        lines += [word] if lines[-1] else []
        while not fits(word):
            kept = next(end for end in range(len(word) - 1, 0, -1) if fits(word[:end]) or end == 1)
            lines[-1:], word = [word[:kept], word[kept:]], word[kept:]
        lines[-1] = word
    return lines
