"""A rate: how a latent becomes symbols, and which code each symbol has. Integers only.

An 8-bit value v of a channel becomes the symbol floor((v - zero_point + step // 2) / step), counted from the symbol of
v = 0, and is restored as the middle of the symbol's values. Channels are coded in groups: the symbols of a group at one
pixel make one joint symbol, since no code spends less than a bit on a symbol.

A group has one code for pixels of which no neighbour is known yet. In a later pass (lattice.py) each channel's mean of
the neighbours says, by thresholds, which context a pixel has, and each context has a code of its own.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np

from bottlefit_jax.codec import huffman
from bottlefit_jax.codec.lattice import MEANS

FORMATS = (1, 2)  # of a file of rates; since 2, payloads may have more than 255 symbols without a code
MAX_SYMBOLS = 4095  # of a group: the escape has the next number, and 12 bits hold both


@dataclass(frozen=True)
class Contexts:
    """Which context of a group a pixel has in one pass.

    A context is the sum, over the group's channels, of the number that belongs to the channel's mean of neighbours.

    Attributes:
        thresholds: for each channel, ascending, of WEIGHT times a mean.
        numbers: for each channel, one more than thresholds: that of means below the first threshold, and so on.
    """

    thresholds: tuple[tuple[int, ...], ...]
    numbers: tuple[tuple[int, ...], ...]

    @property
    def count(self) -> int:
        """The number of contexts."""
        return 1 + sum(max(each) for each in self.numbers)


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that are coded together.

    Attributes:
        channels: in the order in which they make a joint symbol; the last one changes fastest.
        low: of each channel, the first symbol that has a code.
        count: of each channel, how many symbols have a code, from `low` on.
        contexts: of the second and the third pass. In a pass with a single context pixels have the first code.
        shared: whether both passes have the same codes for their contexts.
        lengths: the first code, then those of the contexts of the second pass, and of the third where they are not
            shared. [symbols + 1] uint8 each: the bits of each joint symbol, 0 for none, and of the escape.
    """

    channels: tuple[int, ...]
    low: tuple[int, ...]
    count: tuple[int, ...]
    contexts: tuple[Contexts, Contexts]
    shared: bool
    lengths: tuple[np.ndarray, ...] = ()

    @property
    def symbols(self) -> int:
        """The number of joint symbols, which is also the number of the escape."""
        return math.prod(self.count)

    @property
    def strides(self) -> tuple[int, ...]:
        """What each channel's symbol counts in the joint symbol."""
        return tuple(math.prod(self.count[place + 1 :]) for place in range(len(self.count)))

    @property
    def first_codes(self) -> tuple[int, int]:
        """The place in `lengths` of the first code of each pass's contexts."""
        second, third = (0 if each.count == 1 else each.count for each in self.contexts)
        return (1 if second else 0, 0 if not third else 1 if self.shared else 1 + second)

    @property
    def codes(self) -> int:
        """The number of codes."""
        second, third = (0 if each.count == 1 else each.count for each in self.contexts)
        return 1 + (max(second, third) if self.shared else second + third)


@dataclass(frozen=True, eq=False)
class Rate:
    """One way to make a payload.

    Attributes:
        id: its name.
        zero_point: the value that every step keeps, 0..255.
        steps: of each channel, 1..255.
        groups: each channel is in one of them.
        lanes: the streams in a payload that a decoder reads at the same time; an even number.
        number: its place among the rates of a bundle, which a payload names.
        key: 32 bits that a payload's check begins with, so that it fits this bundle alone.
        format: of the file that it belongs to.
    """

    id: str
    zero_point: int
    steps: tuple[int, ...]
    groups: tuple[Group, ...]
    lanes: int
    number: int = 0
    key: int = 0
    format: int = FORMATS[-1]

    @functools.cached_property
    def tables(self) -> Tables:
        """What encoder and decoder look up, as arrays."""
        return Tables(self)


class Tables:
    """A rate as arrays. Channels are in the order of the groups.

    Attributes:
        order: [c] channels, group by group.
        starts: [G] where each group begins in `order`.
        to_symbol, to_value: [c * 256] uint8, the symbol of each value and back; a symbol that is not in use has 255.
        low, count, strides: [c] uint16: of each channel as in Group, and what its symbol counts in the joint symbol.
        values_at, contexts_at: [c] int32, where a channel begins in `to_symbol` and `to_value`, and in `contexts`.
        contexts: for each pass but the first, [c * MEANS] uint8: what WEIGHT times a mean of neighbours adds to the
            place of the code among those of the group.
        first: [G] the number of each group's first code.
        escapes: [G] uint16, each group's escape.
        joined: whether a group has more than one channel.
        group_of: [c] the group of each channel.
        at: [codes] where each code begins in `forward` and `backward`.
        forward, backward: [entries + 1] uint16, code * 16 + length; in `backward` the code's bits are reversed.
        nothing: the place in both of an entry without bits.
        decoding: [(codes + 1) * 2**MAX_BITS] uint16, symbol * 16 + length.
        last: the number of a code without bits in `decoding`.
    """

    def __init__(self, rate: Rate):
        groups = rate.groups
        channels = [channel for group in groups for channel in group.channels]
        codes = [lengths for group in groups for lengths in group.lengths]
        entries = [_entries(lengths) for lengths in codes]
        sizes = [len(lengths) for lengths in codes]
        self.order = np.array(channels)
        self.starts = np.cumsum([0, *(len(group.channels) for group in groups[:-1])])
        self.to_symbol = np.concatenate([symbols_of(rate.steps[channel], rate.zero_point) for channel in channels])
        self.to_value = np.concatenate([_padded_values(rate.steps[channel], rate.zero_point) for channel in channels])
        self.low = np.array([low for group in groups for low in group.low], np.uint16)
        self.count = np.array([count for group in groups for count in group.count], np.uint16)
        self.strides = np.array([stride for group in groups for stride in group.strides], np.uint16)
        self.contexts = tuple(
            np.concatenate([_context_numbers(group, place) for group in groups]) for place in range(2)
        )
        self.first = np.cumsum([0, *(len(group.lengths) for group in groups[:-1])])
        self.escapes = np.array([group.symbols for group in groups], np.uint16)
        self.at = np.cumsum([0, *sizes[:-1]])
        self.nothing = sum(sizes)
        self.forward = np.array([*itertools.chain.from_iterable(forward for forward, _ in entries), 0], np.uint16)
        self.backward = np.array([*itertools.chain.from_iterable(backward for _, backward in entries), 0], np.uint16)
        self.last = len(codes)
        self.joined = len(groups) < len(channels)
        self.group_of = np.repeat(np.arange(len(groups)), [len(group.channels) for group in groups])
        self.values_at = (256 * np.arange(len(channels))).astype(np.int32)
        self.contexts_at = (MEANS * np.arange(len(channels))).astype(np.int32)
        self._codes = codes

    @functools.cached_property
    def decoding(self) -> np.ndarray:
        """Made at the first use: a device does not need it, and it is the largest array."""
        tables = [huffman.decoding_table(lengths) for lengths in self._codes]
        return np.concatenate([*tables, np.zeros(1 << huffman.MAX_BITS, np.uint16)])


def symbols_of(step: int, zero_point: int) -> np.ndarray:
    """Return the symbol of each value, [256] uint8, from 0 up without gaps."""
    numbers = (np.arange(256) - zero_point + step // 2) // step
    return (numbers - numbers[0]).astype(np.uint8)


def values_of(step: int, zero_point: int) -> np.ndarray:
    """Return the value that each symbol is restored as, [symbols] uint8."""
    first, last = ((value - zero_point + step // 2) // step for value in (0, 255))
    return np.clip(zero_point + step * np.arange(first, last + 1), 0, 255).astype(np.uint8)


def _padded_values(step: int, zero_point: int) -> np.ndarray:
    restored = values_of(step, zero_point)
    return np.pad(restored, (0, 256 - len(restored)), constant_values=255)


def _context_numbers(group: Group, place: int) -> np.ndarray:
    """Return the part of `Tables.contexts` of a group's channels, [channels * MEANS] uint8."""
    contexts = group.contexts[place]
    numbers = [
        np.array(each, np.uint8)[np.searchsorted(thresholds, np.arange(MEANS), side="right")]
        for thresholds, each in zip(contexts.thresholds, contexts.numbers, strict=True)
    ]
    numbers[0] += np.uint8(group.first_codes[place])
    return np.concatenate(numbers)


def _entries(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return code * 16 + length of each symbol, and the same with the code's bits reversed; uint16."""
    codes, bits = huffman.canonical_codes(lengths), lengths.astype(np.int64)
    backward = np.zeros_like(codes)
    for bit in range(huffman.MAX_BITS):
        backward |= np.where(bit < bits, ((codes >> bit) & 1) << np.maximum(bits - 1 - bit, 0), 0)
    return (codes * 16 + bits).astype(np.uint16), (backward * 16 + bits).astype(np.uint16)
