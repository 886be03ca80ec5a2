"""How long payloads are, without making them: for choosing rates, where thousands of latents have dozens of candidates.

sizes = payload_sizes(latents, rate)  # [B], each as len(encode(latent, rate))
"""

from __future__ import annotations

import numpy as np

from bottlefit_jax.codec.lattice import deal, passes
from bottlefit_jax.codec.rate import Rate
from bottlefit_jax.codec.symbols import code_numbers, join
from bottlefit_jax.codec.wire import check_latent, coded_size


def payload_sizes(latents: np.ndarray, rate: Rate) -> np.ndarray:
    """Return the number of bytes of each latent's payload.

    Args:
        latents: [B, h, w, c] uint8.
        rate: of the bundle.

    Returns:
        [B] int64.

    Raises:
        UserError: the latents have another dtype, or other channels than the rate.
    """
    for latent in latents[:1]:  # they have one shape
        check_latent(latent, rate)
    (count, h, w, c), tables = latents.shape, rate.tables
    values = np.moveaxis(latents.reshape(count, h * w, c)[..., tables.order], 0, 2)  # [h * w, c, B]
    symbols = np.zeros((h * w + 1, c, count), np.uint8)  # the last row is that of pixels outside
    tables.to_symbol.take(values + tables.values_at[:, None], out=symbols[:-1], mode="clip")
    code = np.empty((h * w, len(tables.first), count), np.intp)
    for place, each in enumerate(passes(h, w)):
        code[each.pixels] = tables.at.take(code_numbers(symbols, each, place, tables))
    joint = join(np.moveaxis(symbols[:-1], 1, 2).reshape(h * w * count, c), tables)[0]
    joint = np.moveaxis(joint.reshape(h * w, count, len(tables.first)), 1, 2)  # [h * w, G, B]
    joint = np.where(tables.forward[code + joint] == 0, tables.escapes[:, None], joint)
    bits = (tables.forward[code + joint] & 15).reshape(h * w * len(tables.first), count)
    bits = np.append(bits, np.zeros((1, count), bits.dtype), axis=0)  # of lanes that have nothing at a step
    channels = np.bincount(tables.group_of)[:, None]  # of each group: an escape sends a byte for each
    without_code = ((joint == tables.escapes[:, None]) * channels).sum((0, 1))
    order = deal(h, w, len(tables.first), rate.lanes).order.reshape(rate.lanes // 2, -1)
    pairs = np.stack([bits[pair].sum(0, dtype=np.int64) for pair in order])  # [pairs, B]
    sizes = [coded_size(row, int(raw), rate, h * w * c) for row, raw in zip(pairs.T, without_code, strict=True)]
    return np.array(sizes, np.int64)
