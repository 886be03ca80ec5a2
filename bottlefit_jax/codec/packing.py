"""Packs small integers into bytes without gaps, and unpacks them.

An 8-bit latent is sent as it is. Fewer bits are packed densely across byte borders, the most significant bit first; the
last byte is padded with zeros. The values are in C order of the array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bottlefit_jax.codec.quantizer import levels_of
from bottlefit_jax.errors import UserError

RANGE_BYTES = 4 + 1 + 4  # of one dynamic range: scale float32, zero_point uint8, offset float32


def pack_bits(q, *, bits: int) -> bytes:
    """Pack every integer into `bits` bits.

    Args:
        q: any shape, uint8, each in 0 .. 2**bits - 1.
        bits: 1 to 8.

    Returns:
        ceil(q.size * bits / 8) bytes.

    Raises:
        UserError: bits is out of range, the dtype is not uint8, or a value needs more bits.
    """
    levels = levels_of(bits)
    q = np.asarray(q)
    if q.dtype != np.uint8:
        raise UserError(f"cannot pack {q.dtype} values; they must be uint8")
    if bits == 8:
        return q.tobytes()
    if q.size and q.max() > levels:
        raise UserError(f"cannot pack the value {q.max()} into {bits} bits; the largest that fits is {levels}")
    return np.packbits(np.unpackbits(q.reshape(-1, 1), axis=1)[:, 8 - bits :]).tobytes()


def unpack_bits(data: bytes | bytearray | memoryview, shape: Sequence[int], *, bits: int) -> np.ndarray:
    """Unpack integers that `pack_bits` packed.

    Args:
        data: the packed bytes.
        shape: of the integers; the bytes do not contain it.
        bits: 1 to 8, as they were packed.

    Returns:
        uint8 of `shape`, writable.

    Raises:
        UserError: bits is out of range, the shape is invalid, or the number of bytes does not fit the shape.
    """
    expected = payload_bytes(shape, bits=bits)
    raw = np.frombuffer(data, dtype=np.uint8)
    if raw.size != expected:
        raise UserError(f"got {raw.size} bytes; shape {tuple(shape)} at {bits} bits takes {expected}")
    if bits == 8:
        return raw.reshape(shape).copy()
    rows = np.unpackbits(raw, count=math.prod(shape) * bits).reshape(-1, bits)
    zeros = np.zeros((rows.shape[0], 8 - bits), np.uint8)
    return np.packbits(np.concatenate([zeros, rows], axis=1), axis=1).reshape(shape)


def payload_bytes(shape: Sequence[int], *, bits: int, ranges: int = 0) -> int:
    """Return how many bytes of payload one image's latent has, without protocol headers.

    Args:
        shape: of one image's latent, (h, w, c).
        bits: 1 to 8.
        ranges: how many dynamic ranges are sent with it, 9 bytes each: 1 for a range per image, c for one per
            channel, 0 for a static range, which the receiver already has.

    Raises:
        UserError: bits is out of range, or the shape or the number of ranges is negative.
    """
    levels_of(bits)
    if any(length < 0 for length in shape):
        raise UserError(f"shape {tuple(shape)} has a negative length")
    if ranges < 0:
        raise UserError(f"ranges is {ranges}; it must be 0 or more")
    return (math.prod(shape) * bits + 7) // 8 + ranges * RANGE_BYTES
