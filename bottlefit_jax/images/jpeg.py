"""The header of a JPEG, and whether its coded data is complete."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from bottlefit_jax.images.exif import orientation_of

START = b"\xff\xd8\xff"
# Start-of-frame markers: C0..CF without DHT (C4), JPG (C8) and DAC (CC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_SCAN, _END, _APP1, _HUFFMAN = 0xDA, 0xD9, 0xE1, 0xC4
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # in coded data: not a stuffed zero, not a restart
_UNSENT = 0xFF
_END_OF_BLOCK = 0
_ZEROS = bytes(64)  # longer than any block of zero bits


class JpegHeader(NamedTuple):
    """The part of a JPEG before the first scan.

    Attributes:
        height, width: as stored, in pixels.
        components: their identifiers.
        progressive: whether a coefficient is coded in several scans.
        orientation: EXIF's, 1 to 8.
        shortest: of each Huffman table for AC coefficients, the symbol whose code is zero bits.
        scan_offset: of the first scan.
    """

    height: int
    width: int
    components: bytes
    progressive: bool
    orientation: int = 1
    shortest: bytes = b""
    scan_offset: int = 0


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Parse a JPEG's segments up to its first scan; return None where they are invalid."""
    frame, orientation, shortest = None, None, b""
    for offset, marker in _segments(data, 2):
        end = offset + 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
        if marker == _SCAN:
            return frame and frame._replace(orientation=orientation or 1, shortest=shortest, scan_offset=offset)
        if marker in _FRAMES:
            height, width = (
                int.from_bytes(data[offset + 5 : offset + 7], "big"),
                int.from_bytes(data[offset + 7 : offset + 9], "big"),
            )
            components = data[offset + 10 : offset + 10 + 3 * data[offset + 9] : 3]
            frame = JpegHeader(height, width, components, marker in _PROGRESSIVE)
        elif marker == _HUFFMAN:
            shortest += _shortest_codes(data[offset + 4 : end])
        elif marker == _APP1 and orientation is None and data[offset + 4 : offset + 10] == b"Exif\0\0":
            orientation = orientation_of(data[offset + 4 : end])
    return None


def has_zeroed_data(data: bytes, header: JpegHeader) -> bool:
    """Return whether coded data was overwritten with zeros, as after a power cut.

    Zero bits are valid codes, and sometimes they decode to the right number of blocks, so that libjpeg does not warn.
    But no encoder writes a block of zero bits, unless these are the code for the end of a block.
    """
    all_in_one = data[header.scan_offset + 4] == len(header.components)
    if header.progressive or not all_in_one or not any(symbol != _END_OF_BLOCK for symbol in header.shortest):
        return False
    zeros = data.find(_ZEROS, header.scan_offset)
    return zeros >= 0 and data.find(bytes([0xFF, _END]), header.scan_offset, zeros) < 0  # after the end they are valid


def has_all_scans(data: bytes, header: JpegHeader) -> bool:
    """Return whether every coefficient of every component is coded to its last bit.

    libjpeg does not warn where scans are missing at the end.
    """
    missing_bits = {component: bytearray([_UNSENT] * 64) for component in header.components}
    offset: int | None = header.scan_offset
    while offset is not None:
        count = data[offset + 4]
        components = data[offset + 5 : offset + 5 + 2 * count : 2]
        first, last, bits = data[offset + 5 + 2 * count : offset + 8 + 2 * count]
        if not header.progressive:
            first, last, bits = 0, 63, 0
        for component in components:
            if component in missing_bits:
                missing_bits[component][first : last + 1] = bytes([bits & 0x0F]) * (last + 1 - first)
        if not any(map(any, missing_bits.values())):
            return True
        offset = _next_scan(data, offset)
    return False


def _next_scan(data: bytes, offset: int) -> int | None:
    """Return the offset of the scan after the one at `offset`; None where there is none."""
    coded = _MARKER.search(data, offset + 2 + int.from_bytes(data[offset + 2 : offset + 4], "big"))
    if coded is None:
        return None
    return next((position for position, marker in _segments(data, coded.start()) if marker == _SCAN), None)


def _shortest_codes(tables: bytes) -> bytes:
    """Return the first symbol of each AC table in a segment: its code is zero bits."""
    symbols, offset = b"", 0
    while offset + 17 < len(tables):
        count = sum(tables[offset + 1 : offset + 17])
        if tables[offset] >> 4 and count:
            symbols += tables[offset + 17 : offset + 18]
        offset += 17 + count
    return symbols


def _segments(data: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, marker) of each segment from `offset` on, up to the first that is invalid."""
    while offset + 10 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        if marker == _END:
            return
        yield offset, marker
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
