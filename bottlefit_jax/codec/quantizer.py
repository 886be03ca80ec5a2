"""Quantises floats to small integers and back: the only code with this formula.

The device runs it with NumPy, the student and the tail with `jax.numpy` (`xp=jnp`); both give the same integers.

The arithmetic of `dynamic_range` is that of BottleFit's reference (Matsubara et al., torchdistill's 8-bit
`quantize_tensor`, after Jacob et al., 2018). In float32 the results are equal to the bit, except in these cases, where
the reference loses the values and the error here is always smaller:

* A range on one side of 0, such as [5, 10]: the reference clips its zero point and decodes most of the range to one
  number. Here `offset` is the minimum, `zero_point` is 0, and no value is off by more than half a step.
* A constant, 0 included: the reference decodes it to 0 or raises. Here it is decoded exactly, with scale 1 and the
  constant as offset.
* A scale that is too small for float32: the smallest normal number replaces it, so that nothing is divided by 0. XLA
  flushes subnormal numbers to 0 on most devices; NumPy keeps them, as the reference does.
* NaN, infinity, an empty tensor, or a range beyond float32: a `UserError`. Code inside `jax.jit` cannot raise; there
  the scale is NaN, and so is every value that is decoded with it.

If the range contains 0, the zero point is truncated, as in the reference, so one end of the range can be off by up to
one step. In all other cases the error is at most half a step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bottlefit_jax.errors import UserError

RANGE_BYTES = 4 + 1 + 4  # of one dynamic range: scale float32, zero_point uint8, offset float32
TINY = np.finfo(np.float32).tiny  # the smallest normal float32: no device flushes it to 0


class Affine(NamedTuple):
    """The parameters that turn integers back into numbers: `x ≈ scale * (q - zero_point) + offset`.

    All three have the same shape: that of a scalar, or one that broadcasts against the tensor (a range per channel or
    image).

    Args:
        scale: float32 above 0, the width of one step.
        zero_point: int32 in 0 .. 2**bits - 1, the integer that decodes to `offset`.
        offset: float32, 0 unless the range lies on one side of 0.
    """

    scale: Any
    zero_point: Any
    offset: Any


def levels_of(bits: int) -> int:
    """Return the largest integer of `bits` bits.

    Args:
        bits: 1 to 8.

    Raises:
        UserError: bits is out of range or not an integer.
    """
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not 1 <= bits <= 8:
        raise UserError(f"bits is {bits!r}; it must be an integer from 1 to 8")
    return 2 ** int(bits) - 1


def dynamic_range(x, *, bits: int = 8, axis: int | tuple[int, ...] | None = None, xp: Any = np) -> Affine:
    """Measure the range of `x`; the receiver needs the result along with the integers.

    Args:
        x: any shape, any real dtype; computed in float32.
        bits: 1 to 8.
        axis: the axes to reduce, kept with length 1: `(1, 2)` of [B, h, w, c] gives a range per image and channel.
            None gives one range for the whole tensor, as in the reference.
        xp: `numpy` or `jax.numpy`.

    Raises:
        UserError: bits is out of range, or the tensor is empty; with NumPy also for NaN, infinity or a range beyond
            float32.
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
    """Make a fixed range from calibrated bounds; values outside it saturate, and no side information is sent.

    The range is widened to contain 0, the zero point is rounded, and the offset is 0, as int8 runtimes need it. A value
    within the bounds is off by at most half a step.

    Args:
        low: the smallest value to represent; a number or an array that broadcasts against the tensor.
        high: the largest, of the same shape.
        bits: 1 to 8.
        xp: `numpy` or `jax.numpy`.

    Raises:
        UserError: bits is out of range; with NumPy also for bounds that are not finite, in the wrong order, or too far
            apart.
    """
    levels = levels_of(bits)
    low, high = _float32(low, xp, "the lower bound is invalid"), _float32(high, xp, "the upper bound is invalid")
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
    """Round `x` to the nearest integer of the range, and halves to the even one; values outside saturate.

    Args:
        x: any shape, any real dtype; computed in float32.
        affine: from `dynamic_range` or `static_range` with the same `bits`.
        bits: 1 to 8.
        xp: `numpy` or `jax.numpy`.

    Returns:
        uint8 of the shape of `x`, each in 0 .. 2**bits - 1.

    Raises:
        UserError: bits is out of range, or the tensor is empty; with NumPy also for NaN or infinity. Under `jax.jit` an
            integer cannot represent NaN: a dynamic range has it in its scale, a static range loses it.
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
        affine: the range that `q` was made with.
        xp: `numpy` or `jax.numpy`.

    Returns:
        float32 of the shape of `q`.
    """
    steps = xp.asarray(q).astype(np.float32) - affine.zero_point.astype(np.float32)
    return affine.scale * steps + affine.offset


def _step(low, high, levels: int):
    """Return the width of one step, with the same rounding in NumPy and in a compiled function.

    XLA turns a division by a constant into a multiplication by its reciprocal. That is off in the last bit, which could
    move a zero point. `high - high` is 0, but the compiler cannot simplify it, because it might be NaN.
    """
    return (high - low) / (np.float32(levels) + (high - high))


def _float32(x, xp: Any, problem: str):
    """Convert `x` to float32 of `xp`; refuse a tensor that is empty or, with NumPy, not finite."""
    x = xp.asarray(x, dtype=np.float32)
    if x.size == 0:
        raise UserError(f"{problem}: a tensor of shape {tuple(x.shape)} has no values")
    if xp is np and not np.isfinite(x).all():
        wrong = int(x.size - np.isfinite(x).sum())
        raise UserError(f"{problem}: {wrong} of {x.size} values are NaN or infinite, all must be finite")
    return x
