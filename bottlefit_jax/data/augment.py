"""Cropping and resizing, with torchvision's rules (`torchvision/transforms/transforms.py` and `functional.py`).

Training: `RandomResizedCrop` as its `get_params` draws it, then a horizontal flip. Evaluation: `Resize` of the short
side, then `CenterCrop`. Resizing is the antialiased bilinear filter that Pillow applies to torchvision's pictures.
"""

import functools
import math
from collections.abc import Callable

import cv2
import numpy as np
from scipy.sparse import csr_array

from bottlefit_jax.errors import UserError

RATIO = (3 / 4, 4 / 3)
_TRIES = 10


def default_resize(image_size: int) -> int:
    """The short side that evaluation resizes to before the centre crop: 256 for 224, and in proportion."""
    return round(image_size * 256 / 224)


def sample_crop(
    height: int, width: int, rng: np.random.Generator, *, scale: tuple[float, float], ratio: tuple[float, float] = RATIO
) -> tuple[int, int, int, int]:
    """Draws a crop: its share of the area uniform in `scale`, its aspect ratio log-uniform in `ratio`.

    Ten tries; where none fits, the largest centred crop whose aspect ratio is allowed.

    Args:
      height, width: of the picture, pixels.
      rng: where the draws come from.
      scale: least and most share of the picture's area.
      ratio: least and most width / height.

    Returns:
      (top, left, height, width) of the crop, pixels.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_TRIES):
        area = height * width * rng.uniform(scale[0], scale[1])
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(height - h + 1))
            left = int(rng.integers(width - w + 1))
            return top, left, h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def resize(image: np.ndarray, height: int, width: int, *, flip: bool = False) -> np.ndarray:
    """Antialiased bilinear resize, within one grey level of Pillow's, in about half of its time.

    The filter is separable, so each pass is a sparse matrix with a few taps per row; sums are float32 and rounded once,
    where Pillow rounds after either pass. Where nothing shrinks it is plain bilinear interpolation, which OpenCV has.
    Both free Python's lock.

    Args:
      image: uint8 [H, W, 3]; a view (a crop) is fine.
      height, width: of the result, pixels.
      flip: mirror the result.

    Returns:
      uint8 [height, width, 3].
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image[:, ::-1] if flip else image
    if rows <= height and columns <= width:
        larger = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return larger[:, ::-1] if flip else larger
    pixels = image.astype(np.float32).reshape(rows, -1)
    if rows != height:
        pixels = _filter(rows, height, False) @ pixels
    pixels = cv2.transpose(pixels.reshape(height, columns, 3)).reshape(columns, -1)  # [W, height * 3]
    pixels = _filter(columns, width, flip) @ pixels
    rounded = cv2.convertScaleAbs(pixels)  # nearest, clipped to 0..255
    return cv2.transpose(rounded.reshape(width, height, 3))


@functools.lru_cache(maxsize=1024)  # a few kB each; crops of ordinary pictures come in some hundred sizes
def _filter(size: int, new_size: int, flip: bool) -> csr_array:
    """The matrix [new_size, size] of the triangle filter, as `precompute_coeffs` in Pillow's Resample.c defines it."""
    scale = size / new_size
    support = max(scale, 1.0)
    centre = (np.arange(new_size) + 0.5) * scale
    if flip:
        centre = centre[::-1]
    first = np.maximum((centre - support + 0.5).astype(np.int32), 0)
    stop = np.minimum((centre + support + 0.5).astype(np.int32), size)
    taps = int((stop - first).max())
    index = first[:, None] + np.arange(taps, dtype=np.int32)
    weight = np.maximum(1.0 - np.abs(index + 0.5 - centre[:, None]) / support, 0.0)
    weight[index >= stop[:, None]] = 0.0
    weight /= weight.sum(axis=1, keepdims=True)
    used = weight > 0.0
    start = np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int32)
    return csr_array((weight[used].astype(np.float32), index[used], start), shape=(new_size, size))


def random_resized_crop(
    first_rows: Callable[[int], np.ndarray],
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    size: int,
    scale: tuple[float, float],
    flip: bool,
) -> np.ndarray:
    """A random crop of a picture, resized and, if `flip`, mirrored half of the time.

    Args:
      first_rows: gives the picture's first n rows, uint8 [n, W, 3]; what lies below the crop need not be decoded.
      shape: (H, W) of the whole picture, pixels.
      rng: where the draws come from.
      size: side of the result, pixels.
      scale: as in `sample_crop`.
      flip: whether to mirror.

    Returns:
      uint8 [size, size, 3].
    """
    top, left, height, width = sample_crop(shape[0], shape[1], rng, scale=scale)
    mirror = flip and rng.random() < 0.5
    crop = first_rows(top + height)[top:, left : left + width]
    return resize(crop, size, size, flip=mirror)


def resize_center_crop(image: np.ndarray, *, size: int, short_side: int) -> np.ndarray:
    """Resizes uint8 [H, W, 3] so that its short side is `short_side`; cuts uint8 [size, size, 3] from the middle."""
    height, width = image.shape[:2]
    if height <= width:
        height, width = short_side, int(short_side * width / height)
    else:
        height, width = int(short_side * height / width), short_side
    image = resize(image, height, width)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[top : top + size, left : left + size]


def check_eval_sizes(image_size: int, short_side: int) -> None:
    """Raises UserError where the centre crop would be larger than the resized picture."""
    if image_size < 1 or short_side < image_size:
        raise UserError(f"resize {short_side} is smaller than image_size {image_size}; take at least {image_size}")
