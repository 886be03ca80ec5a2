"""Encoded pictures -> uint8 RGB, by OpenCV, with Pillow's answers.

JPEG and PNG go through OpenCV, which frees Python's lock while it works; its results were compared with Pillow's
`.convert('RGB')` to the bit (grey, palette, alpha; EXIF orientation ignored, as in torchvision's loader). Three things
go another way: 16-bit PNGs keep their high byte (Pillow clips grey ones), CMYK JPEGs and other formats go to Pillow.

A truncated JPEG is an error, not a picture with a grey bottom. OpenCV 5.0 refuses one, but nothing promises that, so a
JPEG that does not end in its end-of-image marker is first read by Pillow, which is strict; bytes after the marker are
legal. For a training crop only the rows down to its lower edge are decoded, which changes no pixel.
"""

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from bottlefit_jax.errors import UserError

# One thread per picture: the loader already runs a picture per thread, and OpenCV's own pool would fight it.
cv2.setNumThreads(0)

_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# Start-of-frame markers: C0..CF without DHT (C4), JPG (C8) and DAC (CC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BASELINE = (0xC0, 0xC1)
_SCAN, _RESTART_INTERVAL = 0xDA, 0xDD
_WORTHWHILE = 24  # rows that must be spared before it pays to stop early


class JpegHeader(NamedTuple):
    """What a JPEG says of itself before its pixels. `one_pass`: baseline, a single scan, no restart markers."""

    height: int
    width: int
    components: int
    height_offset: int  # where in the file the height stands, two bytes
    one_pass: bool


def decode_image(data: bytes, name: str, *, rows: int | None = None) -> np.ndarray:
    """Decodes one picture, or its upper part.

    Args:
      data: the encoded file.
      name: what the error should call it, a path for instance.
      rows: how many rows are wanted from the top; None is all of them. Most JPEGs are then decoded only so far.

    Returns:
      uint8 [H, W, 3], RGB; [rows, W, 3] where `rows` is less than H. What is decoded early or late is equal to the bit.

    Raises:
      UserError: the data is empty, truncated, damaged or not a picture; one line that begins with `name`.
    """
    if data.startswith(_JPEG_START):
        header = jpeg_header(data)
        if header is None or header.components == 4:
            return _decode_with_pillow(data, name)[:rows]
        if not data.endswith(_JPEG_END):
            _decode_with_pillow(data, name)
        elif rows is not None and header.one_pass and rows + _WORTHWHILE <= header.height:
            image = _decode_top(data, rows, header)
            if image is not None:
                return image
    elif not data.startswith(_PNG_START):
        return _decode_with_pillow(data, name)[:rows]
    return _decode_with_opencv(data, name)[:rows]


def image_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG from its header; None for other formats and where the header is odd."""
    header = jpeg_header(data) if data.startswith(_JPEG_START) else None
    return (header.height, header.width) if header is not None and header.height and header.width else None


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Walks a JPEG's segments up to its first scan; None where they are not in order."""
    offset, frame, restarts = 2, None, False
    while offset + 10 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        if marker == _SCAN:
            if frame is None:
                return None
            one_pass = frame.one_pass and not restarts and data[offset + 4] == frame.components
            return frame._replace(one_pass=one_pass)
        if marker in _FRAMES:
            height = int.from_bytes(data[offset + 5 : offset + 7])
            width = int.from_bytes(data[offset + 7 : offset + 9])
            frame = JpegHeader(height, width, data[offset + 9], offset + 5, one_pass=marker in _BASELINE)
        elif marker == _RESTART_INTERVAL:
            restarts = restarts or data[offset + 4 : offset + 6] != b"\0\0"
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4])
    return None


def is_whole(start: bytes, end: bytes) -> bool:
    """Whether a file's first and last eight bytes are those of a complete JPEG or PNG. False: they prove nothing."""
    if start.startswith(_JPEG_START):
        return end.endswith(_JPEG_END)
    return start == _PNG_START and end[:4] == b"IEND"


def _decode_top(data: bytes, rows: int, header: JpegHeader) -> np.ndarray | None:
    """The first `rows` rows: the header is made to claim little more than those, so the decoder stops there.

    One row more, because chroma is interpolated between rows. Without the end marker the decoder takes what it has not
    read for data still to come; with it, it would complain on stderr.
    """
    shorter = bytearray(data[: -len(_JPEG_END)])
    shorter[header.height_offset : header.height_offset + 2] = (rows + 1).to_bytes(2)
    try:
        image = cv2.imdecode(np.frombuffer(shorter, np.uint8), _RGB)
    except cv2.error:
        return None
    return image[:rows] if image is not None and image.shape[:2] == (rows + 1, header.width) else None


def _decode_with_opencv(data: bytes, name: str) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _RGB)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{name}: truncated, damaged or not a picture ({len(data)} bytes)")
    return image


def _decode_with_pillow(data: bytes, name: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith("I"):
                pixels = np.asarray(image)
                grey = (np.clip(pixels, 0, 65535) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and others
        reason = " ".join(str(error).split())
        if "cannot identify" in reason:
            reason = "not a picture that Pillow knows"
        raise UserError(f"{name}: truncated, damaged or not a picture ({len(data)} bytes; {reason})") from None
