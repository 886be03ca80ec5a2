"""Images without labels: any trees of folders, alone or joined to labelled images."""

import copy
import os
from collections.abc import Iterator, Sequence

import numpy as np

from bottlefit_jax.data.source import FileSource, Source
from bottlefit_jax.errors import UserError
from bottlefit_jax.images import SUFFIXES, is_hidden
from bottlefit_jax.paths import printable

NO_LABEL = -1
_HELD_OUT = 10  # one image in so many is held out for evaluation, where no other images are given for it


class Unlabelled(FileSource):
    """All images of some folders and of the folders within, in the order of their paths; links are followed.

    Their label is NO_LABEL. `with_labels` returns the same images with labels from elsewhere, such as a teacher's.
    """

    def __init__(self, folders: Sequence[str], *, split: str, hold_out: bool = False, on_bad_image: str = "error"):
        """List the images.

        Args:
            folders: at least one.
            split: 'train', or 'val' for the images that are held out.
            hold_out: keep one image in ten for evaluation.
            on_bad_image: as in `Source`.

        Raises:
            UserError: a folder is missing, unreadable, given twice, or holds no image; or too few to hold out any.
        """
        super().__init__("unlabelled", split=split, class_names=(), on_bad_image=on_bad_image)
        self.folders = tuple(folders)
        real = [os.path.realpath(folder) for folder in folders]
        if twice := [folder for folder, path in zip(folders, real, strict=True) if real.count(path) > 1]:
            raise UserError(f"unlabelled folder {printable(twice[0])!r} is given twice; each must be given once")
        paths = [path for folder in folders for path in self._images_of(folder)]
        if hold_out and len(paths) < _HELD_OUT:
            raise UserError(
                f"unlabelled folder {printable(folders[0])!r}: {len(paths)} images are too few to hold out one in "
                f"{_HELD_OUT} for evaluation; give at least {_HELD_OUT}, or config.dataset.eval_name"
            )
        if hold_out:
            held_out = paths[_HELD_OUT - 1 :: _HELD_OUT]
            del paths[_HELD_OUT - 1 :: _HELD_OUT]
            paths = held_out if split == "val" else paths
        self._paths = paths
        self._labels = np.full(len(paths), NO_LABEL, np.int32)

    def path(self, index: int) -> str:
        """Return the path of the file."""
        return self._paths[index]

    def with_labels(self, labels: np.ndarray, class_names: Sequence[str]) -> "Unlabelled":
        """Return the same images with a label for each, an index into `class_names`."""
        assert len(labels) == len(self)
        labelled = copy.copy(self)
        labelled._labels, labelled.class_names = np.asarray(labels, np.int32), tuple(class_names)
        return labelled

    def _images_of(self, folder: str) -> list[str]:
        """Return the sorted paths of a folder's images; count what is left out."""
        files = sorted(_files_below(folder))
        images = [path for path in files if os.path.splitext(path)[1].lower() in SUFFIXES]
        self._leave_out({*files} - {*images}, "without an image's suffix")
        if not images:
            looked_for = " ".join(sorted(SUFFIXES))
            raise UserError(f"unlabelled folder {printable(folder)!r} holds no image (looked for {looked_for})")
        return images


class Joined(Source):
    """The images of several sources, one source after the other. The first source has the classes.

    Attributes:
        sources: in this order.
    """

    def __init__(self, sources: Sequence[Source]):
        """Join sources of the same split; what they know of bad images is kept."""
        first = sources[0]
        name = " + ".join(source.name for source in sources)
        super().__init__(name, split=first.split, class_names=first.class_names, on_bad_image=first.on_bad_image)
        self.sources = tuple(sources)
        self._ends = np.cumsum([len(source) for source in sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """Return the stored image and its label; NO_LABEL where it has none."""
        source, within = self._place(index)
        return source.read(within)

    def image_name(self, index: int) -> str:
        """Return the name that the image has in its source."""
        source, within = self._place(index)
        return source.image_name(within)

    def mark_bad(self, index: int) -> None:
        """Remember that the image cannot be decoded."""
        source, within = self._place(index)
        source.mark_bad(within)

    def is_bad(self, index: int) -> bool:
        """Return whether the image is known to be bad."""
        source, within = self._place(index)
        return source.is_bad(within)

    def bad_images(self) -> tuple[str, ...]:
        """Return the names of the images skipped so far, in order."""
        return tuple(name for source in self.sources for name in source.bad_images())

    def left_out(self) -> str:
        """Return how many files are not used, for each source and reason."""
        return "; ".join(text for source in self.sources if (text := source.left_out()))

    def _place(self, index: int) -> tuple[Source, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        source = self.sources[number]
        return source, index - int(self._ends[number]) + len(source)


def _files_below(folder: str) -> Iterator[str]:
    """Yield the paths of the files of a folder and of the folders within, a folder once however it is linked."""
    visited: set[str] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        if (real := os.path.realpath(place)) in visited:
            continue
        visited.add(real)
        try:
            with os.scandir(place) as entries:
                # Sorted, so that of two links to a folder the same one is taken on every machine.
                visible = sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda e: e.name)
        except OSError as error:
            within = "" if place == folder else f" ({printable(place)})"
            reason = (error.strerror or str(error)).lower()
            raise UserError(f"unlabelled folder {printable(folder)!r} cannot be read{within}: {reason}") from None
        waiting += [entry.path for entry in reversed(visible) if entry.is_dir()]
        yield from (entry.path for entry in visible if not entry.is_dir())
