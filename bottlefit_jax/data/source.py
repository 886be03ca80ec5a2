"""The interface of data sources: a fixed list of labelled images, read by index from any thread or process."""

import abc
import os
from collections.abc import Iterable, Sequence

import numpy as np

from bottlefit_jax.errors import UserError
from bottlefit_jax.images import decode_image
from bottlefit_jax.paths import printable

SPLITS = ("train", "val")
ON_BAD_IMAGE = ("error", "skip")


class Source(abc.ABC):
    """Labelled images in a fixed order. A subclass implements `read`, and must be picklable: workers get a copy.

    Attributes:
        name: the name that `open_source` was given.
        split: 'train' or 'val'.
        class_names: the classes; a label is an index into them.
        on_bad_image: 'error' or 'skip': what the loader does with an image that cannot be decoded.
    """

    def __init__(self, name: str, *, split: str, class_names: Sequence[str], on_bad_image: str = "error"):
        self.name = name
        self.split = split
        self.class_names = tuple(class_names)
        self.on_bad_image = on_bad_image
        self._bad: set[int] = set()
        self._left_out: dict[str, tuple[int, str]] = {}

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of images, including bad ones."""

    @abc.abstractmethod
    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """Return the image at `index` as it is stored (an encoded file, or uint8 [H, W, 3] RGB), and its label."""

    @abc.abstractmethod
    def image_name(self, index: int) -> str:
        """Return the image's name for messages: a file's path, or the set's name and the index; printable."""

    def __getitem__(self, index: int) -> dict[str, np.ndarray | int]:
        """Return the decoded image: `{'image': uint8 [H, W, 3] RGB, 'label': int}`.

        Args:
            index: from the end if negative.

        Raises:
            UserError: the image cannot be decoded, also if `on_bad_image` is 'skip': the loader does the skipping.
            IndexError: there is no such image.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        image, label = self.read(index)
        if isinstance(image, bytes):
            image = decode_image(image, self.image_name(index))
        return {"image": image, "label": label}

    def mark_bad(self, index: int) -> None:
        """Remember that the image at `index` cannot be decoded, so that it is counted and not tried again."""
        self._bad.add(index)

    def is_bad(self, index: int) -> bool:
        """Return whether the image at `index` is known to be bad."""
        return index in self._bad

    def bad_images(self) -> tuple[str, ...]:
        """Return the names of the images skipped so far (by this process's iterators or `check_images`), in order."""
        return tuple(self.image_name(index) for index in sorted(self._bad))

    def left_out(self) -> str:
        """Return how many files of the folder are not used, for each reason, with the first file; '' if none."""
        return "; ".join(f"{count} {reason}, first {name}" for reason, (count, name) in self._left_out.items())

    def _leave_out(self, names: Iterable[str], reason: str) -> None:
        """Count files that are not used."""
        for name in sorted(names):
            count, first = self._left_out.get(reason, (0, printable(name)))
            self._left_out[reason] = (count + 1, first)


class FileSource(Source):
    """A source whose images are files: a subclass sets `_labels` and implements `path`."""

    _labels: Sequence[int] | np.ndarray

    @abc.abstractmethod
    def path(self, index: int) -> str:
        """Return the path of the file, as the file system spells it."""

    def image_name(self, index: int) -> str:
        """Return the file's path, printable."""
        return printable(self.path(index))

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, index: int) -> tuple[bytes, int]:
        """Return the file's bytes and its label; raise UserError if the file cannot be read."""
        path = self.path(index)
        try:
            with open(path, "rb", buffering=0) as file:
                return file.read(), int(self._labels[index])
        except OSError as error:
            reason = "a broken link" if os.path.islink(path) else error.strerror
            raise UserError(f"{printable(path)}: cannot be read ({reason})") from None


def check_options(split: str, on_bad_image: str) -> None:
    """Raise UserError unless both are values that `open_source` accepts."""
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; it must be 'train' or 'val'")
    if on_bad_image not in ON_BAD_IMAGE:
        raise UserError(f"on_bad_image {on_bad_image!r} is unknown; it must be 'error' or 'skip'")
