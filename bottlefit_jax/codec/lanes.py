"""Codes to bytes and back, in lanes: streams that a decoder reads at the same time, a step after the other.

Lanes are laid end to end in pairs. The first of a pair is written from the left and the second from the right, so one
length for both says where they begin. A decoder in NumPy takes as long as the steps of one lane.
"""

from __future__ import annotations

import numpy as np

from bottlefit_jax.codec.huffman import MAX_BITS

WORD = 32  # bits
# a byte with its bits in the reverse order
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1).ravel()


def pack(entries: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Write codes, one lane after the other.

    Args:
        entries: [lanes, steps] uint16, code * 16 + length. Odd lanes have their steps and the bits of their codes in
            the reverse order.

    Returns:
        The stream, and the bits of each pair of lanes, [lanes / 2]. The last pair has a gap of less than a byte between
        its lanes, so that the stream ends with a byte.
    """
    _, steps = entries.shape
    flat = entries.ravel()
    lengths = flat & 15
    ends = np.cumsum(lengths, dtype=np.int64)
    gap = -int(ends[-1]) % 8
    ends[-steps:] += gap
    starts = ends - lengths
    values = (flat >> 4).astype(np.uint64) << (2 * WORD - lengths - (starts & (WORD - 1))).astype(np.uint64)
    words = starts >> 5
    first = np.flatnonzero(np.diff(words, prepend=-1))  # no code is so long that a word has no start in it
    both = np.bitwise_or.reduceat(values, first)
    stream = np.zeros(len(first) + 2, np.uint32)
    stream[: len(first)] = both >> np.uint64(WORD)
    stream[1 : len(first) + 1] |= (both & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return stream.astype(">u4").tobytes()[: int(ends[-1]) // 8], np.diff(ends[2 * steps - 1 :: 2 * steps], prepend=0)


def windows(streams: np.ndarray, steps: int) -> np.ndarray:
    """Return, for each bit of streams, the MAX_BITS bits from there on, in both directions.

    Args:
        streams: [B, n] uint8.
        steps: of a lane at most; so many codes behind the end are zeros.

    Returns:
        [B, 2, bits] uint16: windows that go to the right, then, from the right end on, those that go to the left.
    """
    count, n = streams.shape
    size = n + (steps * MAX_BITS + 7) // 8
    both = np.zeros((count, 2, size + 2), np.uint16)
    both[:, 0, :n] = streams
    both[:, 1, :n] = _REVERSED[streams[:, ::-1]]
    two = both[..., :-2] << 8 | both[..., 1:-1]
    cut = np.empty((count, 2, size, 8), np.uint16)
    for bit in range(8):
        if bit <= 16 - MAX_BITS:
            np.right_shift(two, 16 - MAX_BITS - bit, out=cut[..., bit])
        else:  # the window reaches into a third byte
            np.bitwise_or(two << bit - (16 - MAX_BITS), both[..., 2:] >> 24 - MAX_BITS - bit, out=cut[..., bit])
    cut &= (1 << MAX_BITS) - 1
    return cut.reshape(count, 2, size * 8)


def read(windows: np.ndarray, at: np.ndarray, codes: np.ndarray, decoding: np.ndarray) -> np.ndarray:
    """Read a code of every lane at each step.

    Args:
        windows: flat.
        at: [lanes] intp, where in `windows` each lane is; moved behind its last code.
        codes: [steps, lanes] uint16, the number of each code.
        decoding: as in rate.Tables.

    Returns:
        [steps, lanes] uint16: entries of `decoding`.
    """
    entries = np.empty(codes.shape, np.uint16)
    window, index, length = (np.empty(at.shape, dtype) for dtype in (np.uint16, np.intp, np.uint16))
    for code, entry in zip(codes, entries, strict=True):
        np.take(windows, at, out=window, mode="clip")
        np.left_shift(code, MAX_BITS, out=index, dtype=np.intp)
        np.add(index, window, out=index)
        np.take(decoding, index, out=entry, mode="clip")
        np.bitwise_and(entry, 15, out=length)
        np.add(at, length, out=at)
    return entries
