"""Labels beside their markers, placed in pixels, so that none hides a marker, a line or another label.

adjustText 1.4 was tried on the comparison of docs/results.md: it took 17 to 28 seconds instead of one, left labels on
markers, on lines and on each other, and lost the order of a column, which here is the order of the markers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from scipy.optimize import isotonic_regression

from bottlefit_jax.drawing.colours import ink
from bottlefit_jax.drawing.figures import DPI

PIXELS = DPI / 72  # per point
BESIDE = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-1, 1), (1, 1), (-1, -1))
ABOVE = ((0, 1),)
HIDES = 5.0  # the cost of hiding one thing; the cost of the distance to a place is smaller

Box = tuple[float, float, float, float]  # left, bottom, right, top
Place = Sequence[float]  # x, y


def spaced(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Move the bottoms of labels as little as possible, keeping their order, so that none overlaps the next.

    Args:
        wanted: the bottoms that labels would have alone.
        heights: of the labels, with their gaps.
        low: where the lowest label may begin.
        high: where the highest may end; without enough room they are stacked from `low`.

    Returns:
        The bottoms, in the order of `wanted`.
    """
    order = np.argsort(wanted, kind="stable")
    below = np.concatenate([[0], np.cumsum(np.asarray(heights, float)[order])])
    fitted = isotonic_regression(np.asarray(wanted, float)[order] - below[:-1]).x
    bottoms = np.clip(fitted, low, max(high - below[-1], low)) + below[:-1]
    return [float(bottom) for bottom in bottoms[np.argsort(order, kind="stable")]]


class Labels:
    """The labels of one panel, whose layout must be final, as places are pixels."""

    def __init__(self, axes: Axes):
        """Begin with an empty panel."""
        self._axes = axes
        self._taken: list[Box] = []

    def pixel(self, x: float, y: float) -> Place:
        """Return the pixel of a point of the panel's data."""
        return tuple(self._axes.transData.transform((x, y)))

    def avoid_point(self, place: Place, half_width: float, half_height: float):
        """Keep labels off a marker."""
        x, y = place
        self._taken.append((x - half_width, y - half_height, x + half_width, y + half_height))

    def avoid_line(self, places: Iterable[Place]):
        """Keep labels off a line through places."""
        for start, end in itertools.pairwise(places):
            for part in np.linspace(0, 1, max(int(np.hypot(end[0] - start[0], end[1] - start[1]) / 6), 2)):
                self.avoid_point([a + part * (b - a) for a, b in zip(start, end, strict=True)], 2, 2)

    def column(self, texts: Sequence[Annotation], places: Sequence[Place]):
        """Stack the labels of markers that lie above each other, in their order, on the side with more room."""
        pairs = sorted(zip(texts, places, strict=True), key=lambda pair: pair[1][1])
        texts, places = [text for text, _ in pairs], [place for _, place in pairs]
        _, low, _, high = frame(self._axes)
        sizes = [size(text) for text in texts]
        tried = []
        for far, side in itertools.product((10, 16, 30, 46, 70, 100), (1, -1)):
            edge = max(x for x, _ in places) if side > 0 else min(x for x, _ in places)
            near = edge + side * far * PIXELS
            free = [
                (place[0], self._free(place[1], near if side > 0 else near - width, width, height))
                for (width, height), place in zip(sizes, places, strict=True)
            ]
            rising = isotonic_regression([middle for _, middle in free]).x
            bottoms = stacked(sizes, [(x, middle) for (x, _), middle in zip(free, rising, strict=True)], low + 4, high)
            boxes = [
                (near if side > 0 else near - width, bottom, near + width if side > 0 else near, bottom + height)
                for (width, height), bottom in zip(sizes, bottoms, strict=True)
            ]
            leaders = [
                (x - 1, y - 1, x + 1, y + 1)
                for (_, start), box in zip(places, boxes, strict=True)
                for x, y in np.linspace((edge + side * 9 * PIXELS, start), (near, (box[1] + box[3]) / 2), 6)[:-1]
            ]
            cost = sum(self._cost(box) for box in boxes) + 0.3 * HIDES * sum(self._hidden(box) for box in leaders)
            tried.append((cost + far / 40, len(tried), boxes))
        for text, place, box in zip(texts, places, min(tried)[2], strict=True):
            self.settle(text, place, box)

    def nearest(
        self, text: Annotation, places: Sequence[Place], *, directions: Sequence[Place] = BESIDE, required: bool = True
    ):
        """Put a label beside one of some places, the first if possible.

        Args:
            text: the label.
            places: of the markers that it may name, the best first.
            directions: from a place, the best first.
            required: keep it even where it hides something; otherwise it is removed there.
        """
        width, height = size(text)
        tried = []
        for (rank, place), far, (dx, dy) in itertools.product(enumerate(places), (7, 10, 16, 26, 40, 60), directions):
            left = place[0] + dx * far * PIXELS - (0.5 - 0.5 * dx) * width
            low = place[1] + dy * far * PIXELS - (0.5 - 0.5 * dy) * height
            box = (left, low, left + width, low + height)
            tried.append((self._cost(box) + far / 40 + rank / 10, len(tried), place, box))
        cost, _, place, box = min(tried, key=lambda one: one[:2])
        if cost >= HIDES and not required:
            text.remove()
        else:
            self.settle(text, place, box)

    def settle(self, text: Annotation, place: Place, box: Box):
        """Move a label to its box, with a thin line to its marker where that is not beside it."""
        text.set_position(box[:2])
        self._taken.append((box[0] - 4, box[1] - 1, box[2] + 4, box[3] + 1))
        x, y = min(max(place[0], box[0]), box[2]), min(max(place[1], box[1]), box[3])
        if np.hypot(x - place[0], y - place[1]) > 13 * PIXELS:
            if x != place[0]:
                y = (box[1] + box[3]) / 2
            self.avoid_line([place, (x, y)])
            arrow = {"arrowstyle": "-", "color": text.get_color(), "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            pixels = "figure pixels"
            self._axes.annotate("", (place[0], place[1]), (x, y), pixels, pixels, arrow, annotation_clip=False)

    def _free(self, middle: float, left: float, width: float, height: float) -> float:
        """Return the height nearest to `middle` at which a label hides nothing, or `middle` if there is none nearby."""
        for step in sorted(range(-9, 10), key=abs):
            low = middle + 4 * step * PIXELS - height / 2
            if not self._hidden((left, low, left + width, low + height)):
                return middle + 4 * step * PIXELS
        return middle

    def _hidden(self, box: Box) -> int:
        """Count the things that a label would hide."""
        return sum(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in self._taken
        )

    def _cost(self, box: Box) -> float:
        """Return the cost of a place: things hidden, and leaving the panel."""
        left, low, right, high = frame(self._axes)
        return HIDES * self._hidden(box) + 50 * HIDES * (
            box[0] < left or box[1] < low or box[2] > right or box[3] > high
        )


def label(
    axes: Axes, words: str, colour: str, points: float, *, bold: bool = False, upright: bool = False
) -> Annotation:
    """Make a label without a place yet; the layout ignores it.

    Args:
        axes: the panel.
        words: the text; $ has no special meaning.
        colour: of its marker; the text has its hue.
        points: its size.
        bold: emphasise it.
        upright: rotate it by 90°.
    """
    text = axes.annotate(
        words,
        (0, 0),
        (0, 0),
        xycoords="figure pixels",
        textcoords="figure pixels",
        fontsize=points,
        fontweight="bold" if bold else "normal",
        rotation=90 if upright else 0,
        color=ink(colour),
        va="bottom",
        zorder=8,
        parse_math=False,
        annotation_clip=False,
        bbox={"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
    )
    text.set_in_layout(False)
    return text


def size(text: Annotation) -> tuple[float, float]:
    """Return width and height of a label in pixels."""
    box = text.get_window_extent()
    return box.width, box.height


def frame(axes: Axes) -> Box:
    """Return the panel itself in pixels."""
    left, low, right, high = axes.get_window_extent().extents
    return left, low, right, high


def stacked(sizes: Sequence[tuple[float, float]], places: Sequence[Place], low: float, high: float) -> list[float]:
    """Return the bottoms of labels above each other, each as near to the height of its place as possible."""
    heights = [height + 2 for _, height in sizes]
    wanted = [place[1] - height / 2 for place, height in zip(places, heights, strict=True)]
    return spaced(wanted, heights, low, high)
