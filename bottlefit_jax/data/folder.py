"""A folder of pictures: ROOT/{train,val}/CLASS/PICTURE. What is wrong with its layout is found when it is opened."""

import os
from collections.abc import Iterable

import numpy as np

from bottlefit_jax.data.source import SPLITS, FileSource
from bottlefit_jax.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


class Folder(FileSource):
    """The pictures of one split of a folder, class by class in sorted order, files in sorted order within a class.

    Args of the constructor: `root` holds `train` and `val`, each with one folder per class.

    Raises (UserError): `root` or a split is missing or empty, a class has no picture, or the splits' classes differ.
    """

    def __init__(self, root: str, *, split: str, on_bad_image: str = "error"):
        classes = _check_classes(root)
        super().__init__("folder", split=split, class_names=classes, on_bad_image=on_bad_image)
        self.root = root
        self._files: list[str] = []
        labels = []
        for label, name in enumerate(classes):
            files = sorted(_pictures(os.path.join(root, split, name)))
            self._files += files
            labels += [label] * len(files)
        self._labels = np.asarray(labels, np.int32)

    def picture_name(self, index: int) -> str:
        """The file's path."""
        return os.path.join(self.root, self.split, self.class_names[self._labels[index]], self._files[index])


def _check_classes(root: str) -> list[str]:
    """The classes, which both splits must share; every class needs a picture in both."""
    if not root:
        raise UserError("source 'folder' needs a root: the folder that holds train/ and val/")
    if not os.path.isdir(root):
        raise UserError(f"folder {root!r} does not exist; root must hold train/CLASS/*.jpg and val/CLASS/*.jpg")
    classes: dict[str, list[str]] = {}
    for split in SPLITS:
        folder = os.path.join(root, split)
        if not os.path.isdir(folder):
            raise UserError(f"folder {root!r} has no {split}/; it must hold train/CLASS/*.jpg and val/CLASS/*.jpg")
        with os.scandir(folder) as entries:
            classes[split] = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
        if not classes[split]:
            raise UserError(f"folder {folder!r} is empty; it must hold one folder of pictures per class")
        for name in classes[split]:
            if next(iter(_pictures(os.path.join(folder, name))), None) is None:
                path = os.path.join(folder, name)
                raise UserError(f"class folder {path!r} holds no picture (looked for {' '.join(EXTENSIONS)})")
    if classes["train"] != classes["val"]:
        only = [f"{s}/{n}" for s, o in (SPLITS, SPLITS[::-1]) for n in classes[s] if n not in set(classes[o])]
        raise UserError(f"folder {root!r}: train and val must have the same classes; unpaired: {_some(only)}")
    return classes["train"]


def _pictures(folder: str) -> Iterable[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith(".") and entry.is_file():
                yield entry.name


def _some(names: list[str], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
