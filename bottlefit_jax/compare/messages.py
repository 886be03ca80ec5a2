"""The titles of the comparison's plots: what a reader should see in them, computed from the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bottlefit_jax.compare.methods import OURS
from bottlefit_jax.compare.plot_style import SAME_LINE, by_method
from bottlefit_jax.compare.report import best, within_goal
from bottlefit_jax.drawing.axes import number
from bottlefit_jax.evaluation.markdown import bytes_text
from bottlefit_jax.evaluation.report_text import DROP_GOAL


def rate_message(comparison: dict, rows: Sequence[dict]) -> str:
    """Return which method sends the fewest bytes within the paper's claim, and how far ours or the next one is.

    Args:
        comparison: the structure of `compare.json`.
        rows: those that are drawn, of methods that use a link.
    """
    teacher, dataset = comparison["teacher"]["name"], comparison["dataset"]
    bests = [best(group) for group in by_method(rows).values()]
    if len(bests) == 1:
        return f"{bests[0]['title']}: {_size(bests[0])} an image {_cost(bests[0])} on {dataset}"
    first = best(bests)
    others = [row for row in bests if row is not first]
    ours = [row for row in others if row["method"] in OURS]
    other = best(ours if ours and first["method"] not in OURS else others)
    goal = f"ithin {DROP_GOAL} points of {teacher} on {dataset}"
    if not within_goal(first):
        return f"No method stays w{goal}; nearest is {first['title']}: {_size(first)} an image {_cost(first)}"
    fewest = f"W{goal}, {first['title']} sends the fewest bytes an image: {_bytes(first)}"
    if within_goal(other):
        return f"{fewest}; {other['title']} sends {_bytes(other)}"
    return f"{fewest}; {_bytes(other)} of {other['title']} {_cost(other)}"


def latency_message(rows: Sequence[dict], times: Sequence[np.ndarray], rates: np.ndarray) -> str:
    """Return which method is the fastest on which links, among those within the paper's claim where there are any.

    Args:
        rows: one for each method.
        times: of each row, ms at each rate.
        rates: of the link, Mbit/s, rising.
    """
    if len(rows) == 1:
        ends = f"{_ms(times[0][0])} an image at {rates[0]:g} Mbit/s, {_ms(times[0][-1])} at {rates[-1]:g}"
        return f"{rows[0]['title']}: {ends}"
    near = [number for number, row in enumerate(rows) if within_goal(row)] or list(range(len(rows)))
    least = np.min([times[number] for number in near], axis=0)
    order = sorted(near, key=lambda number: rows[number]["method"] not in OURS)  # ours speaks for equal ones
    fastest = [next(n for n in order if times[n][at] <= (1 + SAME_LINE) * least[at]) for at in range(len(rates))]
    changes = [at for at in range(1, len(rates)) if fastest[at] != fastest[at - 1]]
    among = f"of those within {DROP_GOAL} points of the teacher, " if len(near) < len(rows) else ""
    first, last = rows[fastest[0]]["title"], rows[fastest[-1]]["title"]
    if not changes:
        text = f"{first} is fastest on every link"
    elif len(changes) == 1:
        text = f"{first} is fastest up to {rates[changes[0] - 1]:.2g} Mbit/s, {last} above"
    else:
        text = f"{first} is fastest at {rates[0]:g} Mbit/s, {last} at {rates[-1]:g}"
    text = among + text
    return text[0].upper() + text[1:]


def _bytes(row: dict) -> str:
    return f"{row['bytes']['mean']:,.0f}"


def _size(row: dict) -> str:
    return bytes_text(row["bytes"]["mean"])


def _cost(row: dict) -> str:
    """Say what a row's top-1 is beside the teacher's."""
    points = round(row["drop_points"], 1)
    if not points:
        return "cost no top-1"
    return f"cost {points:.1f} points of top-1" if points > 0 else f"give {-points:.1f} points of top-1 more"


def _ms(value: float) -> str:
    return f"{number(value)} ms"
