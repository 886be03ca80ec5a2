"""Payloads: the only code that knows what their bytes mean. docs/reference/payload.md has it all for other languages.

| bytes | content |
|---|---|
| 1 | VERSION (2 bits), mode (2 bits), number of the rate (4 bits) |
| 3 | check: the lowest 24 bits of the CRC-32 of the key of the bundle's rates and all other bytes |
| 1 or 2 | in mode ESCAPED or MANY: how many bytes of symbols without a code there are at the end |
| n | with two or more pairs of lanes: how the bits are divided among them, see `_pack_pairs` |
| rest | the lanes (lanes.py), then the symbols without a code |

Where this is not shorter than all symbols, a byte each, these are the rest: mode STORED. So no payload of a latent is
longer than HEADER + h * w * c bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bottlefit_jax.codec import lanes
from bottlefit_jax.codec.lattice import deal, passes
from bottlefit_jax.codec.rate import Rate, Tables
from bottlefit_jax.codec.rates import Rates
from bottlefit_jax.codec.symbols import code_numbers, join, look_up, split
from bottlefit_jax.errors import ProtocolError, UserError

VERSION = 1
CODED, ESCAPED, STORED, MANY = 0, 1, 2, 3  # modes; MANY since format 2 of the rates
COUNT = {ESCAPED: 1, MANY: 2}  # bytes that say how many bytes of symbols without a code there are
HEADER = 4  # bytes
MISSING = b"?"  # instead of symbols that a payload should have
MAX_WIDTH = 24  # bits of a number in `_pack_pairs`


def encode(latent: np.ndarray, rate: Rate) -> bytes:
    """Return the payload of a latent.

    Args:
        latent: [h, w, c] uint8.
        rate: of the bundle.

    Raises:
        UserError: the latent has another dtype, or other channels than the rate.
    """
    latent = np.asarray(latent)
    check_latent(latent, rate)
    (h, w, c), tables = latent.shape, rate.tables
    symbols = np.zeros((h * w + 1, c), np.uint8)  # the last row is that of pixels outside
    tables.to_symbol.take(latent.reshape(h * w, c)[:, tables.order] + tables.values_at, out=symbols[:-1], mode="clip")
    code = np.empty((h * w, len(tables.first)), np.intp)  # where it begins in tables.forward
    for place, each in enumerate(passes(h, w)):
        code[each.pixels] = tables.at.take(code_numbers(symbols[..., None], each, place, tables)[..., 0])
    order = deal(h, w, len(tables.first), rate.lanes)
    joint, in_range = join(symbols[:-1], tables)
    entries, raw = look_up(code + joint, tables, order), b""
    if not in_range or np.count_nonzero(entries) < joint.size:
        joint = np.where(tables.forward[code + joint] == 0, tables.escapes, joint)
        entries = look_up(code + joint, tables, order)
        flags = (joint == tables.escapes)[:, tables.group_of]
        raw = b"".join(symbols[each.pixels][flags[each.pixels]].tobytes() for each in passes(h, w))
    stream, pairs = lanes.pack(entries)
    mode, body = _mode(len(raw), rate), _pack_pairs(pairs) + stream
    if mode in COUNT:
        body = len(raw).to_bytes(COUNT[mode], "big") + body + raw
    if len(body) >= latent.size or mode == STORED:
        mode, body = STORED, symbols[:-1].tobytes()
    first = bytes([VERSION << 6 | mode << 4 | rate.number])
    return first + _check(first, body, rate.key) + body


def check_latent(latent: np.ndarray, rate: Rate) -> None:
    """Check that an array is a latent of this rate: [h, w, c] uint8.

    Raises:
        UserError: it has another dtype, or other channels than the rate.
    """
    if latent.dtype != np.uint8 or latent.ndim != 3 or latent.shape[2] != len(rate.steps) or not latent.size:
        raise UserError(
            f"cannot encode {latent.dtype} {list(latent.shape)}; the rate is for uint8 [h, w, {len(rate.steps)}]"
        )


def coded_size(pairs: np.ndarray, raw: int, rate: Rate, stored: int) -> int:
    """Return the bytes of the payload that `encode` would make.

    Args:
        pairs: [lanes / 2], the bits of each pair of lanes, without the gap of the last.
        raw: bytes of symbols without a code.
        rate: of the payload.
        stored: bytes of all symbols, a byte each.
    """
    if (mode := _mode(raw, rate)) == STORED:
        return HEADER + stored
    stream = (int(pairs.sum()) + 7) // 8
    gap = 8 * stream - int(pairs.sum())
    size = COUNT.get(mode, 0) + len(_pack_pairs(np.append(pairs[:-1], pairs[-1] + gap))) + stream + raw
    return HEADER + min(size, stored)


def _mode(raw: int, rate: Rate) -> int:
    """Return the mode of a payload with so many bytes of symbols without a code."""
    if raw == 0:
        return CODED
    if raw < 1 << 8:
        return ESCAPED
    return MANY if rate.format > 1 and raw < 1 << 16 else STORED


def decode(payload: bytes, rates: Rates) -> np.ndarray:
    """Return the latent of a payload.

    Args:
        payload: any bytes.
        rates: of the bundle.

    Returns:
        [h, w, c] uint8.

    Raises:
        ProtocolError: the payload is damaged, or was not made with these rates.
    """
    latents, problems = decode_batch([payload], rates)
    if problems[0] is not None:
        raise ProtocolError(problems[0])
    return latents[0]


def decode_batch(payloads: Sequence[bytes], rates: Rates) -> tuple[np.ndarray, list[str | None]]:
    """Return the latents of several payloads, which takes little longer than one.

    Args:
        payloads: any bytes, of any of the rates.
        rates: of the bundle.

    Returns:
        [B, h, w, c] uint8; and for each payload why it is invalid, or None. The latent of an invalid one is zeros.
    """
    latents = np.zeros((len(payloads), *rates.shape), np.uint8)
    problems = [header_problem(payload, rates) for payload in payloads]
    for rate in rates.rates:
        chosen = [
            index
            for index, payload in enumerate(payloads)
            if problems[index] is None and payload[0] & 15 == rate.number
        ]
        if chosen:
            latents[chosen], found = _Decoder(rate, rates.shape).run([payloads[index] for index in chosen])
            for index, problem in zip(chosen, found, strict=True):
                problems[index] = problem
    return latents, problems


def header_problem(payload: bytes, rates: Rates) -> str | None:
    """Return why a payload is not one of these rates; None where only decoding it can tell.

    It takes microseconds, whatever the payload.
    """
    largest = HEADER + rates.size
    if not HEADER <= len(payload) <= largest:
        return f"the payload has {len(payload):,} bytes; one of this bundle has {HEADER} to {largest:,}"
    version, mode, number = payload[0] >> 6, payload[0] >> 4 & 3, payload[0] & 15
    if version != VERSION:
        return f"the payload is of version {version}, and this package reads version {VERSION}"
    last = STORED if rates.rates[0].format == 1 else MANY
    if number >= len(rates.rates) or mode > last:
        known = f"{len(rates.rates)} rates, modes 0 to {last}"
        return f"the payload names rate {number} in mode {mode}; this bundle has {known}"
    if _check(payload[:1], payload[HEADER:], rates.key) != payload[1:HEADER]:
        return "the payload is damaged, or was made with the rates of another bundle"
    return None


def rate_of(payload: bytes, rates: Rates) -> Rate:
    """Return the rate of a payload without a `header_problem`."""
    return rates.rates[payload[0] & 15]


class _Damaged(Exception):
    """A payload whose check is right and whose content is not; the text says what is wrong."""


class _Decoder:
    """Decodes payloads of one rate side by side. The payload is the last axis of arrays, so that rows lie together."""

    def __init__(self, rate: Rate, shape: tuple[int, int, int]):
        h, w, _ = shape
        self._tables, self._shape, self._lanes = rate.tables, shape, rate.lanes
        self._passes, self._deal = passes(h, w), deal(h, w, len(self._tables.first), rate.lanes)

    def run(self, payloads: Sequence[bytes]) -> tuple[np.ndarray, list[str | None]]:
        """Return [B, h, w, c] uint8 and, for each payload, why it is invalid or None."""
        (h, w, c), tables, count = self._shape, self._tables, len(payloads)
        problems: list[str | None] = [None] * count
        symbols = np.zeros((h * w + 1, c, count), np.uint8)  # the last row is that of pixels outside
        coded: list[tuple[int, _Body]] = []
        for index, payload in enumerate(payloads):
            try:
                if payload[0] >> 4 & 3 == STORED:
                    symbols[:-1, :, index] = _stored(payload, (h * w, c))
                else:
                    coded.append((index, _body(payload, self._lanes // 2)))
            except _Damaged as error:
                problems[index] = str(error)
        if coded:
            places = [index for index, _ in coded]
            symbols[..., places], found = self._read([body for _, body in coded])
            for index, problem in zip(places, found, strict=True):
                problems[index] = problem
        values = tables.to_value.take(symbols[:-1] + tables.values_at[:, None], mode="clip")
        values[..., [problem is not None for problem in problems]] = 0
        latents = np.empty((count, h * w, c), np.uint8)
        latents[..., tables.order] = np.moveaxis(values, 2, 0)
        return latents.reshape(count, h, w, c), problems

    def _read(self, bodies: Sequence[_Body]) -> tuple[np.ndarray, list[str | None]]:
        """Return the symbols [h * w + 1, c, B] of coded payloads, and the problems."""
        (h, w, c), tables, dealt = self._shape, self._tables, self._deal.passes
        longest = max(len(body.stream) for body in bodies)
        streams = np.zeros((len(bodies), longest), np.uint8)
        for row, body in zip(streams, bodies, strict=True):
            row[: len(body.stream)] = np.frombuffer(body.stream, np.uint8)
        windows = lanes.windows(streams, sum(map(len, dealt)))
        begin = _begin(bodies, longest, windows.shape[2])
        at, windows, raw = begin.copy(), windows.ravel(), [body.raw for body in bodies]
        symbols = np.zeros((h * w + 1, c, len(bodies)), np.uint8)
        codes = np.empty((h * w + 1, len(tables.first), len(bodies)), np.uint16)
        codes[-1] = tables.last
        for place, (each, positions) in enumerate(zip(self._passes, dealt, strict=True)):
            codes[each.pixels] = code_numbers(symbols, each, place, tables)
            chosen = codes.reshape(-1, len(bodies))[positions].reshape(len(positions), at.size)
            joint = np.empty((codes.shape[0] * codes.shape[1], len(bodies)), np.uint16)
            joint[positions] = (lanes.read(windows, at, chosen, tables.decoding) >> 4).reshape(
                *positions.shape, len(bodies)
            )
            joint = joint.reshape(codes.shape)[each.pixels]
            part = split(joint, tables)
            _fill_escapes(part, joint == tables.escapes[:, None], raw, tables)
            symbols[each.pixels] = part
        return symbols, _problems(bodies, (at - begin).reshape(-1, 2, len(bodies)), raw)


def _begin(bodies: Sequence[_Body], longest: int, bits: int) -> np.ndarray:
    """Return where each lane begins in flat windows of `bits` bits a direction, [lanes * B] intp."""
    pairs = np.array([body.pairs for body in bodies]).T  # [pairs, B]
    ends = np.cumsum(pairs, axis=0)
    offset = np.arange(len(bodies)) * 2 * bits
    return np.stack([offset + ends - pairs, offset + bits + 8 * longest - ends], axis=1).astype(np.intp).ravel()


def _fill_escapes(symbols: np.ndarray, escaped: np.ndarray, raw: list[bytes], tables: Tables) -> None:
    """Put the symbols without a code [n, c, B] where the escapes [n, G, B] are, and take them out of `raw`."""
    if not escaped.any():
        return
    for index in np.flatnonzero(escaped.any((0, 1))):
        flags = escaped[:, tables.group_of, index]
        needed = int(np.count_nonzero(flags))
        if len(raw[index]) < needed:
            raw[index] = MISSING
            continue
        symbols[..., index][flags] = np.frombuffer(raw[index][:needed], np.uint8)
        raw[index] = raw[index][needed:]


def _problems(bodies: Sequence[_Body], used: np.ndarray, raw: Sequence[bytes]) -> list[str | None]:
    """Return the payloads whose pairs of lanes have not used [pairs, 2, B] all bits, or that have `raw` left."""
    gaps = np.array([body.pairs for body in bodies]).T - used.sum(1)
    whole = (gaps[:-1] == 0).all(0) & (gaps[-1] >= 0) & (gaps[-1] < 8)
    return [
        None if fits and not rest else "the payload is damaged: its codes do not fill it"
        for fits, rest in zip(whole, raw, strict=True)
    ]


@dataclass(frozen=True)
class _Body:
    """A coded payload: the stream, the bits of each pair of lanes, and the symbols without a code."""

    stream: bytes
    pairs: list[int]
    raw: bytes


def _stored(payload: bytes, shape: tuple[int, int]) -> np.ndarray:
    body = payload[HEADER:]
    if len(body) != shape[0] * shape[1]:
        raise _Damaged(f"the payload has {len(body):,} symbols; the latent has {shape[0] * shape[1]:,}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _body(payload: bytes, pairs: int) -> _Body:
    """Take a coded payload apart."""
    body, escapes = payload[HEADER:], 0
    if count := COUNT.get(payload[0] >> 4 & 3):
        if len(body) < count:
            raise _Damaged("the payload ends before its first code")
        escapes, body = int.from_bytes(body[:count], "big"), body[count:]
    width, size = 0, 0
    if pairs > 1:
        width = body[0] if body else 0
        size = 1 + ((pairs - 1) * width + 7) // 8
    left = len(body) - size - escapes
    if width > MAX_WIDTH or left < 0:
        raise _Damaged("the payload ends before its first code")
    lengths = _unpack_pairs(body[1:size], width, pairs, 8 * left)
    return _Body(body[size : size + left], lengths, body[size + left :])


def _pack_pairs(pairs: np.ndarray) -> bytes:
    """Return the bits of each pair of lanes but the last, which has what is left.

    A byte says how many bits a number has, and each number is how far a pair is from the mean, plus half of its range.
    """
    if len(pairs) == 1:
        return b""
    away = pairs[:-1] - int(pairs.sum()) // len(pairs)
    width = next(width for width in range(1, MAX_WIDTH + 1) if _fits(away, width))
    bits = ((away + (1 << width - 1))[:, None] >> np.arange(width - 1, -1, -1)) & 1
    return bytes([width]) + np.packbits(bits.astype(np.uint8)).tobytes()


def _fits(numbers: np.ndarray, width: int) -> bool:
    return bool(numbers.min() >= -(1 << width - 1) and numbers.max() < 1 << width - 1)


def _unpack_pairs(packed: bytes, width: int, pairs: int, total: int) -> list[int]:
    """Return the bits of each pair of lanes out of `total` bits."""
    if pairs == 1:
        return [total]
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=(pairs - 1) * width).reshape(pairs - 1, width)
    numbers = bits @ (1 << np.arange(width - 1, -1, -1)) - (1 << width >> 1) + total // pairs
    lengths = [*numbers.tolist(), total - int(numbers.sum())]
    if min(lengths) < 0:
        raise _Damaged("the payload is damaged: a lane begins outside")
    return lengths


def _check(first: bytes, body: bytes, key: int) -> bytes:
    return zlib.crc32(body, zlib.crc32(first, key)).to_bytes(4, "big")[1:]
