"""What every data source is: a fixed list of labelled images, read by index from any thread or process."""

import abc
import os
from collections.abc import Iterable, Sequence

import numpy as np

from bottlefit_jax.errors import UserError
from bottlefit_jax.images import decode_image, printable

SPLITS = ("train", "val")
ON_BAD_IMAGE = ("error", "skip")


class Source(abc.ABC):
    """Labelled images in a fixed order. A subclass says how to `read` one; it must pickle (workers get a copy).

    Attributes:
        name: what `open_source` was asked for.
        split: 'train' or 'val'.
        class_names: the classes; a label is a position in it.
        on_bad_image: 'error' or 'skip': what the loader does when an image cannot be decoded.
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
        """The number of images, bad ones included."""

    @abc.abstractmethod
    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """The image at `index` as it is stored (an encoded file, or uint8 [H, W, 3] RGB) and its label."""

    @abc.abstractmethod
    def image_name(self, index: int) -> str:
        """What a person would look for: a file's path, or the set's name and the position in it; printable."""

    def __getitem__(self, index: int) -> dict[str, np.ndarray | int]:
        """The decoded image: `{'image': uint8 [H, W, 3] RGB, 'label': int}`.

        Raises:
            UserError: the image cannot be decoded, whatever `on_bad_image` says (skipping is the loader's work).
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
        """Remembers that the image at `index` cannot be decoded, so that it is counted and not tried again."""
        self._bad.add(index)

    def is_bad(self, index: int) -> bool:
        """Whether the image at `index` has been found bad so far."""
        return index in self._bad

    def bad_images(self) -> tuple[str, ...]:
        """The names of the images skipped so far (by this process's iterators or `check_images`), in order."""
        return tuple(self.image_name(index) for index in sorted(self._bad))

    def left_out(self) -> str:
        """How many of the files that lie there are none of the images, by reason, and the first of each; or ''."""
        return "; ".join(f"{count} {reason}, first {name}" for reason, (count, name) in self._left_out.items())

    def _leave_out(self, names: Iterable[str], reason: str) -> None:
        """Count files that are not used."""
        for name in sorted(names):
            count, first = self._left_out.get(reason, (0, printable(name)))
            self._left_out[reason] = (count + 1, first)


class FileSource(Source):
    """A source whose images are files: a subclass sets `_labels`, and says in `path` where each file is."""

    _labels: Sequence[int] | np.ndarray

    @abc.abstractmethod
    def path(self, index: int) -> str:
        """Where the file lies, as the system spells it."""

    def image_name(self, index: int) -> str:
        """The file's path, printable."""
        return printable(self.path(index))

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, index: int) -> tuple[bytes, int]:
        """The file's bytes and its label; UserError where the file cannot be read."""
        path = self.path(index)
        try:
            with open(path, "rb", buffering=0) as file:
                return file.read(), int(self._labels[index])
        except OSError as error:
            reason = "a link that leads nowhere" if os.path.islink(path) else error.strerror
            raise UserError(f"{printable(path)}: cannot be read ({reason})") from None


def check_options(split: str, on_bad_image: str) -> None:
    """Raise UserError unless both are among the words that `open_source` knows."""
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; take 'train' or 'val'")
    if on_bad_image not in ON_BAD_IMAGE:
        raise UserError(f"on_bad_image {on_bad_image!r} is unknown; take 'error' or 'skip'")
