"""Makes the code tables of a rate from training latents.

What is chosen (which channels are coded together, how many contexts each has) is chosen by the bits that codes of one
half of the images take on the other half. The codes themselves come from all images. Floats only weigh alternatives
here; what travels are integers.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from bottlefit_jax.codec import huffman
from bottlefit_jax.codec.lattice import lattice
from bottlefit_jax.codec.rate import Group, Rate, symbols_of
from bottlefit_jax.errors import UserError

LEVELS = (1, 3, 5, 9)  # of the mean of neighbours, for one channel; channels that are coded together have fewer
MAX_JOINT = 1024  # joint symbols of a group: more have too few images each, and long tables
ENOUGH_BITS = 5.0  # of a joint symbol: above, joining more channels saves less than 1 %
DIGIT_PRICE = 0.004  # bits of a payload that a digit of a table must save
PRIOR = 8  # occurrences that a context's code takes from the code of all pixels
UNITS = 1000  # that one occurrence counts, since counts are integers
LANE_SYMBOLS, LANE_BYTES = 160, 40  # of a lane: more lanes are read faster, fewer have less to say about their lengths


def fit_rate(latents: np.ndarray, steps: Sequence[int], *, zero_point: int, id: str) -> Rate:
    """Make a rate whose codes fit training latents.

    Args:
        latents: [N, h, w, c] uint8.
        steps: of each channel, 1..255.
        zero_point: the value that every step keeps.
        id: of the rate.

    Raises:
        UserError: there are no latents, or the steps do not fit them.
    """
    if latents.ndim != 4 or not latents.size or latents.dtype != np.uint8:
        raise UserError(
            f"cannot make codes from latents {latents.dtype} {list(latents.shape)}: give uint8 [N, h, w, c]"
        )
    if len(steps) != latents.shape[3] or not all(1 <= step <= 255 for step in steps):
        raise UserError(f"the steps are {list(steps)}; give one of 1 to 255 for each of {latents.shape[3]} channels")
    training = _Training(latents, steps, zero_point)
    fits = [training.best((channel,)) for channel in range(len(steps))]
    while (merged := _merge(training, fits)) is not None:
        fits = merged
    groups = tuple(training.with_codes(fit.outline) for fit in sorted(fits, key=lambda fit: fit.outline.channels))
    _, h, w, _ = latents.shape
    pairs = min(h * w * len(groups) // (2 * LANE_SYMBOLS), int(sum(fit.bits for fit in fits)) // (16 * LANE_BYTES))
    return Rate(id, zero_point, tuple(int(step) for step in steps), groups, lanes=2 * max(1, pairs))


@dataclasses.dataclass(frozen=True)
class _Fit:
    """A group that may be chosen.

    Attributes:
        outline: the group, without codes.
        entropy: bits of a joint symbol, without contexts.
        bits: of the group in an image's payload.
        price: `bits`, and the price of the tables.
    """

    outline: Group
    entropy: float
    bits: float
    price: float


class _Training:
    """The symbols of training latents, and the codes that can be made of them."""

    def __init__(self, latents: np.ndarray, steps: Sequence[int], zero_point: int):
        count, h, w, c = latents.shape
        flat, pixels = latents.reshape(count, h * w, c), lattice(h, w)
        symbols = np.stack([symbols_of(step, zero_point)[flat[..., channel]] for channel, step in enumerate(steps)])
        outside = np.pad(symbols, ((0, 0), (0, 0), (0, 1))).astype(np.uint16)
        self._means = sum(outside[..., each] for each in pixels.neighbours) * pixels.weights[:, 0]  # [c, N, o]
        self._symbols, self._pixels = symbols, pixels  # [c, N, h * w]
        self._low = symbols.min((1, 2)).tolist()
        self._count = (symbols.max((1, 2)).astype(int) - symbols.min((1, 2)) + 1).tolist()

    def best(self, channels: tuple[int, ...]) -> _Fit:
        """Return the cheapest contexts of channels that are coded together."""
        options = {1: LEVELS, 2: LEVELS[:3], 3: LEVELS[:2]}.get(len(channels), LEVELS[:1])
        joint = self._joint(channels)
        entropy = _entropy(np.bincount(joint.ravel()))
        return min((self._fit(channels, joint, levels, entropy) for levels in options), key=lambda fit: fit.price)

    def with_codes(self, group: Group) -> Group:
        """Return a group with codes from all images."""
        counts = self._counts(group, self._joint(group.channels), slice(None))
        return dataclasses.replace(group, lengths=tuple(_codes(counts)))

    def size(self, channels: Sequence[int]) -> int:
        """Return the number of joint symbols of channels."""
        return math.prod(self._count[channel] for channel in channels)

    def _fit(self, channels: tuple[int, ...], joint: np.ndarray, levels: int, entropy: float) -> _Fit:
        """Measure the codes of one half of the images on the other."""
        low, count = (tuple(values[channel] for channel in channels) for values in (self._low, self._count))
        group = Group(channels, low, count, tuple(self._thresholds(channel, levels) for channel in channels), ())
        if len(joint) == 1:
            half = other = slice(None)
        else:
            half, other = slice(0, None, 2), slice(1, None, 2)
        codes = _codes(self._counts(group, joint, half))
        tested = self._counts(group, joint, other)
        bits = sum(_bits(lengths, row, 8 * len(channels)) for lengths, row in zip(codes, tested, strict=True))
        bits /= len(joint[other])
        digits = sum(np.flatnonzero(lengths[:-1]).max(initial=0) + 2 for lengths in codes)
        return _Fit(group, entropy, bits, bits + DIGIT_PRICE * digits)

    def _joint(self, channels: Sequence[int]) -> np.ndarray:
        """Return the joint symbols [N, h * w] of channels."""
        joint = np.zeros(self._symbols.shape[1:], np.int64)
        for channel in channels:
            joint = joint * self._count[channel] + self._symbols[channel] - self._low[channel]
        return joint

    def _thresholds(self, channel: int, levels: int) -> tuple[int, ...]:
        """Return thresholds that divide the means of neighbours into levels of equal frequency."""
        means = self._means[channel]
        if levels == 1 or not means.size:
            return ()
        cuts = np.quantile(means, np.arange(1, levels) / levels, method="nearest")
        return tuple(sorted({int(cut) for cut in cuts if cut > means.min()}))

    def _counts(self, group: Group, joint: np.ndarray, images: slice) -> np.ndarray:
        """Count the joint symbols of some images for each code, [codes, symbols]."""
        if group.contexts == 1:
            return np.bincount(joint[images].ravel(), minlength=group.symbols)[None]
        context = np.zeros(self._means.shape[1:], np.int64)
        for channel, thresholds in zip(group.channels, group.thresholds, strict=True):
            context = context * (len(thresholds) + 1) + np.searchsorted(thresholds, self._means[channel], side="right")
        even = np.bincount(joint[images][:, self._pixels.even].ravel(), minlength=group.symbols)
        cells = (context * group.symbols + joint[:, self._pixels.odd])[images]
        odd = np.bincount(cells.ravel(), minlength=group.contexts * group.symbols)
        return np.concatenate([even[None], odd.reshape(group.contexts, group.symbols)])


def _merge(training: _Training, fits: Sequence[_Fit]) -> list[_Fit] | None:
    """Join the group of the least entropy with another one, where that saves bits; None where it does not."""
    ranked = sorted(fits, key=lambda fit: fit.entropy)
    for first, second in itertools.combinations(ranked[:4], 2):
        channels = first.outline.channels + second.outline.channels
        if first.entropy + second.entropy > ENOUGH_BITS or training.size(channels) > MAX_JOINT:
            continue
        together = training.best(channels)
        if together.price < first.price + second.price:
            return [together, *(fit for fit in fits if fit is not first and fit is not second)]
    return None


def _codes(counts: np.ndarray) -> list[np.ndarray]:
    """Return the lengths of a code for each row of counts; a context's borrows from the code of all pixels.

    The escape counts as often as there are symbols that occurred once: as many new ones are to be expected as symbols
    that have been new a moment ago (Good and Turing).
    """
    pooled = counts.sum(0)
    prior = 0 if len(counts) == 1 else UNITS * PRIOR * pooled // max(1, pooled.sum())
    return [
        huffman.code_lengths(np.append(UNITS * row + prior, UNITS * max(1, np.count_nonzero(row == 1))))
        for row in counts
    ]


def _bits(lengths: np.ndarray, counts: np.ndarray, raw: int) -> int:
    """Return the bits of symbols that occur `counts` times; those without a code have the escape and `raw` bits."""
    return int(np.where(lengths[:-1] > 0, lengths[:-1], lengths[-1].astype(np.int64) + raw) @ counts)


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
