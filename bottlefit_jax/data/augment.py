"""Crops and resizes images by torchvision's rules (`torchvision/transforms/transforms.py` and `functional.py`).

Training: `RandomResizedCrop` as its `get_params` draws it, then a horizontal flip. Evaluation: `Resize` of the short
side, then `CenterCrop`. Resizing is the antialiased bilinear filter that Pillow applies to torchvision's images.
"""

import functools
import math

import cv2
import numpy as np
from scipy.sparse import csr_array

from bottlefit_jax.errors import UserError

# The loader already runs one image per thread; OpenCV's own threads would compete with them.
cv2.setNumThreads(0)

RATIO = (3 / 4, 4 / 3)
_ATTEMPTS = 10
_WHOLE = (slice(None), slice(None))
_MAX_ENLARGED = 2**22  # pixels up to which OpenCV enlarges a whole image of which a window is kept
_BLOCK = 2**22  # pixels that are converted to float at a time


def default_resize(image_size: int) -> int:
    """Return the short side that evaluation resizes to before the centre crop: 256 for 224, others in proportion.

    Args:
        image_size: side of the crop, pixels.
    """
    return round(image_size * 256 / 224)


def sample_crop(
    height: int, width: int, rng: np.random.Generator, *, scale: tuple[float, float], ratio: tuple[float, float] = RATIO
) -> tuple[int, int, int, int]:
    """Draw a crop: its share of the area uniform in `scale`, its aspect ratio log-uniform in `ratio`.

    If none of ten draws fits into the image, the crop is the largest centred one whose aspect ratio is allowed.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        rng: the random generator.
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width / height.

    Returns:
        (top, left, height, width) of the crop, pixels.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_ATTEMPTS):
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


def resize(
    image: np.ndarray, height: int, width: int, *, flip: bool = False, window: tuple[slice, slice] = _WHOLE
) -> np.ndarray:
    """Resize by the antialiased bilinear filter, within one grey level of Pillow's result in about half of its time.

    The filter is separable, so each pass is a sparse matrix with a few taps per row. Sums are float32 and rounded once;
    Pillow rounds after each pass. If no side shrinks, the filter is plain bilinear interpolation, which OpenCV has.
    Both release Python's lock.

    Args:
        image: uint8 [H, W, 3]; it may be a view, such as a crop.
        height: of the whole result, pixels.
        width: of the whole result, pixels.
        flip: mirror the result.
        window: the rows and columns of the result to return. Only their pixels take memory, whatever the result's
            size.

    Returns:
        uint8 [height, width, 3], or the window of it.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return (image[:, ::-1] if flip else image)[window]
    if rows <= height and columns <= width and height * width <= _MAX_ENLARGED:
        larger = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return (larger[:, ::-1] if flip else larger)[window]
    used_rows, vertical = _filter(rows, height, False, *window[0].indices(height)[:2])
    used_columns, horizontal = _filter(columns, width, flip, *window[1].indices(width)[:2])
    pixels = _filter_rows(image[used_rows, used_columns], vertical if rows != height else None)
    height, columns = pixels.shape[:2]
    pixels = horizontal @ cv2.transpose(pixels).reshape(columns, -1)  # [width, height * 3]
    rounded = cv2.convertScaleAbs(pixels)  # nearest, clipped to 0..255
    return cv2.transpose(rounded.reshape(-1, height, 3))


def _filter_rows(image: np.ndarray, matrix: csr_array | None) -> np.ndarray:
    """Multiply the rows of an image by a matrix, in blocks, since floats take four times the memory.

    Args:
        image: uint8 [H, W, 3].
        matrix: [h, H]; None for the identity.

    Returns:
        float32 [h, W, 3].
    """
    rows, columns = image.shape[:2]
    if matrix is None:
        return image.astype(np.float32)
    step = max(1, _BLOCK // rows)
    blocks = (image[:, start : start + step].astype(np.float32) for start in range(0, columns, step))
    filtered = [(matrix @ block.reshape(rows, -1)).reshape(-1, block.shape[1], 3) for block in blocks]
    return filtered[0] if len(filtered) == 1 else np.concatenate(filtered, axis=1)


@functools.lru_cache(maxsize=1024)  # a few kB each; crops of ordinary images come in some hundred sizes
def _filter(size: int, new_size: int, flip: bool, start: int, stop: int) -> tuple[slice, csr_array]:
    """Return rows `start` to `stop` of the triangle filter, as `precompute_coeffs` in Pillow's Resample.c defines it.

    Args:
        size: number of inputs, pixels.
        new_size: number of outputs, pixels.
        flip: whether the outputs are in reverse order.
        start: the first output.
        stop: the output after the last one.

    Returns:
        The slice of the inputs that are used, and the matrix [stop - start, inputs used].
    """
    scale = size / new_size
    support = max(scale, 1.0)
    centre = (np.arange(start, stop) + 0.5) * scale
    if flip:
        centre = (np.arange(new_size - 1 - start, new_size - 1 - stop, -1) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int32), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int32), size)
    taps = int((last - first).max())
    index = first[:, None] + np.arange(taps, dtype=np.int32)
    weight = np.maximum(1.0 - np.abs(index + 0.5 - centre[:, None]) / support, 0.0)
    weight[index >= last[:, None]] = 0.0
    weight /= weight.sum(axis=1, keepdims=True)
    used = weight > 0.0
    offsets = np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int32)
    inputs = slice(int(first.min()), int(last.max()))
    shape = (stop - start, inputs.stop - inputs.start)
    return inputs, csr_array((weight[used].astype(np.float32), index[used] - inputs.start, offsets), shape=shape)


def random_resized_crop(
    image: np.ndarray, rng: np.random.Generator, *, size: int, scale: tuple[float, float], flip: bool
) -> np.ndarray:
    """Crop an image at random, resize the crop, and mirror it with probability 1/2 if `flip` is set.

    Args:
        image: uint8 [H, W, 3].
        rng: the random generator.
        size: side of the result, pixels.
        scale: as in `sample_crop`.
        flip: whether crops may be mirrored.

    Returns:
        uint8 [size, size, 3].
    """
    top, left, height, width = sample_crop(image.shape[0], image.shape[1], rng, scale=scale)
    mirror = flip and rng.random() < 0.5
    return resize(image[top : top + height, left : left + width], size, size, flip=mirror)


def resize_center_crop(image: np.ndarray, *, size: int, short_side: int) -> np.ndarray:
    """Resize an image by its short side, and crop the centre.

    Args:
        image: uint8 [H, W, 3].
        size: side of the crop, pixels.
        short_side: of the resized image, pixels.

    Returns:
        uint8 [size, size, 3].
    """
    height, width = image.shape[:2]
    if height <= width:
        height, width = short_side, int(short_side * width / height)
    else:
        height, width = int(short_side * height / width), short_side
    top, left = round((height - size) / 2), round((width - size) / 2)
    return resize(image, height, width, window=(slice(top, top + size), slice(left, left + size)))


def check_eval_sizes(image_size: int, short_side: int) -> None:
    """Raise UserError if the centre crop would be larger than the resized image."""
    if image_size < 1 or short_side < image_size:
        raise UserError(
            f"resize {short_side} is smaller than image_size {image_size}; it must be at least {image_size}"
        )
