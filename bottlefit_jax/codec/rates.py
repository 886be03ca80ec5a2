"""The rates of a bundle, and the file that holds their code tables.

The file is JSON: {"format", "head", "shape", "zero_point", "rates": [{"id", "steps", "lanes", "groups": [{"channels",
"low", "count", "contexts": [{"thresholds", "numbers"}, {…}], "shared", "codes"}]}]}, as in rate.py. A code is a text:
for each joint symbol and the escape the bits of its code in base 13, 0 for none. A letter from d to z repeats the digit
before it 2 to 24 times.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bottlefit_jax.codec import huffman
from bottlefit_jax.codec.lattice import MEANS
from bottlefit_jax.codec.rate import FORMATS, MAX_SYMBOLS, Contexts, Group, Rate, symbols_of
from bottlefit_jax.errors import UserError, quote

MAX_RATES = 16  # a payload names its rate in 4 bits
MAX_CONTEXTS = 64
_DIGITS = "0123456789abc"


@dataclass(frozen=True, eq=False)
class Rates:
    """The rates of a bundle; `make_rates` makes them from `fit_rate`'s, `parse_rates` reads a file.

    Attributes:
        head: the id of the head whose latents they code.
        shape: (h, w, c) of the latent.
        rates: in the order of their numbers.
    """

    head: str
    shape: tuple[int, int, int]
    rates: tuple[Rate, ...]

    @property
    def key(self) -> int:
        """32 bits that depend on everything in the file."""
        return self.rates[0].key

    @property
    def size(self) -> int:
        """The number of values of a latent."""
        return math.prod(self.shape)

    def get(self, id: str) -> Rate:
        """Return a rate by its id.

        Raises:
            UserError: there is no such rate.
        """
        for rate in self.rates:
            if rate.id == id:
                return rate
        raise UserError(f"there is no rate {id!r}; this bundle has {', '.join(rate.id for rate in self.rates)}")


def make_rates(rates: Sequence[Rate], *, head: str, shape: tuple[int, int, int]) -> Rates:
    """Give rates their numbers and their key.

    Args:
        rates: from `fit_rate`, 1 to MAX_RATES, with ids of their own.
        head: the id of the head.
        shape: (h, w, c) of the latent.

    Raises:
        UserError: there are too many or none, or two have the same id.
    """
    ids = [rate.id for rate in rates]
    if not 1 <= len(rates) <= MAX_RATES or len(set(ids)) < len(ids):
        raise UserError(f"the rates are {', '.join(ids) or 'none'}; there must be 1 to {MAX_RATES} with different ids")
    key = int.from_bytes(hashlib.sha256(_text(head, shape, rates).encode()).digest()[:4], "big")
    numbered = (replace(rate, number=number, key=key) for number, rate in enumerate(rates))
    return Rates(head, shape, tuple(numbered))


def rates_text(rates: Rates) -> str:
    """Return the content of the file."""
    return _text(rates.head, rates.shape, rates.rates)


def parse_rates(text: str, source: str) -> Rates:
    """Read the content of the file.

    Args:
        text: of the file.
        source: what an error calls the file.

    Raises:
        UserError: the text is not JSON, a value is missing or out of range, or a code is not complete.
    """
    try:
        values = json.loads(text)
        if (of_format := values.get("format")) not in FORMATS:
            raise _Invalid(f"its format is {of_format!r}; this package reads {' and '.join(map(str, FORMATS))}")
        shape, zero_point = tuple(values["shape"]), values["zero_point"]
        if len(shape) != 3 or not all(_is_int(side, 1, 65535) for side in shape):
            raise _Invalid(f"its shape is {list(shape)}; it must be three whole numbers above 0")
        if not _is_int(zero_point, 0, 255):
            raise _Invalid(f"its zero_point is {zero_point!r}; it must be 0 to 255")
        rates = [replace(_rate(each, shape[2], zero_point), format=of_format) for each in values["rates"]]
        return make_rates(rates, head=str(values["head"]), shape=shape)
    except _Invalid as error:
        raise UserError(f"{source} is not a valid file of rates: {error}") from None
    except KeyError as error:
        raise UserError(f"{source} is not a valid file of rates: {error.args[0]} is missing") from None
    except UserError as error:
        raise UserError(f"{source} is not a valid file of rates: {error}") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{source} is not a valid file of rates: {error}") from None


class _Invalid(Exception):
    """A value of the file is invalid; the text says which."""


def _text(head: str, shape: tuple[int, int, int], rates: Sequence[Rate]) -> str:
    values = {
        "format": rates[0].format,
        "head": head,
        "shape": list(shape),
        "zero_point": rates[0].zero_point,
        "rates": [
            {
                "id": rate.id,
                "steps": list(rate.steps),
                "lanes": rate.lanes,
                "groups": [
                    {
                        "channels": list(group.channels),
                        "low": list(group.low),
                        "count": list(group.count),
                        "contexts": [dataclasses.asdict(each) for each in group.contexts],
                        "shared": group.shared,
                        "codes": [code_text(lengths) for lengths in group.lengths],
                    }
                    for group in rate.groups
                ],
            }
            for rate in rates
        ],
    }
    return json.dumps(values, separators=(",", ":")) + "\n"


def code_text(lengths: np.ndarray) -> str:
    """Return the text of a code, [symbols + 1] uint8."""
    digits = np.frombuffer(_DIGITS.encode(), np.uint8)[lengths].tobytes().decode()
    return re.sub(r"(.)(\1{2,24})", lambda run: run[1] + chr(ord("d") + len(run[2]) - 2), digits)


def _rate(values: dict[str, Any], channels: int, zero_point: int) -> Rate:
    name, steps, lanes = values["id"], tuple(values["steps"]), values["lanes"]
    if not isinstance(name, str) or not name:
        raise _Invalid(f"the id of a rate is {name!r}; it must be a text")
    if len(steps) != channels or not all(_is_int(step, 1, 255) for step in steps):
        raise _Invalid(f"rate {name} has the steps {list(steps)}; it must have {channels} of 1 to 255")
    if not _is_int(lanes, 2, 4096) or lanes % 2:
        raise _Invalid(f"rate {name} has {lanes!r} lanes; the number must be even, 2 to 4096")
    counts = [int(symbols_of(step, zero_point).max()) + 1 for step in steps]
    groups = tuple(_group(each, counts, name) for each in values["groups"])
    covered = sorted(channel for group in groups for channel in group.channels)
    if covered != list(range(channels)):
        raise _Invalid(f"the groups of rate {name} have the channels {covered}; each of {channels} must be in one")
    return Rate(name, zero_point, steps, groups, lanes)


def _group(values: dict[str, Any], counts: Sequence[int], rate: str) -> Group:
    """Read a group of a rate whose channels have `counts` symbols."""
    where = f"a group of rate {rate}"
    channels, low, count = (tuple(values[key]) for key in ("channels", "low", "count"))
    if not channels or not all(_is_int(channel, 0, len(counts) - 1) for channel in channels):
        raise _Invalid(f"{where} has the channels {quote(channels)}; they must be 0 to {len(counts) - 1}")
    if not len(channels) == len(low) == len(count) or len(values["contexts"]) != 2:
        raise _Invalid(f"{where} has {len(channels)} channels, and another number of low or count, or not 2 contexts")
    for channel, first, number in zip(channels, low, count, strict=True):
        if not (_is_int(first, 0, counts[channel] - 1) and _is_int(number, 1, counts[channel] - first)):
            raise _Invalid(
                f"{where} has {quote(number)} symbols from {quote(first)} on; channel {channel} has {counts[channel]}"
            )
    second, third = (_contexts(each, len(channels), where) for each in values["contexts"])
    if not isinstance(values["shared"], bool):
        raise _Invalid(f"{where} has {quote(values['shared'])} as shared; it must be true or false")
    group = Group(channels, low, count, (second, third), values["shared"])
    if group.symbols > MAX_SYMBOLS:
        raise _Invalid(f"{where} has {group.symbols:,} joint symbols; {MAX_SYMBOLS:,} are the most")
    if len(values["codes"]) != group.codes:
        raise _Invalid(f"{where} has {len(values['codes'])} codes; its contexts need {group.codes}")
    return replace(group, lengths=tuple(_lengths(each, group.symbols, where) for each in values["codes"]))


def _contexts(values: dict[str, Any], channels: int, where: str) -> Contexts:
    thresholds, numbers = (tuple(tuple(each) for each in values[key]) for key in ("thresholds", "numbers"))
    if not len(thresholds) == len(numbers) == channels:
        raise _Invalid(f"{where} has contexts for another number of channels than {channels}")
    for limits, each in zip(thresholds, numbers, strict=True):
        if not all(_is_int(limit, 1, MEANS - 1) for limit in limits) or sorted(set(limits)) != list(limits):
            raise _Invalid(f"{where} has the thresholds {quote(limits)}; they must ascend, from 1 to {MEANS - 1}")
        if len(each) != len(limits) + 1 or not all(_is_int(number, 0, MAX_CONTEXTS - 1) for number in each):
            raise _Invalid(
                f"{where} has the numbers {quote(each)}; {len(limits)} thresholds need {len(limits) + 1}, "
                f"of 0 to {MAX_CONTEXTS - 1}"
            )
    contexts = Contexts(thresholds, numbers)
    if contexts.count > MAX_CONTEXTS:
        raise _Invalid(f"{where} has {contexts.count:,} contexts; {MAX_CONTEXTS} are the most")
    return contexts


def _lengths(text: str, symbols: int, where: str) -> np.ndarray:
    """Read the text of a code."""
    if not isinstance(text, str) or len(text) > symbols + 1 or not re.fullmatch("([0-9a-c][d-z]?)+", text):
        raise _Invalid(f"a code of {where} is {quote(text)}; it must be at most {symbols + 1} digits and letters")
    digits = re.sub("([0-9a-c])([d-z])", lambda run: run[1] * (ord(run[2]) - ord("d") + 3), text)
    if len(digits) != symbols + 1:
        raise _Invalid(f"a code of {where} has {len(digits)} symbols; the group has {symbols} and the escape")
    lengths = np.array([_DIGITS.index(digit) for digit in digits], np.uint8)
    total, whole = huffman.kraft_sum(lengths), 1 << huffman.MAX_BITS
    if not lengths[-1]:
        raise _Invalid(f"a code of {where} has no escape")
    if total != whole:
        raise _Invalid(f"a code of {where} {'overlaps' if total > whole else 'does not sum to 1'}")
    return lengths


def _is_int(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
