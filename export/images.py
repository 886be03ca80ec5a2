"""The images that a finished run was trained and evaluated on, as its network sees them."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
        class_names: of the dataset; () where the labels are the teacher's answers, classes of the network.
    """

    images: np.ndarray
    labels: np.ndarray
    names: list[str]
    class_names: tuple[str, ...]

    @property
    def agreement(self) -> bool:
        """Whether what is called top-1 is agreement with the teacher, because its answers are the labels."""
        return not self.class_names

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
    source = _open(dataset, split, root)
    if split == "val" and isinstance(source, data.Unlabelled):
        if student.answers is None or len(student.answers) != len(source):
            count = "no" if student.answers is None else len(student.answers)
            raise UserError(
                f"the run has {count} answers of its teacher for {len(source)} images without labels; it must have one "
                "for each: run the training command again, which writes them"
            )
        source = source.with_labels(np.asarray(student.answers), ())
    images, labels, masks = [], [], []
    for batch in data.eval_batches(
        source, batch_size=32, image_size=student.image_size, resize=dataset["resize"] or None, limit=limit
    ):
        masks.append(batch["mask"])
        images.append(batch["image"][batch["mask"]])
        labels.append(batch["label"][batch["mask"]])
    readable = np.concatenate(masks)
    chosen = [index for index, kept in zip(data.spread(len(source), limit), readable, strict=False) if kept]
    place = dataset["root"] if root is None else str(root)
    folder = os.path.join(place, "")
    names = [source.image_name(index).removeprefix(folder) for index in chosen]
    if not names:
        raise UserError(f"no image of {source.name}/{split} can be read")
    return ImageSet(np.concatenate(images), np.concatenate(labels), names, source.class_names)


def _open(dataset: Mapping[str, Any], split: str, root: Path | None) -> data.Source:
    """Open the images of one split; `root` replaces the folder from which they come."""
    keys = ("unlabelled", "eval_name", "eval_root")  # older runs have none of them
    chosen = {"name": dataset["name"], "root": dataset["root"], **{key: dataset[key] for key in keys if key in dataset}}
    if root is not None and split == "val" and chosen.get("eval_name"):
        chosen["eval_root"] = str(root)
    elif root is not None and chosen["name"]:
        chosen["root"] = str(root)
    elif root is not None:
        chosen["unlabelled"] = (str(root),)
    return data.open_images(split, on_bad_image=dataset["on_bad_image"], **chosen)
