"""Latents as payloads: the quantiser, code tables, and the wire format. NumPy only."""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.codec.fit import fit_rate
    from bottlefit_jax.codec.quantizer import (
        RANGE_BYTES,
        Affine,
        dequantize,
        dynamic_range,
        levels_of,
        quantize,
        static_range,
    )
    from bottlefit_jax.codec.rate import Rate
    from bottlefit_jax.codec.rates import Rates, make_rates, parse_rates, rates_text
    from bottlefit_jax.codec.wire import decode, decode_batch, encode

__all__ = [
    "RANGE_BYTES",
    "Affine",
    "Rate",
    "Rates",
    "decode",
    "decode_batch",
    "dequantize",
    "dynamic_range",
    "encode",
    "fit_rate",
    "levels_of",
    "make_rates",
    "parse_rates",
    "quantize",
    "rates_text",
    "static_range",
]

__getattr__ = exports(
    __name__,
    {
        "fit": ("fit_rate",),
        "quantizer": (
            "RANGE_BYTES",
            "Affine",
            "dequantize",
            "dynamic_range",
            "levels_of",
            "quantize",
            "static_range",
        ),
        "rate": ("Rate",),
        "rates": ("Rates", "make_rates", "parse_rates", "rates_text"),
        "wire": ("decode", "decode_batch", "encode"),
    },
)
