"""Sizes of images as JPEG or WebP files, with which the payloads of a bottleneck are compared."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from bottlefit_jax.errors import UserError


def jpeg_bytes(images: np.ndarray, *, quality: int = 95) -> np.ndarray:
    """Measure images as JPEG files, as Pillow writes them with only the quality set.

    Args:
        images: [N, H, W, 3] uint8, already cut to the network's input size.
        quality: 1 to 95, Pillow's scale.

    Returns:
        [N] int64, bytes per image.

    Raises:
        UserError: another shape or dtype, or a quality outside the scale.
    """
    if not 1 <= quality <= 95:
        raise UserError(f"JPEG quality is {quality}; it must be 1 to 95")
    return np.asarray([len(file) for file in encode_images(images, image_format="JPEG", quality=quality)], np.int64)


def encode_images(images: np.ndarray, *, image_format: str, quality: int) -> list[bytes]:
    """Write images as files with only the quality set.

    Args:
        images: [N, H, W, 3] uint8.
        image_format: Pillow's name: JPEG or WEBP.
        quality: on Pillow's scale.

    Raises:
        UserError: another shape or dtype, or a format that this Pillow cannot write.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(f"cannot write {images.dtype} {images.shape} as {image_format}; images are uint8 [N, H, W, 3]")
    files = []
    for image in images:
        buffer = io.BytesIO()
        try:
            Image.fromarray(image).save(buffer, format=image_format, quality=quality)
        except (KeyError, OSError) as error:
            raise UserError(f"this Pillow cannot write {image_format}: {error}") from error
        files.append(buffer.getvalue())
    return files


def decode_images(files: Sequence[bytes]) -> np.ndarray:
    """Read what `encode_images` wrote: [N, H, W, 3] uint8."""
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])


def saving_percent(latent: float, jpeg: float) -> float:
    """Return by how many percent `latent` bytes are fewer than `jpeg` bytes; negative where they are more.

    Raises:
        UserError: `jpeg` is not above 0.
    """
    if not jpeg > 0:
        raise UserError(f"the mean JPEG has {jpeg} bytes; it must have more than 0 to be compared with")
    return float(100.0 * (1.0 - latent / jpeg))
