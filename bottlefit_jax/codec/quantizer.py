"""Floats to small integers and back: the only place where this formula is written.

The device runs it with NumPy, the student and the tail with `jax.numpy` (`xp=jnp`); both give the same integers.
The arithmetic of `dynamic_range` is that of BottleFit's reference (Matsubara et al., torchdistill's 8-bit
`quantize_tensor`, itself after Jacob et al., 2018), to the bit in float32, wherever the range of the values
contains 0. It departs from the reference, always towards a smaller error, where that one loses the values:

* a range on one side of 0, such as [5, 10]: the reference clips its zero point and decodes most of it to one
  number. Here `offset` is the minimum, `zero_point` is 0, and nothing is off by more than half a step;
* a constant, 0 included: the reference decodes it to 0 or raises. Here it comes back exactly (scale 1 and offset
  the constant);
* a scale that is too small for float32: the smallest normal number takes its place, so that nothing divides by 0.
  XLA flushes subnormal numbers to 0 on most devices, where NumPy keeps them as the reference does;
* NaN, infinity, nothing at all, or a range beyond float32: a `UserError`. Inside `jax.jit` nothing can be raised;
  there the scale is NaN, and so is every value that is decoded with it.

In a range that contains 0 the zero point is truncated, as in the reference, so one end of the range can be off by
up to one step; everywhere else the error is half a step at most.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bottlefit_jax.errors import UserError

TINY = np.finfo(np.float32).tiny  # the smallest normal float32: no device flushes it to 0


class Affine(NamedTuple):
    """What turns integers back into numbers: `x ≈ scale * (q - zero_point) + offset`.

    The three have one shape: a scalar's, or one that broadcasts against the tensor (a range per channel or image).

    Args:
        scale: float32, the width of one step, above 0.
        zero_point: int32 in 0 .. 2**bits - 1, the integer that stands for `offset`.
        offset: float32, 0 unless the range lies on one side of 0.
    """

    scale: Any
    zero_point: Any
    offset: Any


def levels_of(bits: int) -> int:
    """Return the largest integer of `bits` bits, 1 to 8; anything else is a `UserError`."""
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not 1 <= bits <= 8:
        raise UserError(f"bits is {bits!r}; a quantiser has 1 to 8 whole bits")
    return 2 ** int(bits) - 1


def dynamic_range(x, *, bits: int = 8, axis: int | tuple[int, ...] | None = None, xp: Any = np) -> Affine:
    """Measure the range of `x` itself, so that the receiver needs the result along with the integers.

    Args:
        x: any shape, any real dtype; computed in float32.
        bits: 1 to 8.
        axis: the axes to reduce, kept with length 1: `(1, 2)` of [B, h, w, c] gives a range per image and channel.
            None is one range for the whole tensor, as in the reference.
        xp: `numpy` or `jax.numpy`.

    Raises:
        UserError: bits out of range, an empty tensor; with NumPy also NaN, infinity or a range beyond float32.
    """
    levels = levels_of(bits)
    x = _float32(x, xp, "cannot measure the range")
    low, high = x.min(axis=axis, keepdims=axis is not None), x.max(axis=axis, keepdims=axis is not None)
    constant = low == high
    one_sided = (low > 0) | (high < 0)
    with np.errstate(over="ignore", invalid="ignore"):
        scale = _step(low, high, levels)
        scale = xp.where(one_sided | (scale == 0), xp.maximum(scale, TINY), scale)
        scale = xp.where(constant, np.float32(1), scale)
        offset = xp.where(constant | one_sided, low, np.float32(0))
        reachable = constant | (xp.isfinite(scale * np.float32(levels) + offset) & xp.isfinite(high))
    if xp is np and not np.all(reachable):
        raise UserError(f"the values span {low.min()} to {high.max()}, more than float32 can hold as one range")
    scale = xp.where(reachable, scale, np.float32(np.nan))
    zero_point = xp.where(constant | one_sided, np.float32(0), xp.clip(-low / scale, np.float32(0), np.float32(levels)))
    return Affine(scale, xp.trunc(zero_point).astype(np.int32), offset)


def static_range(low, high, *, bits: int = 8, xp: Any = np) -> Affine:
    """Make a fixed range out of calibrated bounds; values outside it saturate, and no side information is sent.

    The range is widened to contain 0, the zero point is rounded, and the offset is 0: the form that int8 runtimes take.
    A value within the bounds is off by half a step at most.

    Args:
        low: the smallest value to represent; a number or an array that broadcasts against the tensor.
        high: the largest, of the same shape.
        bits: 1 to 8.
        xp: `numpy` or `jax.numpy`.

    Raises:
        UserError: bits out of range; with NumPy also bounds that are not finite, in the wrong order, or too far apart.
    """
    levels = levels_of(bits)
    low, high = _float32(low, xp, "the lower bound is unusable"), _float32(high, xp, "the upper bound is unusable")
    if xp is np and np.any(low > high):
        raise UserError(f"the range goes from {low} to {high}; the lower bound must not be above the upper one")
    low, high = xp.minimum(low, np.float32(0)), xp.maximum(high, np.float32(0))
    with np.errstate(over="ignore"):
        scale = _step(low, high, levels)
        reachable = xp.isfinite(scale * np.float32(levels))
    if xp is np and not np.all(reachable):
        raise UserError(f"the range goes from {low} to {high}, more than float32 can hold")
    scale = xp.where(low == high, np.float32(1), xp.maximum(scale, TINY))
    scale = xp.where(reachable, scale, np.float32(np.nan))
    zero_point = xp.rint(xp.clip(-low / scale, np.float32(0), np.float32(levels))).astype(np.int32)
    return Affine(scale, zero_point, xp.zeros_like(scale))


def quantize(x, affine: Affine, *, bits: int = 8, xp: Any = np):
    """Round `x` to the nearest integer of the range, halves to the even one; what lies outside saturates.

    Args:
        x: any shape, any real dtype; computed in float32.
        affine: from `dynamic_range` or `static_range` with the same `bits`.
        bits: 1 to 8.
        xp: `numpy` or `jax.numpy`.

    Returns:
        uint8 of the shape of `x`, each in 0 .. 2**bits - 1 (dense packing is the business of `codec.packing`).

    Raises:
        UserError: bits out of range, an empty tensor; with NumPy also NaN or infinity. Under `jax.jit` an integer
            cannot say NaN: a dynamic range carries it in its scale, a static one has no place for it.
    """
    levels = levels_of(bits)
    x = _float32(x, xp, "cannot quantise")
    with np.errstate(over="ignore"):  # far outside of a static range; clipped next
        steps = affine.zero_point.astype(np.float32) + (x - affine.offset) / affine.scale
    return xp.rint(xp.clip(steps, np.float32(0), np.float32(levels))).astype(np.uint8)


def dequantize(q, affine: Affine, *, xp: Any = np):
    """Turn integers back into numbers, `scale * (q - zero_point) + offset`.

    Args:
        q: any shape, uint8.
        affine: the one that `q` was made with.
        xp: `numpy` or `jax.numpy`.

    Returns:
        float32 of the shape of `q`.
    """
    steps = xp.asarray(q).astype(np.float32) - affine.zero_point.astype(np.float32)
    return affine.scale * steps + affine.offset


def _step(low, high, levels: int):
    """Return the width of one step, rounded alike by NumPy and by a compiled function.

    XLA turns a division by a constant into a multiplication by its reciprocal, off in the last bit, which could
    move a zero point. `high - high` is a 0 that the compiler cannot see through, because it might be NaN.
    """
    return (high - low) / (np.float32(levels) + (high - high))


def _float32(x, xp: Any, complaint: str):
    """Return `x` as float32 of `xp`; a tensor that is empty or (in NumPy) not finite is a `UserError`."""
    x = xp.asarray(x, dtype=np.float32)
    if x.size == 0:
        raise UserError(f"{complaint}: a tensor of shape {tuple(x.shape)} has no values")
    if xp is np and not np.isfinite(x).all():
        wrong = int(x.size - np.isfinite(x).sum())
        raise UserError(f"{complaint}: {wrong} of {x.size} values are NaN or infinite, all must be finite")
    return x
