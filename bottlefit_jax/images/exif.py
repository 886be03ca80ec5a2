"""The orientation in EXIF. Damaged EXIF is ignored, where Pillow's reader warns of it."""

import struct

_ORIENTATION, _SHORT = 0x0112, 3


def orientation_of(exif: bytes) -> int:
    """Return the orientation in an EXIF block, 1 to 8; 1 (upright) where it has none.

    Args:
        exif: the block, with or without its `Exif` heading.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(entries):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if kind == _SHORT and 1 <= value <= 8 else 1
    except struct.error:  # damaged EXIF; the image itself may be whole
        pass
    return 1
