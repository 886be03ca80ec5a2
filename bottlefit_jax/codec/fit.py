"""Makes the code tables of a rate from training latents.

What is chosen (which channels are coded together, how many contexts each has) is chosen by the bits that codes of one
half of the images take on the other half. The codes themselves come from all images. Floats only weigh alternatives
here; what travels are integers.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bottlefit_jax.codec import huffman
from bottlefit_jax.codec.lattice import MEANS, WEIGHT, passes
from bottlefit_jax.codec.rate import Contexts, Group, Rate, symbols_of
from bottlefit_jax.codec.rates import code_text
from bottlefit_jax.errors import UserError

LEVELS = (3, 5, 9)  # of a channel's mean of neighbours, for a channel alone
PRODUCTS = {2: (3, 4), 3: (2, 3), 4: (2,), 5: (2,)}  # levels of each channel, by the number of channels of a group
RARE = 1e-4  # share of a channel's symbols that have no code where channels are coded together
MAX_JOINT = 4095  # joint symbols of a group: more have too few images each, and long tables
ENOUGH_BITS = 6.0  # of a joint symbol: above, joining more channels saves less than 1 %
PRICE = 0.004  # bits of a payload that a character of the tables must save, at first
MAX_TEXT = 850  # characters of a rate's codes for each channel: six rates of 12 channels have less than 64 kB
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
    for price in PRICE * 1.2 ** np.arange(50):
        fits = training.choose(float(price))
        if sum(fit.text for fit in fits) <= MAX_TEXT * len(steps):
            break
    groups = tuple(fit.group() for fit in sorted(fits, key=lambda fit: fit.outline.channels))
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
        text: characters of its codes.
        counts: [codes, symbols + 1] how often each joint symbol, and the escape, occurs in all images.
    """

    outline: Group
    entropy: float
    bits: float
    text: int
    counts: np.ndarray

    def cost(self, price: float) -> float:
        """Return the bits of a payload and of the codes, at this price of a character."""
        return self.bits + price * self.text

    def group(self) -> Group:
        """Return the group with codes for all images."""
        return dataclasses.replace(self.outline, lengths=tuple(_codes(self.counts)))


class _Training:
    """The symbols of training latents, and the codes that can be made of them."""

    def __init__(self, latents: np.ndarray, steps: Sequence[int], zero_point: int):
        count, h, w, c = latents.shape
        flat = latents.reshape(count, h * w, c)
        symbols = np.stack([symbols_of(step, zero_point)[flat[..., channel]] for channel, step in enumerate(steps)])
        outside = np.pad(symbols, ((0, 0), (0, 0), (0, 1))).astype(np.uint16)
        self._passes = passes(h, w)
        self._symbols = symbols  # [c, N, h * w]
        self._means = [  # [c, N, n] of each pass
            sum(outside[..., each] for each in pixels.neighbours) * pixels.weights.ravel() for pixels in self._passes
        ]
        histograms = [np.bincount(channel.ravel()) for channel in symbols]
        self._usual = [int(histogram.argmax()) for histogram in histograms]
        self._all, self._frequent = ([_range(each, rare) for each in histograms] for rare in (0, RARE))
        self._known: dict[tuple[int, ...], list[_Fit]] = {}

    def choose(self, price: float) -> list[_Fit]:
        """Return groups that cost least at a price of a character; every channel is in one of them."""
        fits = [self._best((channel,), price) for channel in range(len(self._symbols))]
        while (merged := self._merge(fits, price)) is not None:
            fits = merged
        return fits

    def _merge(self, fits: Sequence[_Fit], price: float) -> list[_Fit] | None:
        """Join two groups of little entropy where that saves something; None where it does not."""
        ranked = sorted(fits, key=lambda fit: fit.entropy)
        for first, second in itertools.combinations(ranked[:4], 2):
            channels = first.outline.channels + second.outline.channels
            joint_symbols = math.prod(self._frequent[channel][1] for channel in channels)
            if first.entropy + second.entropy > ENOUGH_BITS or joint_symbols > MAX_JOINT:
                continue
            together = self._best(channels, price)
            if together.cost(price) < first.cost(price) + second.cost(price):
                return [together, *(fit for fit in fits if fit is not first and fit is not second)]
        return None

    def _best(self, channels: tuple[int, ...], price: float) -> _Fit:
        """Return the cheapest contexts of channels that are coded together."""
        if channels not in self._known:
            ranges = self._all if len(channels) == 1 else self._frequent
            low, count = zip(*(ranges[channel] for channel in channels), strict=True)
            second, third = (self._options(channels, place) for place in (1, 2))
            outline = Group(channels, low, count, (second[0], third[0]), False)
            joint = self._joint(outline)
            entropy = _entropy(np.bincount(joint.ravel()))
            self._known[channels] = [
                fit
                for pair in itertools.zip_longest(second, third, fillvalue=second[0])
                for fit in self._fits(dataclasses.replace(outline, contexts=pair), joint, entropy)
            ]
        return min(self._known[channels], key=lambda fit: fit.cost(price))

    def _fits(self, group: Group, joint: np.ndarray, entropy: float) -> Iterator[_Fit]:
        """Measure the codes of one half of the images on the other, the passes' codes for contexts shared or not."""
        halves = self._counts(group, joint)
        yield self._fit(group, halves, entropy)
        second, third = (each.count for each in group.contexts)
        if second > 1 and third > 1:
            shared = halves[:, : 1 + max(second, third)].copy()
            shared[:, 1 + second :] = 0
            shared[:, 1 : 1 + third] += halves[:, 1 + second :]
            yield self._fit(dataclasses.replace(group, shared=True), shared, entropy)

    def _fit(self, group: Group, halves: np.ndarray, entropy: float) -> _Fit:
        codes, tested = _codes(halves[0]), halves[1] if halves[1].any() else halves[0]
        bits = sum(_bits(lengths, row, 8 * len(group.channels)) for lengths, row in zip(codes, tested, strict=True))
        text = sum(len(code_text(lengths)) for lengths in codes)
        images = tested.sum() / self._symbols.shape[2]
        return _Fit(group, entropy, bits / images, text, halves.sum(0))

    def _options(self, channels: tuple[int, ...], place: int) -> list[Contexts]:
        """Return the contexts that channels may have in a pass, one of them none."""
        none = Contexts(((),) * len(channels), ((0,),) * len(channels))
        if not self._means[place].size:
            return [none]
        if len(channels) == 1:
            return [none, *(self._ranked(channels, place, levels) for levels in LEVELS)]
        activity = [self._activity(channels, place, shares) for shares in ((0.5,), (0.3, 0.7))]
        products = [self._ranked(channels, place, levels) for levels in PRODUCTS.get(len(channels), ())]
        return [none, *activity, *products]

    def _ranked(self, channels: tuple[int, ...], place: int, levels: int) -> Contexts:
        """Divide each channel's means into levels of equal frequency; a context is one combination of levels."""
        thresholds, numbers, stride = [], [], 1
        for channel in channels:
            cuts = np.quantile(self._means[place][channel], np.arange(1, levels) / levels, method="nearest")
            thresholds.append(tuple(sorted({int(cut) for cut in cuts if cut > 0})))
            numbers.append(tuple(stride * level for level in range(len(thresholds[-1]) + 1)))
            stride *= len(numbers[-1])
        return Contexts(tuple(thresholds), tuple(numbers))

    def _activity(self, channels: tuple[int, ...], place: int, shares: Sequence[float]) -> Contexts:
        """Count how many channels have means far from their usual symbol, and how far; so many contexts are few."""
        thresholds, numbers = [], []
        for channel in channels:
            usual = WEIGHT * self._usual[channel]
            away = np.abs(self._means[place][channel].astype(int) - usual)
            cuts = sorted({int(cut) for cut in np.quantile(away, shares, method="nearest") if cut > 0} or {1})
            below = [usual - cut + 1 for cut in reversed(cuts) if usual - cut + 1 > 0]
            above = [usual + cut for cut in cuts if usual + cut < MEANS]
            thresholds.append((*below, *above))
            numbers.append((*range(len(below), 0, -1), *range(len(above) + 1)))
        return Contexts(tuple(thresholds), tuple(numbers))

    def _joint(self, group: Group) -> np.ndarray:
        """Return the joint symbols [N, h * w] of a group; the escape where a symbol is out of range."""
        joint, outside = np.zeros(self._symbols.shape[1:], np.int64), np.zeros(self._symbols.shape[1:], bool)
        for channel, low, count in zip(group.channels, group.low, group.count, strict=True):
            inner = self._symbols[channel] - np.int64(low)
            outside |= (inner < 0) | (inner >= count)
            joint = joint * count + inner
        return np.where(outside, group.symbols, joint)

    def _counts(self, group: Group, joint: np.ndarray) -> np.ndarray:
        """Count joint symbols and escapes for each code, in every other image and in the rest, [2, codes, symbols + 1].

        Args:
            group: whose passes do not share codes.
            joint: [N, h * w].
        """
        shape = (2, group.codes, group.symbols + 1)
        half = np.arange(len(joint))[:, None] % 2
        counts = np.zeros(shape, np.int64)
        for place, pixels in enumerate(self._passes):
            code = 0 if place == 0 else self._context(group, place)
            cells = (half * shape[1] + code) * shape[2] + joint[:, pixels.pixels]
            counts += np.bincount(cells.ravel(), minlength=counts.size).reshape(shape)
        return counts

    def _context(self, group: Group, place: int) -> Any:
        """Return the place of the code of each image and pixel in a later pass, [N, n]."""
        contexts, means = group.contexts[place - 1], self._means[place]
        number = np.full(means.shape[1:], group.first_codes[place - 1], np.int64)
        for channel, thresholds, each in zip(group.channels, contexts.thresholds, contexts.numbers, strict=True):
            number += np.array(each)[np.searchsorted(thresholds, means[channel], side="right")]
        return number


def _codes(counts: np.ndarray) -> list[np.ndarray]:
    """Return the lengths of a code for each row of counts, [symbols + 1] with the escape at the end.

    A context's code borrows from the counts of all. To the escapes that were seen come as many as there are symbols
    that occurred once: so many new ones are to be expected (Good, 1953).
    """
    pooled = counts.sum(0)
    prior = 0 if len(counts) == 1 else UNITS * PRIOR * pooled // max(1, pooled.sum())
    weighed = UNITS * counts + prior
    weighed[:, -1] += UNITS * np.maximum(1, (counts[:, :-1] == 1).sum(1))
    weighed[:, 0] += weighed[:, :-1].sum(1) == 0  # a code has two symbols at least
    return [huffman.code_lengths(row) for row in weighed]


def _bits(lengths: np.ndarray, counts: np.ndarray, raw: int) -> int:
    """Return the bits of symbols that occur `counts` times; those without a code have the escape and `raw` bits."""
    bits = np.where(lengths > 0, lengths, lengths[-1]).astype(np.int64) + raw * (lengths == 0)
    bits[-1] += raw
    return int(bits @ counts)


def _range(histogram: np.ndarray, rare: float) -> tuple[int, int]:
    """Return the first symbol, and how many there are from it on, without the share `rare` at both ends together."""
    shares = np.cumsum(histogram) / histogram.sum()
    low = int(np.argmax(shares > rare / 2))
    high = int(np.argmax(shares >= 1 - rare / 2 - 1e-12))
    return low, high - low + 1


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
