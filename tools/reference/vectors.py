"""vectors/payloads.json: payloads of every kind, made by our encoder, for decoders and encoders of others.

The tables beside it are fixed: they are what a bundle's tables' file holds. Those of format 1 are the ones that
tests/codec/golden_payloads.json has; the others were fitted or written by hand to have all that a table can have.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rates import Rates, parse_rates

FOLDER = Path(__file__).parents[2] / "docs" / "reference" / "vectors"
FILE = "payloads.json"
EXAMPLE = "tables-example.json"  # of the example in payload.md
MODES = {wire.CODED: "coded", wire.ESCAPED: "escaped", wire.STORED: "stored", wire.MANY: "many"}


def text() -> str:
    """Return the file: a line for each case."""
    lines = [json.dumps(case, separators=(",", ":")) for case in cases()]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def cases() -> Iterator[dict[str, Any]]:
    """Yield payloads with their latents, then payloads that a decoder must refuse."""
    sent = _example_latent()
    yield {"name": "raw", "tables": None, "sent": _hex(sent), "payload": _hex(sent), "latent": _hex(sent)}
    for path in sorted(FOLDER.glob("tables-*.json")):
        rates = read(path.name)
        for name, latent in _latents(path.name, rates):
            for rate in rates.rates:
                payload = wire.encode(latent, rate)
                mode = MODES[payload[0] >> 4 & 3]
                yield {
                    "name": f"format {rate.format}, rate {rate.id}, {name}: {mode}",
                    "tables": path.name,
                    "sent": _hex(latent),
                    "payload": payload.hex(),
                    "latent": _hex(wire.decode(payload, rates)),
                }
    yield from _invalid()


def read(name: str) -> Rates:
    """Read a file of tables."""
    return parse_rates((FOLDER / name).read_text(encoding="utf-8"), name)


def _example_latent() -> np.ndarray:
    return np.array(
        [
            [[130, 120], [101, 140], [96, 190]],
            [[150, 128], [128, 128], [161, 70]],
            [[200, 130], [192, 64], [18, 129]],
        ],
        np.uint8,
    )


def _latents(tables: str, rates: Rates) -> Iterator[tuple[str, np.ndarray]]:
    """Yield latents that suit the tables of a file, and one that no code was made for."""
    if tables == EXAMPLE:
        yield "the example", _example_latent()
        return
    y, x, c = np.indices(rates.shape)
    zero = rates.rates[0].zero_point
    if rates.shape[2] == 1:
        yield "most values without a code", np.where(y % 5, 5 * y + 7 * x, zero).astype(np.uint8)
        return
    yield "smooth", (zero + (y * 7 + x * 3 + c * 11) % 23 - 11).astype(np.uint8)
    yield "an edge", np.where((y == 2) & (x > 1), 250 - 60 * c, zero + 5 * x).astype(np.uint8)
    yield "noise", ((y * 151 + x * 67 + c * 101) % 256).astype(np.uint8)


def _invalid() -> Iterator[dict[str, Any]]:
    """Yield payloads of the example's tables that are invalid; where it matters, their check is right."""
    rates = read(EXAMPLE)
    good = wire.encode(_example_latent(), rates.rates[0])
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    for name, payload in (
        ("a bit is wrong", flipped),
        ("shorter than a header", good[:3]),
        ("longer than any payload of this shape", _signed(good[:1] + good[4:] + bytes(20), rates)),
        ("of version 2", _signed(bytes([good[0] ^ 0xC0]) + good[4:], rates)),
        ("of a rate that is not there", _signed(bytes([good[0] | 15]) + good[4:], rates)),
        ("a byte is missing at the end", _signed(good[:1] + good[4:-1], rates)),
        ("a byte is left over", _signed(good[:1] + good[4:] + b"\0", rates)),
        ("a mode with more values at the end than there are", _signed(good[:1] + b"\x02" + good[5:], rates)),
        ("a pair of lanes begins outside", _signed(good[:1] + good[4:5] + b"\x06\xff" + good[7:], rates)),
        ("not as many values as the latent has", _signed(bytes([0x60]) + bytes(17), rates)),
    ):
        yield {"name": f"invalid: {name}", "tables": EXAMPLE, "payload": payload.hex(), "latent": None}


def _signed(content: bytes, rates: Rates) -> bytes:
    """Return a payload of this content, its first byte included, with the right check."""
    check = zlib.crc32(content, rates.key) & 0xFFFFFF
    return content[:1] + check.to_bytes(3, "big") + content[1:]


def _hex(latent: np.ndarray) -> str:
    return latent.tobytes().hex()
