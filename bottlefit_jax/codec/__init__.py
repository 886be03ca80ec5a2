"""Latents as payloads: the quantiser, code tables, and the wire format. NumPy only."""

from bottlefit_jax.codec.quantizer import (
    RANGE_BYTES,
    Affine,
    dequantize,
    dynamic_range,
    levels_of,
    quantize,
    static_range,
)

__all__ = [
    "RANGE_BYTES",
    "Affine",
    "dequantize",
    "dynamic_range",
    "levels_of",
    "quantize",
    "static_range",
]
