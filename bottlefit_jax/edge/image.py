"""Images as the head takes them: what evaluation does in training (`data/augment.py`), resized by Pillow.

Files are decoded by `images`, as in training. The short side is resized with Pillow's antialiased bilinear filter, the
middle is cut out. Training's filter rounds once where Pillow rounds twice: tests/edge/test_image.py holds the two
within one grey level of each other.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as pillow

from bottlefit_jax.bundle.manifest import Image
from bottlefit_jax.errors import UserError
from bottlefit_jax.images import SUFFIXES, decode_image, is_hidden, orientation_of, printable, to_rgb, upright


class ImageError(UserError):
    """An image that cannot be used; the next one may be."""


def prepare(image: Any, wanted: Image) -> np.ndarray:
    """Make the head's input of an image.

    Args:
        image: a path, a Pillow image, or a uint8 [H, W, 3] array in RGB order, of any size.
        wanted: the manifest's.

    Returns:
        uint8 [wanted.height, wanted.width, 3].

    Raises:
        ImageError: no such file, truncated, damaged, too large or not an image; an array of another shape or type.
    """
    opened = _open(image)
    width, height = opened.size
    if height <= width:
        new_height, new_width = wanted.resize, int(wanted.resize * width / height)
    else:
        new_height, new_width = int(wanted.resize * height / width), wanted.resize
    top, left = round((new_height - wanted.height) / 2), round((new_width - wanted.width) / 2)
    # Only what is cut out is computed: less work, and an image of 1 x 100,000 pixels does not fill the memory.
    x, y = width / new_width, height / new_height
    box = (left * x, top * y, (left + wanted.width) * x, (top + wanted.height) * y)
    resized = opened.resize((wanted.width, wanted.height), pillow.Resampling.BILINEAR, box=box)
    return np.ascontiguousarray(resized)


def files_in(paths: list[Path]) -> list[Path]:
    """The images that paths name, folders with all that is below them and not hidden, in order.

    A link that leads nowhere is among them, so that its turn says so.

    Raises:
        UserError: nothing is there, or a folder has no image.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _is_image(file, path))
            if not inside:
                raise UserError(f"{path} has no image: none of {', '.join(sorted(SUFFIXES))}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"no file or folder {path}")
    return found


def _is_image(file: Path, folder: Path) -> bool:
    if file.suffix.lower() not in SUFFIXES or any(map(is_hidden, file.relative_to(folder).parts)):
        return False
    return file.is_file() or (file.is_symlink() and not file.exists())


def _open(image: Any) -> pillow.Image:
    """An RGB image, decoded and upright."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImageError(f"the image is {image.dtype} {list(image.shape)}; an array must be uint8 [H, W, 3], RGB")
        return pillow.fromarray(np.ascontiguousarray(image))
    if isinstance(image, pillow.Image):
        return _rgb(image)
    if not isinstance(image, str | os.PathLike):
        raise ImageError(f"an image is a path, a Pillow image or an array, not {type(image).__name__}")
    try:
        data = Path(image).read_bytes()
    except OSError as error:
        reason = "a link that leads nowhere" if os.path.islink(image) else error.strerror
        raise ImageError(f"{printable(image)}: cannot be read ({reason})") from None
    try:
        return pillow.fromarray(decode_image(data, printable(image)))
    except UserError as error:
        raise ImageError(str(error)) from None


def _rgb(image: pillow.Image) -> pillow.Image:
    """A Pillow image as it would be decoded from its file; what it still holds encoded may turn out to be truncated."""
    try:
        pixels = to_rgb(image)  # first: Pillow turns a TIFF when it loads it
        return pillow.fromarray(upright(pixels, orientation_of(image.info.get("exif", b""))))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ImageError(f"the image: truncated, damaged or not an image ({reason})") from None
