"""The raw contents of a BYTES tensor: its elements, each after its length as four bytes, the lowest first."""

import struct
from collections.abc import Iterable

_LENGTH = struct.Struct("<I")


def pack(items: Iterable[bytes]) -> bytes:
    """Return the raw contents of a tensor of these elements."""
    return b"".join(part for item in items for part in (_LENGTH.pack(len(item)), item))


def unpack(raw: bytes, count: int) -> list[bytes]:
    """Return the elements of a tensor.

    Args:
        raw: any bytes.
        count: the number of elements that its shape has.

    Raises:
        ValueError: `raw` does not hold exactly so many elements; nothing is allocated by the lengths that it claims.
    """
    items, at = [], 0
    while len(items) < count and at + _LENGTH.size <= len(raw):
        begin = at + _LENGTH.size
        at = begin + _LENGTH.unpack_from(raw, at)[0]
        if at > len(raw):
            break
        items.append(raw[begin:at])
    if len(items) != count or at != len(raw):
        elements = f"{count:,} element{'' if count == 1 else 's'}"
        raise ValueError(f"{len(raw):,} raw bytes are not {elements} of BYTES, each after its length in 4 bytes")
    return items
