"""Bytes on the radio: what a camera would send without a bottleneck, and what the bottleneck saves."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from bottlefit_jax.errors import UserError


def jpeg_bytes(images: np.ndarray, *, quality: int = 95) -> np.ndarray:
    """Measure pictures as JPEG files, as Pillow writes them with only the quality set.

    Args:
        images: [N, H, W, 3] uint8, already cut to the network's input size.
        quality: 1 to 95, Pillow's scale.

    Returns:
        [N] int64, bytes per picture.

    Raises:
        UserError: another shape or dtype, or a quality outside the scale.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(f"cannot write {images.dtype} {images.shape} as JPEG; pictures are uint8 [N, H, W, 3]")
    if not 1 <= quality <= 95:
        raise UserError(f"JPEG quality is {quality}; it must be 1 to 95")
    sizes = np.empty(len(images), np.int64)
    for index, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
        sizes[index] = buffer.tell()
    return sizes


def saving_percent(latent: float, jpeg: float) -> float:
    """Return how much less `latent` bytes are than `jpeg` bytes, in percent; negative where they are more.

    Raises:
        UserError: `jpeg` is not above 0.
    """
    if not jpeg > 0:
        raise UserError(f"a JPEG of {jpeg} bytes; there is nothing to compare with")
    return float(100.0 * (1.0 - latent / jpeg))
