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
    """ImageSet of one split as the network sees them.

    Attributes:
        images: uint8 [N, H, W, 3], RGB.
        labels: int32 [N], positions in `class_names`.
        names: of each, as a person would look for it.
        class_names: of the dataset.
    """

    images: np.ndarray
    labels: np.ndarray
    names: list[str]
    class_names: tuple[str, ...]

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """The images, `size` at a time."""
        for start in range(0, len(self.images), size):
            yield self.images[start : start + size]


def read_images(student: Student, split: str, *, limit: int | None, root: Path | None = None) -> ImageSet:
    """ImageSet of one split, resized and cropped as in the run's evaluation.

    Args:
        student: whose run says which data.
        split: 'train' or 'val'.
        limit: so many, spread evenly over the split; None: all.
        root: where the data lies now, if not where it lay then.

    Raises:
        UserError: the data is not there, or no image of it can be read.
    """
    dataset = student.dataset
    place = dataset["root"] if root is None else str(root)
    source = data.open_source(
        dataset["name"],
        split=split,
        root=place,
        on_bad_image=dataset["on_bad_image"],
    )
    images, labels, masks = [], [], []
    for batch in data.eval_batches(
        source, batch_size=32, image_size=student.image_size, resize=dataset["resize"] or None, limit=limit
    ):
        masks.append(batch["mask"])
        images.append(batch["image"][batch["mask"]])
        labels.append(batch["label"][batch["mask"]])
    kept = np.concatenate(masks)
    chosen = [index for index, good in zip(data.spread(len(source), limit), kept, strict=False) if good]
    folder = os.path.join(place, "")
    names = [source.image_name(index).removeprefix(folder) for index in chosen]
    if not names:
        raise UserError(f"not one image of {dataset['name']}/{split} can be read")
    return ImageSet(np.concatenate(images), np.concatenate(labels), names, source.class_names)
