"""Canonical Huffman codes of limited length.

Code lengths come from integer counts by the package-merge algorithm (Larmore and Hirschberg, 1990), codes from lengths
by the canonical order: shorter codes first, symbols of one length in ascending order. Lengths are all that travels.
"""

from __future__ import annotations

import numpy as np

MAX_BITS = 12  # of a code: a decoder looks up 2**12 entries for each table


def code_lengths(counts) -> np.ndarray:
    """Return the lengths of an optimal prefix code in which no code has more than MAX_BITS bits.

    Args:
        counts: [n] non-negative integers: how often each symbol occurs; at least two, and at most 2**MAX_BITS, are
            above 0.

    Returns:
        [n] uint8: bits of each symbol's code, 0 where its count is 0. The code is complete: 2**-length sums to 1.
    """
    counts = np.asarray(counts, np.int64)
    used = np.flatnonzero(counts)
    used = used[np.argsort(counts[used], kind="stable")]
    leaves, n = counts[used], len(used)
    packages, levels = np.empty(0, np.int64), []
    for _ in range(MAX_BITS):
        merged = np.concatenate([leaves, packages])
        order = np.argsort(merged, kind="stable")
        levels.append(order < n)  # whether each item is a leaf
        merged = merged[order]
        packages = merged[: len(merged) // 2 * 2].reshape(-1, 2).sum(1)
    lengths = np.zeros(len(counts), np.uint8)
    active = 2 * n - 2
    for is_leaf in reversed(levels):
        chosen = int(np.count_nonzero(is_leaf[:active]))
        lengths[used[:chosen]] += 1
        active = 2 * (active - chosen)
    return lengths


def canonical_codes(lengths: np.ndarray) -> np.ndarray:
    """Return the codes of a complete canonical code.

    Args:
        lengths: [n] uint8, as `code_lengths` returns them.

    Returns:
        [n] int64; a code is its lowest `length` bits, the first bit the most significant.
    """
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    sizes = np.int64(1) << (MAX_BITS - lengths[order].astype(np.int64))  # entries of the decoder's table
    codes = np.zeros(len(lengths), np.int64)
    codes[order] = (np.cumsum(sizes) - sizes) >> (MAX_BITS - lengths[order].astype(np.int64))
    return codes


def kraft_sum(lengths: np.ndarray) -> int:
    """Return the sum of 2**(MAX_BITS - length) over all codes: 2**MAX_BITS if the code is complete."""
    used = lengths[lengths > 0].astype(np.int64)
    return int((np.int64(1) << (MAX_BITS - used)).sum())


def decoding_table(lengths: np.ndarray) -> np.ndarray:
    """Return what a decoder looks up with the next MAX_BITS bits of a stream.

    Args:
        lengths: [n] uint8 of a complete code, n <= 4096.

    Returns:
        [2**MAX_BITS] uint16, symbol * 16 + length.
    """
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    sizes = np.int64(1) << (MAX_BITS - lengths[order].astype(np.int64))
    return np.repeat((order * 16 + lengths[order]).astype(np.uint16), sizes)
