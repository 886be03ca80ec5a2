"""What an experiment opens before anything is compiled: its pictures, its networks, its workdir.

Nearly every mistake in a config shows here, as one line.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bottlefit_jax import data, models
from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import Config, bottleneck_options, differences
from bottlefit_jax.training import checkpoint, stages

Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Networks:
    """The pair of an experiment.

    Attributes:
      teacher, student: modules.
      teacher_variables: read from a folder, or None where the teacher is to be trained.
      student_variables: likewise.
      num_classes: of both.
      labels: for each class that the logits stand for, its names; () where nobody knows them.
      class_indices: columns of the logits that are the dataset's classes; None where they are all of them, in order.
    """

    teacher: nn.Module
    student: nn.Module
    teacher_variables: Variables | None
    student_variables: Variables | None
    num_classes: int
    labels: tuple[tuple[str, ...], ...]
    class_indices: tuple[int, ...] | None


def stages_to_run(config: Config) -> tuple[str, ...]:
    """Names of the stages that train something: not the teacher's where weights are given, none of 0 epochs."""
    given = ("teacher",) if config.teacher.weights else ()
    return tuple(name for name in stages.STAGES if name not in given and config.stages[name].epochs)


def open_sources(config: Config) -> tuple[data.Source, data.Source]:
    """The training and evaluation pictures.

    Raises:
      UserError: see `data.open_source` and `data.check_images`; or the two splits have different classes.
    """
    options = {"root": config.dataset.root, "on_bad_image": config.dataset.on_bad_image}
    train, val = (data.open_source(config.dataset.name, split=split, **options) for split in ("train", "val"))
    if train.class_names != val.class_names:
        odd = sorted({*train.class_names} ^ {*val.class_names})
        raise UserError(f"training and evaluation pictures have different classes: {', '.join(odd[:5])}")
    for name in stages_to_run(config):
        data.steps_per_epoch(train, config.stages[name].batch_size)
    for source in (train, val):
        data.check_images(source)
    return train, val


def create_networks(config: Config, class_names: Sequence[str]) -> Networks:
    """Builds teacher and student, and reads the weights that the config names.

    Raises:
      UserError: an unknown model, feature or option; weights of another model; classes that do not fit.
    """
    teacher_variables = student_variables = None
    labels = tuple((name,) for name in class_names)
    num_classes = len(class_names)
    if config.teacher.weights:
        teacher_variables, meta = checkpoint.load_variables(Path(config.teacher.weights))
        if meta["name"] != config.teacher.name:
            raise UserError(
                f"{config.teacher.weights} holds a {meta['name']}, not config.teacher.name {config.teacher.name!r}"
            )
        num_classes, labels = meta["num_classes"], tuple(tuple(names) for names in meta["labels"])
    if config.teacher.labels:
        labels = data.read_labels(config.teacher.labels)
    options = {**config.teacher.options.to_dict(), "dtype": jnp.dtype(config.compute_dtype)}
    options["num_classes"] = num_classes
    teacher = models.create(config.teacher.name, **options)
    student = models.create(config.teacher.name, bottleneck=bottleneck_options(config), **options)
    if teacher_variables is not None:
        teacher_variables = _fitted(teacher_variables, teacher, config, config.teacher.weights)
    if config.student.weights:
        student_variables, _ = checkpoint.load_variables(Path(config.student.weights))
        student_variables = _fitted(student_variables, student, config, config.student.weights)
    return Networks(
        teacher=teacher,
        student=student,
        teacher_variables=teacher_variables,
        student_variables=student_variables,
        num_classes=num_classes,
        labels=labels,
        class_indices=_class_indices(class_names, labels, num_classes),
    )


def _fitted(variables: Variables, module: nn.Module, config: Config, folder: str) -> Variables:
    """The variables, seen to be this network's; a calibrated range may be missing, as it is measured anyway."""
    size = config.dataset.image_size
    wanted = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    ranges = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), wanted.get("ranges", {}))
    given = {**({"ranges": ranges} if ranges else {}), **{key: variables[key] for key in variables if key in wanted}}
    shapes = [
        {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (given, wanted))
    ]
    wrong = [name for name in sorted({*shapes[0], *shapes[1]}) if shapes[0].get(name) != shapes[1].get(name)]
    if wrong:
        first = wrong[0]
        raise UserError(
            f"{folder} does not fit the config's {config.teacher.name}: {len(wrong)} arrays differ, first {first} "
            f"({shapes[0].get(first, 'missing')} there, {shapes[1].get(first, 'nothing')} in the network)"
        )
    return given


def _class_indices(
    class_names: Sequence[str], labels: Sequence[Sequence[str]], num_classes: int
) -> tuple[int, ...] | None:
    if [(name,) for name in class_names] == list(labels) and len(labels) == num_classes:
        return None
    if not labels:
        if len(class_names) == num_classes:
            return None
        raise UserError(
            f"the teacher has {num_classes} classes and the dataset {len(class_names)}: "
            "set config.teacher.labels to a file with the teacher's class names, one a line"
        )
    if len(labels) != num_classes:
        raise UserError(f"config.teacher.labels has {len(labels)} names for a teacher of {num_classes} classes")
    return tuple(int(index) for index in data.match_labels(class_names, labels))


def claim_workdir(workdir: Path, config: Config) -> None:
    """Makes the workdir this config's, or sees that it is.

    Raises:
      UserError: it holds a run of another config, or cannot be written.
    """
    path = workdir / "config.json"
    ours = json.loads(json.dumps(config.to_dict()))
    if path.exists():
        try:
            theirs = json.loads(path.read_text())
        except json.JSONDecodeError:
            raise UserError(f"{path} is damaged: remove {workdir}, or give another --workdir") from None
        if different := differences(ours, theirs):
            more = f" and {len(different) - 3} more" if len(different) > 3 else ""
            raise UserError(
                f"{workdir} holds a run of another config ({'; '.join(different[:3])}{more}): "
                "give another --workdir, or remove that one"
            )
        return
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(ours, indent=2) + "\n")
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
