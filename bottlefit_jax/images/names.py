"""Names of image files: which ones are taken, and how they are shown."""

import os

# What is looked for in folders; a file that is named itself is decoded whatever its suffix.
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, as what macOS leaves on foreign disks is: `._x.jpg`, `.Trashes`."""
    return name.startswith(".")


def printable(name: str | bytes | os.PathLike) -> str:
    r"""A name that any UTF-8 text can hold: bytes that are no UTF-8 are written as `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
