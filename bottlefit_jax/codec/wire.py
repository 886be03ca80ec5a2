"""Payloads: the only code that knows what their bytes mean.

| bytes | content |
|---|---|
| 1 | VERSION (2 bits), mode (2 bits), number of the rate (4 bits) |
| 3 | check: the lowest 24 bits of the CRC-32 of the key of the bundle's rates and all other bytes |
| 1 | in mode ESCAPED: how many bytes of symbols without a code there are at the end |
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
from bottlefit_jax.codec.huffman import MAX_BITS
from bottlefit_jax.codec.lattice import Deal, Lattice, deal, lattice
from bottlefit_jax.codec.rate import Rate, Tables
from bottlefit_jax.codec.rates import Rates
from bottlefit_jax.errors import ProtocolError, UserError

VERSION = 1
CODED, ESCAPED, STORED = 0, 1, 2  # modes
HEADER = 4  # bytes
MAX_RAW = 255  # bytes of symbols without a code; more are not worth it
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
    if latent.dtype != np.uint8 or latent.ndim != 3 or latent.shape[2] != len(rate.steps) or not latent.size:
        raise UserError(
            f"cannot encode {latent.dtype} {list(latent.shape)}; the rate is for uint8 [h, w, {len(rate.steps)}]"
        )
    (h, w, c), tables = latent.shape, rate.tables
    pixels, symbols = lattice(h, w), np.zeros((h * w + 1, c), np.uint8)  # the last row is that of pixels outside
    tables.to_symbol.take(latent.reshape(h * w, c)[:, tables.order] + tables.values_at, out=symbols[:-1], mode="clip")
    code = np.empty((h * w, len(tables.first)), np.intp)  # where it begins in tables.forward
    code[pixels.even] = tables.at[tables.first]
    code[pixels.odd] = tables.at.take(tables.first + _contexts(symbols, pixels, tables))
    order = deal(h, w, len(tables.first), rate.lanes)
    joint, in_range = _join(symbols[:-1], tables)
    entries, raw = _look_up(code + joint, tables, order), b""
    if not in_range or np.count_nonzero(entries) < joint.size:
        joint = np.where(tables.forward[code + joint] == 0, tables.escapes, joint)
        entries = _look_up(code + joint, tables, order)
        flags = (joint == tables.escapes)[:, tables.group_of]
        raw = b"".join(symbols[chosen][flags[chosen]].tobytes() for chosen in (pixels.even, pixels.odd))
    stream, pairs = lanes.pack(entries)
    mode, body = CODED, _pack_pairs(pairs) + stream
    if 0 < len(raw) <= MAX_RAW:
        mode, body = ESCAPED, bytes([len(raw)]) + body + raw
    if len(body) >= latent.size or len(raw) > MAX_RAW:
        mode, body = STORED, symbols[:-1].tobytes()
    first = bytes([VERSION << 6 | mode << 4 | rate.number])
    return first + _check(first, body, rate.key) + body


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
    if number >= len(rates.rates) or mode > STORED:
        return f"the payload names rate {number} in mode {mode}; this bundle has {len(rates.rates)} rates, modes 0 to 2"
    if _check(payload[:1], payload[HEADER:], rates.key) != payload[1:HEADER]:
        return "the payload is damaged, or was made with the rates of another bundle"
    return None


def rate_of(payload: bytes, rates: Rates) -> Rate:
    """Return the rate of a payload without a `header_problem`."""
    return rates.rates[payload[0] & 15]


class _Damaged(Exception):
    """A payload whose check is right and whose content is not; the text says what is wrong."""


class _Decoder:
    """Decodes payloads of one rate and of one shape side by side."""

    def __init__(self, rate: Rate, shape: tuple[int, int, int]):
        h, w, _ = shape
        self._tables, self._shape, self._lanes = rate.tables, shape, rate.lanes
        self._pixels, self._deal = lattice(h, w), deal(h, w, len(self._tables.first), rate.lanes)

    def run(self, payloads: Sequence[bytes]) -> tuple[np.ndarray, list[str | None]]:
        """Return [B, h, w, c] uint8 and, for each payload, why it is invalid or None."""
        (h, w, c), tables = self._shape, self._tables
        problems: list[str | None] = [None] * len(payloads)
        latents, symbols = np.zeros((len(payloads), h, w, c), np.uint8), np.zeros((len(payloads), h * w, c), np.uint8)
        coded: list[tuple[int, _Body]] = []
        for index, payload in enumerate(payloads):
            try:
                if payload[0] >> 4 & 3 == STORED:
                    symbols[index] = _stored(payload, (h * w, c))
                else:
                    coded.append((index, _body(payload, self._lanes // 2)))
            except _Damaged as error:
                problems[index] = str(error)
        if coded:
            chosen = [index for index, _ in coded]
            symbols[chosen], found = self._read([body for _, body in coded])
            for index, problem in zip(chosen, found, strict=True):
                problems[index] = problem
        values = tables.to_value.take(symbols + tables.values_at, mode="clip")
        values[[problem is not None for problem in problems]] = 0
        latents.reshape(len(payloads), h * w, c)[..., tables.order] = values
        return latents, problems

    def _read(self, bodies: Sequence[_Body]) -> tuple[np.ndarray, list[str | None]]:
        """Return the symbols [B, h * w, c] of coded payloads, and the problems."""
        (h, w, c), tables, pixels, order = self._shape, self._tables, self._pixels, self._deal
        count, groups, steps = len(bodies), len(tables.first), len(order.even) + len(order.odd)
        longest = max(len(body.stream) for body in bodies)
        streams = np.zeros((count, longest), np.uint8)
        for row, body in zip(streams, bodies, strict=True):
            row[: len(body.stream)] = np.frombuffer(body.stream, np.uint8)
        windows = lanes.windows(streams, steps)
        begin = self._begin(bodies, longest, windows.shape[2])
        at, windows = begin.copy(), windows.ravel()
        symbols = np.zeros((count, h * w + 1, c), np.uint8)
        raw = [body.raw for body in bodies]
        for positions, chosen in ((order.even, pixels.even), (order.odd, pixels.odd)):
            numbers = np.zeros((count, h * w + 1, groups), np.intp) + tables.first
            if chosen is pixels.odd:
                numbers[:, chosen] += _contexts(symbols, pixels, tables)
            numbers[:, -1] = tables.last
            placed = (numbers << MAX_BITS).reshape(count, -1)[:, positions]  # [B, steps, lanes]
            entries = lanes.read(
                windows, at, np.ascontiguousarray(placed.swapaxes(0, 1)).reshape(len(positions), -1), tables.decoding
            )
            joint = np.zeros((count, (h * w + 1) * groups), np.uint16)
            joint[:, positions] = (entries >> 4).reshape(len(positions), count, -1).swapaxes(0, 1)
            joint = joint.reshape(count, h * w + 1, groups)[:, chosen]
            parts = _split(joint, tables)
            escaped = joint == tables.escapes
            if escaped.any():
                for index in np.flatnonzero(escaped.any((1, 2))):
                    flags = escaped[index][:, tables.group_of]
                    needed = int(np.count_nonzero(flags))
                    given, raw[index] = raw[index][:needed], raw[index][needed:]
                    if len(given) == needed:
                        parts[index][flags] = np.frombuffer(given, np.uint8)
                    else:
                        raw[index] = b"?"
            symbols[:, chosen] = parts
        problems = self._problems(bodies, (at - begin).reshape(count, -1, 2), raw)
        return symbols[:, :-1], problems

    def _begin(self, bodies: Sequence[_Body], longest: int, bits: int) -> np.ndarray:
        """Return where each lane begins in flat windows of `bits` bits a direction, [B * lanes] intp."""
        ends = np.cumsum([body.pairs for body in bodies], axis=1)
        starts = ends - [body.pairs for body in bodies]
        offset = np.arange(len(bodies))[:, None] * 2 * bits
        return np.stack([offset + starts, offset + bits + 8 * longest - ends], axis=2).astype(np.intp).ravel()

    def _problems(self, bodies: Sequence[_Body], used: np.ndarray, raw: list[bytes]) -> list[str | None]:
        """Compare the bits that the pairs of lanes have used, [B, pairs, 2], with what they have."""
        gaps = np.array([body.pairs for body in bodies]) - used.sum(2)
        right = (gaps[:, :-1] == 0).all(1) & (gaps[:, -1] >= 0) & (gaps[:, -1] < 8)
        return [
            None if fits and not rest else "the payload is damaged: its codes do not fill it"
            for fits, rest in zip(right, raw, strict=True)
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
    if payload[0] >> 4 & 3 == ESCAPED:
        if not body:
            raise _Damaged("the payload ends before its first code")
        escapes, body = body[0], body[1:]
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


def _join(symbols: np.ndarray, tables: Tables) -> tuple[np.ndarray, bool]:
    """Join the symbols of each group.

    Args:
        symbols: [n, c] uint8.
        tables: of the rate.

    Returns:
        [n, G] uint16, the escape where a symbol is out of the group's range; and whether none is.
    """
    inner = symbols - tables.low  # uint16: what is below wraps round
    outside = inner >= tables.count
    if tables.joined:
        joint = np.add.reduceat(inner * tables.strides, tables.starts, axis=1, dtype=np.uint16)
    else:
        joint = inner
    if not outside.any():
        return joint, True
    return np.where(np.logical_or.reduceat(outside, tables.starts, axis=1), tables.escapes, joint), False


def _look_up(places: np.ndarray, tables: Tables, order: Deal) -> np.ndarray:
    """Return the entries at places [h * w, G] of the codes as `lanes.pack` takes them."""
    dealt = np.append(places, tables.nothing).take(order.order)
    entries = np.empty(dealt.shape, np.uint16)
    tables.forward.take(dealt[::2], out=entries[::2], mode="clip")
    tables.backward.take(dealt[1::2], out=entries[1::2], mode="clip")
    return entries


def _split(joint: np.ndarray, tables: Tables) -> np.ndarray:
    """Split [..., G] joint symbols into [..., c] symbols, uint8; those of an escape are meaningless."""
    if tables.joined:
        joint = joint[..., tables.group_of] // tables.strides % tables.count
    return (joint + tables.low).astype(np.uint8)


def _contexts(symbols: np.ndarray, pixels: Lattice, tables: Tables) -> np.ndarray:
    """Return the number of each odd pixel's code among those of its group.

    Args:
        symbols: [..., h * w + 1, c] uint8, of which the even pixels' are known.
        pixels: of the latent.
        tables: of the rate.

    Returns:
        [..., o, G] uint8.
    """
    above, left, right, below = (symbols.take(each, axis=-2) for each in pixels.neighbours)
    means = np.add(above, left, dtype=np.uint16)
    means += right
    means += below
    means *= pixels.weights
    levels = tables.contexts.take(means + tables.contexts_at, mode="clip")
    return np.add.reduceat(levels, tables.starts, axis=-1, dtype=np.uint8) if tables.joined else levels


def _check(first: bytes, body: bytes, key: int) -> bytes:
    return zlib.crc32(body, zlib.crc32(first, key)).to_bytes(4, "big")[1:]
