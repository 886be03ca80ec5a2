"""The order in which the symbols of a latent are coded, and the neighbours of its pixels."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from bottlefit_jax.codec.rate import WEIGHT


@dataclass(frozen=True, eq=False)
class Lattice:
    """The pixels of a latent, as positions in [h * w]. A pixel is even where its row and column add up to an even number.

    Attributes:
        even: [e] the even pixels.
        odd: [o] the others.
        neighbours: [4, o] the pixels above, left, right and below of each odd pixel; h * w where there is none.
        weights: [o, 1] uint16, WEIGHT / number of neighbours.
    """

    even: np.ndarray
    odd: np.ndarray
    neighbours: np.ndarray
    weights: np.ndarray


@functools.lru_cache(maxsize=32)
def lattice(h: int, w: int) -> Lattice:
    """Return the pixels of a latent of h rows and w columns."""
    row, column = np.divmod(np.arange(h * w), w)
    is_odd = (row + column) % 2 == 1
    odd = np.flatnonzero(is_odd)
    row, column = row[odd], column[odd]
    inside = np.stack([row > 0, column > 0, column < w - 1, row < h - 1])
    neighbours = np.where(inside, odd + np.array([[-w], [-1], [1], [w]]), h * w)
    weights = (WEIGHT // inside.sum(0)).astype(np.uint16)
    return Lattice(np.flatnonzero(~is_odd), odd, neighbours, weights[:, None])


@dataclass(frozen=True, eq=False)
class Deal:
    """Which lane has which joint symbol, at which step: first those of even pixels, then those of odd ones.

    Attributes:
        even: [steps, lanes] positions in [h * w * G] joint symbols, h * w * G where a lane has none.
        odd: the same for odd pixels.
        order: [lanes, steps] both, as a payload has them: the odd lanes from the last step to the first.
    """

    even: np.ndarray
    odd: np.ndarray
    order: np.ndarray


@functools.lru_cache(maxsize=32)
def deal(h: int, w: int, groups: int, lanes: int) -> Deal:
    """Deal out the joint symbols of a latent: group by group, so that all lanes have as much of every group."""
    pixels = lattice(h, w)
    even, odd = (
        _dealt((pixels * groups + np.arange(groups)[:, None]).ravel(), lanes, h * w * groups)
        for pixels in (pixels.even, pixels.odd)
    )
    order = np.concatenate([even, odd]).T.copy()
    order[1::2] = order[1::2, ::-1]
    return Deal(even, odd, order)


def _dealt(positions: np.ndarray, lanes: int, nothing: int) -> np.ndarray:
    return np.pad(positions, (0, -len(positions) % lanes), constant_values=nothing).reshape(-1, lanes)
