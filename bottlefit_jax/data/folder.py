"""A folder of images: ROOT/{train,val}/CLASS/IMAGE. What is wrong with its layout is found when it is opened."""

import os
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np

from bottlefit_jax.data.source import SPLITS, FileSource
from bottlefit_jax.errors import UserError
from bottlefit_jax.images import SUFFIXES, is_hidden, printable

_INNER = "images"  # Tiny ImageNet has CLASS/images/*.JPEG
_LAYOUT = "train/CLASS/*.jpg and val/CLASS/*.jpg"


class Folder(FileSource):
    """The images of one split of a folder, class by class in sorted order, files in sorted order within a class.

    Names sort as text ('1', '10', '2'), as torchvision's ImageFolder sorts them. A class is known by its folder's name
    in NFC, whatever form each split has; the images may lie in a folder `images` within.

    Args of the constructor: `root` holds `train` and `val`, each with one folder per class.

    Raises (UserError): `root` or a split is missing or empty, a class has no image, or the splits' classes differ.
    """

    def __init__(self, root: str, *, split: str, on_bad_image: str = "error"):
        folders = _class_folders(root, on_bad_image)
        super().__init__("folder", split=split, class_names=tuple(folders["train"]), on_bad_image=on_bad_image)
        self.root = root
        self._folders, self._files, labels = [], [], []
        beside = (name for name, is_class in _split_entries(os.path.join(root, split)) if not is_class)
        self._leave_out(beside, "beside the class folders")
        for label, name in enumerate(self.class_names):
            folder = folders[split][name]
            path = os.path.join(root, split, folder)
            files, others, subfolders = _contents(path)
            if not files and _INNER in subfolders:
                folder, subfolders = os.path.join(folder, _INNER), [s for s in subfolders if s != _INNER]
                files, more_others, more_subfolders = _contents(os.path.join(path, _INNER))
                others, subfolders = others + more_others, subfolders + more_subfolders
            self._leave_out((os.path.join(folder, other) for other in others), "without an image's suffix")
            self._leave_out((os.path.join(folder, inner) for inner in subfolders), "folders within a class")
            self._folders.append(folder)
            self._files += sorted(files)
            labels += [label] * len(files)
        self._labels = np.asarray(labels, np.int32)

    def path(self, index: int) -> str:
        """Where the file lies."""
        return os.path.join(self.root, self.split, self._folders[self._labels[index]], self._files[index])


def _class_folders(root: str, on_bad_image: str) -> dict[str, dict[str, str]]:
    """For each split {class: its folder's name}, in the order of `train`; both splits have the same classes."""
    if not root:
        raise UserError("source 'folder' needs a root: the folder that holds train/ and val/")
    if not os.path.isdir(root):
        raise UserError(f"folder {root!r} does not exist; root must hold {_LAYOUT}")
    folders = {split: _folders_of(root, split, on_bad_image) for split in SPLITS}
    if folders["train"].keys() != folders["val"].keys():
        only = [f"{s}/{n}" for s, o in (SPLITS, SPLITS[::-1]) for n in folders[s] if n not in folders[o]]
        raise UserError(f"folder {root!r}: train and val must have the same classes; unpaired: {_some(only)}")
    return folders


def _folders_of(root: str, split: str, on_bad_image: str) -> dict[str, str]:
    folder = os.path.join(root, split)
    if not os.path.isdir(folder):
        raise UserError(f"folder {root!r} has no {split}/; it must hold {_LAYOUT}")
    entries = dict(_split_entries(folder))
    classes: dict[str, str] = {}
    for raw in sorted(name for name, is_class in entries.items() if is_class):
        name, path = printable(unicodedata.normalize("NFC", raw)), os.path.join(folder, raw)
        if name in classes:
            raise UserError(f"folder {folder!r} has the class {name!r} twice, in two forms of Unicode; merge them")
        if not _has_image(path) and not _has_image(os.path.join(path, _INNER)):
            looked_for = " ".join(sorted(SUFFIXES))
            raise UserError(f"class folder {printable(path)!r} holds no image (looked for {looked_for})")
        classes[name] = raw
    if on_bad_image != "skip":
        for name, is_class in entries.items():
            if not is_class and not os.path.exists(os.path.join(folder, name)):
                raise UserError(f"{printable(os.path.join(folder, name))} is a link that leads nowhere")
    if not classes:
        raise UserError(f"folder {folder!r} is empty; it must hold one folder of images per class")
    return classes


def _split_entries(folder: str) -> Iterator[tuple[str, bool]]:
    """(name, whether it is a class) of what is in a split's folder and not hidden."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_hidden(entry.name):
                yield entry.name, entry.is_dir()


def _contents(folder: str) -> tuple[list[str], list[str], list[str]]:
    """Names of the images, of other files, and of folders. A link that leads nowhere is what its suffix says."""
    images, others, folders = [], [], []
    for entry in _visible(folder):
        if entry.is_dir():
            folders.append(entry.name)
        else:
            (images if _is_image(entry) else others).append(entry.name)
    return images, others, folders


def _has_image(folder: str) -> bool:
    return os.path.isdir(folder) and any(_is_image(entry) for entry in _visible(folder))


def _is_image(entry: os.DirEntry[str]) -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()
    return suffix in SUFFIXES and (entry.is_file() or (entry.is_symlink() and not entry.is_dir()))


def _visible(folder: str) -> Iterable[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not is_hidden(entry.name))


def _some(names: list[str], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
