"""Latents as payloads: the quantiser, and integers packed into bytes. NumPy only."""

from bottlefit_jax.codec.packing import RANGE_BYTES, pack_bits, payload_bytes, unpack_bits
from bottlefit_jax.codec.quantizer import Affine, dequantize, dynamic_range, levels_of, quantize, static_range

__all__ = [
    "RANGE_BYTES",
    "Affine",
    "dequantize",
    "dynamic_range",
    "levels_of",
    "pack_bits",
    "payload_bytes",
    "quantize",
    "static_range",
    "unpack_bits",
]
