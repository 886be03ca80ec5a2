"""What a measurement reads and writes to: images, and the folder of its report."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import PIL.Image

from bottlefit_jax.edge.image import files_in
from bottlefit_jax.errors import UserError

MAX_IMAGES = 50  # different ones: they are decoded in memory


def read_images(folder: Path, most: int = MAX_IMAGES) -> list[np.ndarray]:
    """Read at most `most` images, spread evenly over all that are there: [H, W, 3] uint8 each.

    Raises:
        UserError: there are none, or one cannot be read.
    """
    files = files_in([folder])
    count = min(most, MAX_IMAGES, len(files))
    images = []
    for file in (files[index * len(files) // count] for index in range(count)):
        try:
            with PIL.Image.open(file) as image:
                images.append(np.asarray(image.convert("RGB")))
        except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and others
            raise UserError(f"{file} is not an image that can be read: {error}") from error
    return images


def make_folder(folder: Path) -> None:
    """Make the folder of a report.

    Raises:
        UserError: it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {folder}")
