"""The student that a finished run left in its workdir."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from bottlefit_jax import models
from bottlefit_jax.errors import UserError
from bottlefit_jax.experiment.measurements import ANSWERS
from bottlefit_jax.training import checkpoint
from bottlefit_jax.training.network_meta import NetworkMeta


@dataclasses.dataclass(frozen=True)
class Student:
    """A finished student.

    Attributes:
        module: in float32, whatever the training computed in.
        variables: NumPy arrays.
        meta: description of the variables: the network's name, its options, classes and bottleneck, and more.
        dataset: the section `dataset` of the run's config.
        image_size: side of its square images, in pixels.
        answers: the teacher's classes of the evaluation images, where these have no labels; else None.
    """

    module: models.Network
    variables: dict[str, Any]
    meta: NetworkMeta
    dataset: dict[str, Any]
    image_size: int
    answers: tuple[int, ...] | None = None


def read_student(workdir: Path) -> Student:
    """Read the student that a run left in its workdir.

    Raises:
        UserError: there is no run, or it has no finished student.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir} holds no run: --workdir is that of `python -m bottlefit_jax.main`")
    try:
        config = json.loads(path.read_text())
    except ValueError:
        raise UserError(f"{path} is damaged: it is not JSON, so the images of the run are not known") from None
    if not (workdir / "student").is_dir():
        raise UserError(f"{workdir} holds no finished student: {_how_to_get_one(config, workdir)}")
    variables, meta = checkpoint.load_variables(workdir / "student")
    module = models.create(
        meta.name,
        num_classes=meta.num_classes,
        bottleneck=meta.bottleneck,
        dtype=jnp.float32,
        **meta.options,
    )
    return Student(module, variables, meta, config["dataset"], meta.image_size, _answers(workdir))


def _answers(workdir: Path) -> tuple[int, ...] | None:
    path = workdir / ANSWERS
    return tuple(json.loads(path.read_text())) if path.is_file() else None


def _how_to_get_one(config: dict[str, Any], workdir: Path) -> str:
    """Return how the user gets a student from a run that has none."""
    stages = [name for name in ("stage1", "stage2") if config["stages"][name]["epochs"]]
    if stages or config["student"]["weights"]:
        return "the command that began the run continues where it stopped"
    given = config["teacher"]["weights"] or workdir / "teacher"
    weights = f" and --config.teacher.weights={given}" if Path(given).is_dir() else ""
    return (
        "its stage1 and stage2 have 0 epochs, so the run only has a teacher; train a student in another "
        f"--workdir, with epochs above 0{weights}"
    )
