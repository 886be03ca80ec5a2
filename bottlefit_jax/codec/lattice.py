"""The order in which the pixels of a latent are coded, and the neighbours that are known by then.

First come the pixels whose row and column are even, then those whose row and column are odd, between four of the first
on the diagonals, then all others, between four that are known by then. A decoder has three passes, and in each of them
all pixels are read at once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

WEIGHT = 12  # what a mean of neighbours is multiplied by: an integer for one to four neighbours
MEANS = 255 * WEIGHT + 1  # values that WEIGHT times a mean of symbols can have
_DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_DIRECT = ((-1, 0), (0, -1), (0, 1), (1, 0))


@dataclass(frozen=True, eq=False)
class Pass:
    """Pixels that are coded together, as positions in [h * w].

    Attributes:
        pixels: [n].
        neighbours: [4, n] pixels of earlier passes; h * w where there is none.
        weights: [n, 1, 1] uint16, WEIGHT / number of neighbours; 0 in the first pass, which has none.
    """

    pixels: np.ndarray
    neighbours: np.ndarray
    weights: np.ndarray


@functools.lru_cache(maxsize=32)
def passes(h: int, w: int) -> tuple[Pass, Pass, Pass]:
    """Return the passes over a latent of h rows and w columns."""
    row, column = np.divmod(np.arange(h * w), w)
    first, second = (row % 2 == 0) & (column % 2 == 0), (row % 2 == 1) & (column % 2 == 1)
    return (
        Pass(np.flatnonzero(first), np.empty((4, 0), np.intp), np.zeros((0, 1, 1), np.uint16)),
        _pass(h, w, np.flatnonzero(second), _DIAGONAL),
        _pass(h, w, np.flatnonzero(~first & ~second), _DIRECT),
    )


def _pass(h: int, w: int, pixels: np.ndarray, offsets: tuple[tuple[int, int], ...]) -> Pass:
    row, column = np.stack(np.divmod(pixels, w))[:, None] + np.array(offsets).T[..., None]  # [4, n]
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    neighbours = np.where(inside, row * w + column, h * w)
    return Pass(pixels, neighbours, (WEIGHT // inside.sum(0)).astype(np.uint16)[:, None, None])


@dataclass(frozen=True, eq=False)
class Deal:
    """Which lane has which joint symbol at which step.

    Attributes:
        passes: [steps, lanes] for each pass: positions in [h * w * G] joint symbols, h * w * G where a lane has none.
        order: [lanes, steps] all of it, as a payload has it: the odd lanes from the last step to the first.
    """

    passes: tuple[np.ndarray, ...]
    order: np.ndarray


@functools.lru_cache(maxsize=32)
def deal(h: int, w: int, groups: int, lanes: int) -> Deal:
    """Deal out the joint symbols of a latent: group by group, so that all lanes have as much of every group."""
    dealt = []
    for each in passes(h, w):
        positions = (each.pixels * groups + np.arange(groups)[:, None]).ravel()
        filled = np.pad(positions, (0, -len(positions) % lanes), constant_values=h * w * groups)
        dealt.append(filled.reshape(-1, lanes))
    order = np.concatenate(dealt).T.copy()
    order[1::2] = order[1::2, ::-1]
    return Deal(tuple(dealt), order)
