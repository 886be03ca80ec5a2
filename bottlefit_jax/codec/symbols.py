"""Symbols as joint symbols, and the code of each: what encoder and decoder do alike."""

from __future__ import annotations

import numpy as np

from bottlefit_jax.codec.lattice import Deal, Pass
from bottlefit_jax.codec.rate import Tables


def join(symbols: np.ndarray, tables: Tables) -> tuple[np.ndarray, bool]:
    """Join the symbols of each group.

    Args:
        symbols: [n, c] uint8.
        tables: of the rate.

    Returns:
        [n, G] uint16, the escape where a symbol is out of the group's range; and whether none is.
    """
    inner = symbols - tables.low  # uint16: what is below wraps round
    outside = inner >= tables.count
    if tables.joined:
        joint = np.add.reduceat(inner * tables.strides, tables.starts, axis=1, dtype=np.uint16)
    else:
        joint = inner
    if not outside.any():
        return joint, True
    return np.where(np.logical_or.reduceat(outside, tables.starts, axis=1), tables.escapes, joint), False


def look_up(places: np.ndarray, tables: Tables, order: Deal) -> np.ndarray:
    """Return the entries at places [h * w, G] of the codes as `lanes.pack` takes them."""
    dealt = np.append(places, tables.nothing).take(order.order)
    entries = np.empty(dealt.shape, np.uint16)
    tables.forward.take(dealt[::2], out=entries[::2], mode="clip")
    tables.backward.take(dealt[1::2], out=entries[1::2], mode="clip")
    return entries


def split(joint: np.ndarray, tables: Tables) -> np.ndarray:
    """Split [n, G, B] joint symbols into [n, c, B] symbols, uint8; those of an escape are meaningless."""
    if tables.joined:
        joint = joint[:, tables.group_of] // tables.strides[:, None] % tables.count[:, None]
    return (joint + tables.low[:, None]).astype(np.uint8)


def code_numbers(symbols: np.ndarray, each: Pass, place: int, tables: Tables) -> np.ndarray:
    """Return the number of the code of each joint symbol in a pass.

    Args:
        symbols: [h * w + 1, c, B] uint8, of which those of earlier passes are known.
        each: the pass.
        place: 0 for the first pass.
        tables: of the rate.

    Returns:
        [n, G, B], in the first pass [1, G, 1].
    """
    if place == 0:
        return tables.first[None, :, None]
    first, second, third, fourth = (symbols.take(neighbour, axis=0) for neighbour in each.neighbours)
    means = np.add(first, second, dtype=np.uint16)
    means += third
    means += fourth
    means *= each.weights
    numbers = tables.contexts[place - 1].take(means + tables.contexts_at[:, None], mode="clip")
    if tables.joined:
        numbers = np.add.reduceat(numbers, tables.starts, axis=1, dtype=np.uint8)
    return tables.first[:, None] + numbers
