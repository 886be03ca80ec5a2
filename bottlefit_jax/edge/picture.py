"""Pictures as the head takes them: what evaluation does in training (`data/augment.py`, `data/decode.py`), by Pillow.

The short side is resized with Pillow's antialiased bilinear filter, the middle is cut out, EXIF orientation is
ignored. Training's filter rounds once where Pillow rounds twice: tests/edge/test_picture.py holds the two within one
grey level of each other.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as pillow

from bottlefit_jax.bundle.manifest import Image
from bottlefit_jax.errors import UserError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class PictureError(UserError):
    """A picture that cannot be used; the next one may be."""


def prepare(image: Any, wanted: Image) -> np.ndarray:
    """Makes the head's input of a picture.

    Args:
      image: a path, a Pillow image, or a uint8 [H, W, 3] array in RGB order, of any size.
      wanted: the manifest's.

    Returns:
      uint8 [wanted.height, wanted.width, 3].

    Raises:
      PictureError: no such file, truncated, damaged or not a picture; an array of another shape or type.
    """
    picture = _open(image)
    width, height = picture.size
    if height <= width:
        new_height, new_width = wanted.resize, int(wanted.resize * width / height)
    else:
        new_height, new_width = int(wanted.resize * height / width), wanted.resize
    top, left = round((new_height - wanted.height) / 2), round((new_width - wanted.width) / 2)
    # Only what is cut out is computed: less work, and a picture of 1 x 100,000 pixels does not fill the memory.
    x, y = width / new_width, height / new_height
    box = (left * x, top * y, (left + wanted.width) * x, (top + wanted.height) * y)
    resized = picture.resize((wanted.width, wanted.height), pillow.Resampling.BILINEAR, box=box)
    return np.ascontiguousarray(resized)


def files_in(paths: list[Path]) -> list[Path]:
    """The pictures that paths name, folders with all that is below them, in order.

    Raises:
      UserError: nothing is there, or a folder has no picture.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not inside:
                raise UserError(f"{path} has no picture: none of {', '.join(sorted(SUFFIXES))}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"no file or folder {path}")
    return found


def _open(image: Any) -> pillow.Image:
    """An RGB picture, decoded."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise PictureError(
                f"the picture is {image.dtype} {list(image.shape)}; an array must be uint8 [H, W, 3], RGB"
            )
        return pillow.fromarray(np.ascontiguousarray(image))
    if isinstance(image, pillow.Image):
        return _rgb(image, "the picture")
    if not isinstance(image, str | os.PathLike):
        raise PictureError(f"a picture is a path, a Pillow image or an array, not {type(image).__name__}")
    try:
        with open(image, "rb") as stream, pillow.open(stream) as picture:
            return _rgb(picture, os.fspath(image))
    except PictureError:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and others
        raise PictureError(_complaint(os.fspath(image), error)) from None


def _rgb(picture: pillow.Image, name: str) -> pillow.Image:
    """As RGB; 16-bit grey keeps its high byte, which Pillow alone would clip."""
    try:
        if picture.mode.startswith("I"):
            pixels = np.asarray(picture)
            picture = pillow.fromarray((np.clip(pixels, 0, 65535) >> 8).astype(np.uint8))
        return picture.convert("RGB")
    except Exception as error:  # truncated data is found only here
        raise PictureError(_complaint(name, error)) from None


def _complaint(name: str | bytes, error: Exception) -> str:
    reason = " ".join((getattr(error, "strerror", None) or str(error)).split())
    if "cannot identify" in reason:
        reason = "not a picture that Pillow knows"
    return f"{os.fsdecode(name)}: truncated, damaged or not a picture ({reason})"
