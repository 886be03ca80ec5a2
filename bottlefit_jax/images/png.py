"""Whether a PNG has all its rows: Pillow leaves missing rows black and does not report them."""

import struct
import zlib
from collections.abc import Iterator

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_BLOCK = 2**20


def has_all_rows(data: bytes) -> bool:
    """Return whether a PNG's compressed data has the length that its header implies. It is inflated in blocks."""
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    pixel = bits * _CHANNELS[colour]
    expected = sum(rows * (1 + (columns * pixel + 7) // 8) for columns, rows in _passes(width, height, interlaced))
    inflater, length = zlib.decompressobj(), 0
    for compressed in _compressed(data):
        while compressed and length < expected:
            length += len(inflater.decompress(compressed, _BLOCK))
            compressed = inflater.unconsumed_tail
    return length >= expected


def _passes(width: int, height: int, interlaced: int) -> Iterator[tuple[int, int]]:
    """Yield columns and rows of each pass over the image."""
    for left, top, right, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = (width - left + right - 1) // right, (height - top + down - 1) // down
        if columns and rows:
            yield columns, rows


def _compressed(data: bytes) -> Iterator[bytes]:
    """Yield the contents of the IDAT chunks."""
    offset = 8
    while offset + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        if data[offset + 4 : offset + 8] == b"IDAT":
            yield data[offset + 8 : offset + 8 + length]
        offset += 12 + length
