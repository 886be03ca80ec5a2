"""Encoded images -> uint8 RGB, upright.

JPEG goes through simplejpeg: libjpeg-turbo, whose warnings become errors, which neither OpenCV nor Pillow offers. It
frees Python's lock and gives Pillow's pixels to the bit. CMYK JPEGs and those with unusual sampling, and all other
formats, are decoded by Pillow.
"""

import io
import struct
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import simplejpeg
from PIL import Image

from bottlefit_jax.errors import UserError
from bottlefit_jax.images.exif import orientation_of
from bottlefit_jax.images.jpeg import START, JpegHeader, has_all_scans, has_zeroed_data, jpeg_header
from bottlefit_jax.images.names import printable
from bottlefit_jax.images.png import has_all_rows

T = TypeVar("T")

MAX_PIXELS = 2**28  # 805 MB of RGB; the largest sensors of phones have 200 million
REDUCE_ABOVE = 2**26  # pixels of a JPEG that are decoded: 201 MB of RGB
_SMALLEST = 8  # libjpeg's least scale is 1/8: fast, and all coded data is still read
_REFUSED = frozenset({"EPS"})  # Pillow would run Ghostscript


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode one image.

    Args:
        data: the encoded file.
        name: what the error should call it, a path for instance.

    Returns:
        uint8 [H, W, 3], RGB, upright.

    Raises:
        UserError: the data is empty, truncated, damaged, not an image, or larger than MAX_PIXELS; one line that begins
            with `name`.
    """
    return _explained(_decode, data, name)


def check_image(data: bytes, name: str) -> None:
    """Raise UserError exactly where `decode_image` would. A JPEG takes half of the time of decoding it."""
    _explained(_check, data, name)


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image as its EXIF orientation says.

    Args:
        image: [H, W, 3] as stored.
        orientation: 1 to 8; from 5 on width and height change places.
    """
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def to_rgb(image: Image.Image) -> np.ndarray:
    """A Pillow image as uint8 [H, W, 3]; 16-bit grey keeps its high byte, which Pillow alone would clip."""
    if image.mode.startswith("I"):
        grey = (np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "P":
        image = image.copy()
        image.info.pop("transparency", None)  # Pillow warns of some kinds, and alpha is dropped anyway
    return np.asarray(image.convert("RGB"))


def _explained(work: Callable[[bytes], T], data: bytes, name: str) -> T:
    """`work(data)`; whatever it raises as one line."""
    try:
        return work(data)
    except MemoryError:
        raise UserError(f"{printable(name)}: there is not enough memory to decode it") from None
    except _TooLarge as error:
        raise UserError(f"{printable(name)}: {error}") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and others
        reason = " ".join(str(error).split()) or type(error).__name__
        size = f"{len(data)} bytes; {reason}"
        raise UserError(f"{printable(name)}: truncated, damaged or not an image ({size})") from None


class _TooLarge(Exception):
    def __init__(self, width: int, height: int):
        super().__init__(f"{width} x {height} pixels are more than the limit of {MAX_PIXELS:,} (MAX_PIXELS)")


def _decode(data: bytes) -> np.ndarray:
    header = _jpeg(data)
    if header is None:
        return _decode_with_pillow(data)
    if len(header.components) == 4:
        _decode_jpeg(data, header, _SMALLEST, "CMYK")  # finds damage, which Pillow does not
        return _decode_with_pillow(data)
    factor = 1
    while header.height * header.width > REDUCE_ABOVE * factor**2:
        factor *= 2
    return upright(_decode_jpeg(data, header, factor, "RGB"), header.orientation)


def _check(data: bytes) -> None:
    header = _jpeg(data)
    if header is None or len(header.components) == 4:
        _decode(data)
    else:
        _decode_jpeg(data, header, _SMALLEST, "GRAY")


def _jpeg(data: bytes) -> JpegHeader | None:
    """The header of a JPEG that simplejpeg can read; None for anything else."""
    header = jpeg_header(data) if data.startswith(START) else None
    if header is None:
        return None
    if header.height * header.width > MAX_PIXELS:
        raise _TooLarge(header.width, header.height)
    try:
        simplejpeg.decode_jpeg_header(data, strict=False)
    except ValueError:  # a sampling that TurboJPEG has no name for
        return None
    return header


def _decode_jpeg(data: bytes, header: JpegHeader, factor: int, colours: str) -> np.ndarray:
    """The image at 1 / factor; ValueError with libjpeg's words where it warns of anything."""
    if not has_all_scans(data, header):
        raise ValueError("scans are missing")
    if has_zeroed_data(data, header):
        raise ValueError("zeros in the middle of the coded data")
    height, width = -(-header.height // factor), -(-header.width // factor)
    return simplejpeg.decode_jpeg(data, colours, min_height=height, min_width=width, min_factor=factor)


def _decode_with_pillow(data: bytes) -> np.ndarray:
    with _open(data) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _TooLarge(width, height)
        image.load()
        if image.format == "PNG" and _last_row_is_empty(image) and not has_all_rows(data):
            raise ValueError("rows are missing")
        # TIFF has no such block: Pillow turns it by itself.
        return upright(to_rgb(image), orientation_of(image.info.get("exif", b"")))


def _last_row_is_empty(image: Image.Image) -> bool:
    """Whether rows can be missing: Pillow leaves those black. Interlaced images fill in another order."""
    return bool(image.info.get("interlace")) or not np.asarray(image.crop((0, image.height - 1, *image.size))).any()


def _open(data: bytes) -> Image.Image:
    """As `Image.open`, but for its limit, which is lower than ours and a global of the process."""
    Image.preinit()
    Image.init()
    for name in Image.ID:
        factory, accepts = Image.OPEN[name]
        try:
            accepted = name not in _REFUSED and (accepts is None or accepts(data[:16]))
            if accepted and not isinstance(accepted, str):  # a string says why not
                return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # as Image.open: not this format
            continue
    raise ValueError("not an image that Pillow knows")
