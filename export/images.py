"""The images that a finished run was trained and evaluated on, as its network sees them."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bottlefit_jax import data
from bottlefit_jax.errors import UserError
from export.student import Student


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images of one split, as the network gets them.

    Attributes:
        images: uint8 [N, H, W, 3], RGB.
        labels: int32 [N], positions in `class_names`.
        names: of the images: a path in the dataset's folder, or the dataset's own name.
        class_names: of the dataset.
    """

    images: np.ndarray
    labels: np.ndarray
    names: list[str]
    class_names: tuple[str, ...]

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yield the images, uint8 [B, H, W, 3], at most `size` at a time."""
        for start in range(0, len(self.images), size):
            yield self.images[start : start + size]


def read_images(student: Student, split: str, *, limit: int | None, root: Path | None = None) -> ImageSet:
    """Read images of one split, resized and cropped as in the run's evaluation.

    Args:
        student: of the run whose dataset is read.
        split: 'train' or 'val'.
        limit: at most this many, spread evenly over the split; None: all.
        root: where the data is now; None: where the run had it.

    Raises:
        UserError: the data is missing, or no image of it can be read.
    """
    dataset = student.dataset
    place = dataset["root"] if root is None else str(root)
    source = data.open_source(dataset["name"], split=split, root=place, on_bad_image=dataset["on_bad_image"])
    images, labels, masks = [], [], []
    for batch in data.eval_batches(
        source, batch_size=32, image_size=student.image_size, resize=dataset["resize"] or None, limit=limit
    ):
        masks.append(batch["mask"])
        images.append(batch["image"][batch["mask"]])
        labels.append(batch["label"][batch["mask"]])
    readable = np.concatenate(masks)
    chosen = [index for index, kept in zip(data.spread(len(source), limit), readable, strict=False) if kept]
    folder = os.path.join(place, "")
    names = [source.image_name(index).removeprefix(folder) for index in chosen]
    if not names:
        raise UserError(f"no image of {dataset['name']}/{split} can be read")
    return ImageSet(np.concatenate(images), np.concatenate(labels), names, source.class_names)
