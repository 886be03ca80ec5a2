"""Preprocessing on the device: from an image of any kind to the head's input.

It does what evaluation does (`data/augment.py`): files are decoded by `images`, the short side is resized with an
antialiased bilinear filter, the middle is cut out. Here the filter is Pillow's, which rounds twice where evaluation's
rounds once; the two differ by at most one grey level, as tests/edge/test_image.py checks.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from bottlefit_jax.bundle.manifest import Image
from bottlefit_jax.errors import UserError
from bottlefit_jax.images import SUFFIXES, decode_image, is_hidden, orientation_of, to_rgb, upright
from bottlefit_jax.paths import printable


class ImageError(UserError):
    """An invalid image; the next one may be valid."""


def preprocess(image: Any, target: Image) -> np.ndarray:
    """Turn an image into the head's input.

    Args:
        image: a path, a Pillow image, or a uint8 [H, W, 3] array in RGB order, of any size.
        target: the manifest's `image`.

    Returns:
        [target.height, target.width, 3] uint8.

    Raises:
        ImageError: the file is missing, truncated, damaged, too large or not an image; or an array has another shape
            or type.
    """
    opened = _open(image)
    width, height = opened.size
    if height <= width:
        new_height, new_width = target.resize, int(target.resize * width / height)
    else:
        new_height, new_width = int(target.resize * height / width), target.resize
    top, left = round((new_height - target.height) / 2), round((new_width - target.width) / 2)
    # Resize only what is cut out: less work, and an image of 1 x 100,000 pixels does not fill the memory.
    x, y = width / new_width, height / new_height
    box = (left * x, top * y, (left + target.width) * x, (top + target.height) * y)
    resized = opened.resize((target.width, target.height), PIL.Image.Resampling.BILINEAR, box=box)
    return np.ascontiguousarray(resized)


def files_in(paths: Sequence[Path]) -> list[Path]:
    """List image files, in order; of a folder all image files below it that are not hidden.

    A broken link is listed, so that it is reported when its turn comes.

    Args:
        paths: files and folders.

    Raises:
        UserError: a path does not exist, or a folder has no image.
    """
    files = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _is_image(file, path))
            if not inside:
                raise UserError(f"{path} has no image: none of {', '.join(sorted(SUFFIXES))}")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise UserError(f"no file or folder {path}")
    return files


def _is_image(file: Path, folder: Path) -> bool:
    if file.suffix.lower() not in SUFFIXES or any(map(is_hidden, file.relative_to(folder).parts)):
        return False
    return file.is_file() or (file.is_symlink() and not file.exists())


def _open(image: Any) -> PIL.Image.Image:
    """Return an image as a Pillow image, decoded, RGB and upright."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImageError(f"the image is {image.dtype} {list(image.shape)}; an array must be uint8 [H, W, 3], RGB")
        return PIL.Image.fromarray(np.ascontiguousarray(image))
    if isinstance(image, PIL.Image.Image):
        return _rgb(image)
    if not isinstance(image, str | os.PathLike):
        raise ImageError(f"an image is a path, a Pillow image or an array, not {type(image).__name__}")
    try:
        data = Path(image).read_bytes()
    except OSError as error:
        reason = "a broken link" if os.path.islink(image) else error.strerror
        raise ImageError(f"{printable(image)}: cannot be read ({reason})") from None
    try:
        return PIL.Image.fromarray(decode_image(data, printable(image)))
    except UserError as error:
        raise ImageError(str(error)) from None


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return a Pillow image as `images` would decode it from its file.

    Pillow decodes when pixels are needed, so a truncated file fails here.
    """
    try:
        pixels = to_rgb(image)  # first: Pillow turns a TIFF when it loads it
        return PIL.Image.fromarray(upright(pixels, orientation_of(image.info.get("exif", b""))))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ImageError(f"the image: truncated, damaged or not an image ({reason})") from None
