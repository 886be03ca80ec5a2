"""Names of image files: which ones are read from folders."""

# of the files that are read from a folder; a file that is given by name is decoded whatever its suffix
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, such as `._x.jpg` and `.Trashes`, which macOS leaves on disks."""
    return name.startswith(".")
