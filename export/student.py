"""What a finished run hands to the export: the student, and the images that it was trained and evaluated on."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from bottlefit_jax import data, models
from bottlefit_jax.errors import UserError
from bottlefit_jax.training import checkpoint


@dataclasses.dataclass(frozen=True)
class Student:
    """A finished student.

    Attributes:
        module: in float32, whatever it was trained in.
        variables: NumPy arrays.
        meta: what was saved beside them: name, options, num_classes, bottleneck, labels, mean, std, digest.
        dataset: the dataset's part of the run's config.
        image_size: side of its square images, pixels.
    """

    module: models.Network
    variables: dict[str, Any]
    meta: dict[str, Any]
    dataset: dict[str, Any]
    image_size: int


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


def read_student(workdir: Path) -> Student:
    """The student that a run left in its workdir.

    Raises:
        UserError: there is no run, or it has no finished student.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir} holds no run: --workdir is the one of `python -m bottlefit_jax.main`")
    try:
        config = json.loads(path.read_text())
    except ValueError:
        raise UserError(f"{path} is damaged, so the images of the run are not known") from None
    if not (workdir / "student").is_dir():
        raise UserError(f"{workdir} holds no finished student: {_what_makes_one(config, workdir)}")
    variables, meta = checkpoint.load_variables(workdir / "student")
    module = models.create(
        meta["name"],
        num_classes=meta["num_classes"],
        bottleneck=meta["bottleneck"],
        dtype=jnp.float32,
        **meta["options"],
    )
    return Student(module, variables, meta, config["dataset"], meta["image_size"])


def _what_makes_one(config: dict[str, Any], workdir: Path) -> str:
    """What a person does to get the student of a run that has none."""
    stages = [name for name in ("stage1", "stage2") if config["stages"][name]["epochs"]]
    if stages or config["student"]["weights"]:
        return "the command that began the run goes on from where it stopped"
    given = config["teacher"]["weights"] or workdir / "teacher"
    weights = f" and --config.teacher.weights={given}" if Path(given).is_dir() else ""
    return (
        "its stage1 and stage2 have 0 epochs, so that the run has a teacher alone; train a student in another "
        f"--workdir, with epochs above 0{weights}"
    )


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
