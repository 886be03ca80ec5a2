"""Encoded pictures -> uint8 RGB, by OpenCV, with Pillow's answers.

JPEG and PNG go through OpenCV, which frees Python's lock while it works; its results were compared with Pillow's
`.convert('RGB')` to the bit (grey, palette, alpha; EXIF orientation ignored, as in torchvision's loader). Three things
go another way: 16-bit PNGs keep their high byte (Pillow clips grey ones), CMYK JPEGs and other formats go to Pillow.

A truncated JPEG is an error, not a picture with a grey bottom. OpenCV 4 returns the latter, so a JPEG that does not
end in its end-of-image marker is first read by Pillow, which is strict; bytes that follow the marker are legal.
"""

import io

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


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decodes one picture.

    Args:
      data: the encoded file.
      name: what the error should call it, a path for instance.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      UserError: the data is empty, truncated, damaged or not a picture; one line that begins with `name`.
    """
    if data.startswith(_JPEG_START):
        frame = jpeg_frame(data)
        if frame is None:
            raise UserError(f"{name}: truncated or damaged JPEG ({len(data)} bytes without a picture header)")
        if frame[2] == 4:
            return _decode_with_pillow(data, name)
        if not data.endswith(_JPEG_END):
            _decode_with_pillow(data, name)
    elif not data.startswith(_PNG_START):
        return _decode_with_pillow(data, name)
    return _decode_with_opencv(data, name)


def jpeg_frame(data: bytes) -> tuple[int, int, int] | None:
    """Finds a JPEG's frame header: (height, width, components), or None."""
    offset = 2
    while offset + 10 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        if marker in _FRAMES:
            height = int.from_bytes(data[offset + 5 : offset + 7])
            width = int.from_bytes(data[offset + 7 : offset + 9])
            return height, width, data[offset + 9]
        if marker == 0xDA:  # the scan began without a frame
            return None
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4])
    return None


def is_whole(start: bytes, end: bytes) -> bool:
    """Whether a file's first and last eight bytes are those of a complete JPEG or PNG. False: they prove nothing."""
    if start.startswith(_JPEG_START):
        return end.endswith(_JPEG_END)
    return start == _PNG_START and end[:4] == b"IEND"


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
