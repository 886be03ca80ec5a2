"""Names of image files: which ones are taken from a folder."""

# What is looked for in folders; a file that is named itself is decoded whatever its suffix.
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, as what macOS leaves on foreign disks is: `._x.jpg`, `.Trashes`."""
    return name.startswith(".")
