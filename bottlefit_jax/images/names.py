"""Names of image files: which are read from folders, and how they are printed."""

import os

# of the files that are read from a folder; a file that is given by name is decoded whatever its suffix
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, such as `._x.jpg` and `.Trashes`, which macOS leaves on disks."""
    return name.startswith(".")


def printable(name: str | bytes | os.PathLike) -> str:
    r"""Return a name as UTF-8 text: bytes that are not UTF-8 are written as `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
