"""What a device computes before it sends: pixels to the quantised latent, and that to a payload."""

from __future__ import annotations

import numpy as np

from bottlefit_jax.bundle import RAW, Bundle, Manifest
from bottlefit_jax.codec import quantizer, wire
from bottlefit_jax.codec.rate import Rate
from bottlefit_jax.codec.rates import Rates
from bottlefit_jax.edge.runtimes import Head
from bottlefit_jax.errors import UserError


class DeviceHead:
    """The open head of a bundle, its quantiser and its code tables.

    Attributes:
        rates: of the bundle; None where it has none, or where raw latents are sent.
        rate: at which payloads are made; None for raw latents.
        quantises: the head's file gives the quantised latent itself.
    """

    def __init__(self, head: Head, files: Bundle, rate: str | None = None):
        """Read the rates' tables.

        Args:
            head: open.
            files: the bundle, its tables verified.
            rate: the id of one of its rates, or RAW; None is the manifest's default.

        Raises:
            UserError: there is no such rate, or the tables are damaged.
        """
        self._head, self._manifest = head, files.manifest
        self._affine = latent_affine(files.manifest)
        self.quantises = head.scale is not None
        self.rates, self.rate = _choose_rate(files, rate)

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """Return what the head gives for an image of its size: quantised where `quantises`, else float32."""
        return self._head.run(pixels)

    def quantise(self, latent: np.ndarray) -> np.ndarray:
        """Return a latent as it is sent, uint8 of the manifest's shape.

        Args:
            latent: float32 [h, w, c] before the quantiser, or uint8 behind it.

        Raises:
            UserError: it has another shape or type, or is not finite.
        """
        shape = self._manifest.latent.shape
        if latent.shape != shape or latent.dtype not in (np.uint8, np.float32):
            raise UserError(
                f"the latent is {latent.dtype} {list(latent.shape)}; this bundle's is uint8 or float32 {list(shape)}"
            )
        if latent.dtype == np.uint8:
            return latent
        if not np.isfinite(latent).all():
            raise UserError("the latent has values that are not finite")
        return quantizer.quantize(latent, self._affine, bits=self._manifest.latent.bits)

    def encode(self, latent: np.ndarray, id: str | None = None) -> bytes | None:
        """Return the payload of a quantised latent; None where it is sent raw.

        Args:
            latent: as `quantise` returns it.
            id: of the rate; None is `rate`.
        """
        rate = self.rate if id is None or self.rates is None else self.rates.get(id)
        return None if rate is None else wire.encode(latent, rate)


def latent_affine(manifest: Manifest) -> quantizer.Affine:
    """Return the manifest's quantisation of the latent, which the tail undoes."""
    latent = manifest.latent
    return quantizer.Affine(np.float32(latent.scale), np.int32(latent.zero_point), np.float32(0))


def _choose_rate(files: Bundle, rate: str | None) -> tuple[Rates | None, Rate | None]:
    """Return the rates of a bundle and the one of this id, or of the manifest's default; None for raw latents."""
    known = [RAW, *(entry.id for entry in files.manifest.rates)]
    chosen = files.manifest.default_rate if rate is None else rate
    if chosen not in known:
        raise UserError(f"rate is {chosen!r}; this bundle has {', '.join(known)}")
    if chosen == RAW or (rates := files.read_rates()) is None:
        return None, None
    found = rates.get(chosen)
    wire.encode(np.full(rates.shape, found.zero_point, np.uint8), found)  # the first one makes arrays
    return rates, found
