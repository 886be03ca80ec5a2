"""The inputs of an experiment, opened before anything is compiled: networks, stages, workdir.

Nearly every mistake in a config is reported here, as one line.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from bottlefit_jax import data, lock, models
from bottlefit_jax.config_check import NO_TEACHER
from bottlefit_jax.errors import UserError, write_error
from bottlefit_jax.files import write_text
from bottlefit_jax.recipe import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Config,
    base_config,
    bottleneck_options,
    differences,
    has_new_classifier,
    has_student,
    has_teacher,
    model_options,
    needs_labels,
    trains,
)
from bottlefit_jax.training import checkpoint
from bottlefit_jax.training.network_meta import NetworkMeta
from bottlefit_jax.training.stages import STAGES, Role, Stage, StageSettings, create_stage

Variables = dict[str, Any]
Module = Any  # a models.Network, or None where a run has no such network


@dataclasses.dataclass(frozen=True)
class Networks:
    """The networks of an experiment: a teacher, a student, or both.

    Attributes:
        name: of the backbone, for `models.create`.
        options: of the backbone, likewise.
        teacher: a module; None where the run has no teacher.
        student: a module; None where the run has no student.
        teacher_variables: read from a folder, or None where the teacher is to be trained.
        teacher_body: read from a folder, where a new classifier is to be trained on it; else None.
        student_variables: read from a folder, or None where the student is to be trained.
        bottleneck: the student's options; None without a student.
        mean: of the images' channels, for `normalise`: the config's, or what the weights were trained with.
        std: likewise.
        num_classes: of both networks.
        labels: the names of each class of the logits; () where they are unknown.
        train_indices: columns of the logits that are the training images' classes; None where they are all of them, in
            order, or no stage learns from them.
        class_indices: columns of the logits that are the dataset's classes; None where they are all of them, in order.
        steps: that a student is trained for, in units of the latent; () where it is not trained for rates.
    """

    name: str
    options: dict[str, Any]
    teacher: Module
    student: Module
    teacher_variables: Variables | None
    teacher_body: Variables | None
    student_variables: Variables | None
    bottleneck: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    labels: tuple[tuple[str, ...], ...]
    train_indices: tuple[int, ...] | None
    class_indices: tuple[int, ...] | None
    steps: tuple[float, ...] = ()

    def training_module(self, role: Role) -> Module:
        """Return the network as it is trained: a student for rates has its steps."""
        return self.teacher if role is Role.TEACHER else self.student.clone(steps=self.steps)

    def module(self, role: Role) -> Module:
        """Return one of the two networks; None where the run has no such network."""
        return self.teacher if role is Role.TEACHER else self.student


def stages_to_run(config: Config) -> tuple[str, ...]:
    """Return the names of the stages that train something."""
    return tuple(name for name in STAGES if trains(config, name))


def stage_settings(config: Config, name: str) -> StageSettings:
    """Read what `config.stages` sets for one stage."""
    settings = config.stages[name].to_dict()
    return StageSettings(
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        loss=settings.get("loss"),
        freeze_encoder=settings.get("freeze_encoder", False),
        fixed_norms=settings.get("fixed_norms", False),
        loss_options={**settings, "rate_weight": config.student.rate.weight},
    )


def create_stages(config: Config, networks: Networks) -> dict[str, Stage]:
    """Create every stage whose network the run has, so that a mistake in any of them shows before the first one runs.

    Raises:
        UserError: see `stages.create_stage`; or a stage needs a teacher or labels and there are none.
    """
    update = config.frozen_statistics == "update"
    stages = {
        name: create_stage(name, stage_settings(config, name), module, update_statistics=update)
        for name, declaration in STAGES.items()
        if networks.module(declaration.network) is not None
        and (module := networks.training_module(declaration.network)) is not None
    }
    if networks.teacher is None and any(stages[name].needs_teacher for name in stages_to_run(config)):
        raise UserError(NO_TEACHER)
    _check_auxiliary_heads(config, networks, stages)
    return stages


def _check_auxiliary_heads(config: Config, networks: Networks, stages: dict[str, Stage]) -> None:
    """Raise UserError where auxiliary heads, which learn from labels, are trained in a stage that does without these.

    Images of another dataset than the evaluation's have no labels here either: their classes were not looked up.
    """
    chosen = config.dataset
    if chosen.name and not chosen.unlabelled and not chosen.eval_name:
        return
    for name in stages_to_run(config):
        heads = {head.part for head in networks.module(stages[name].network).auxiliary_heads}
        if heads.isdisjoint(stages[name].terms) or needs_labels(config, name):
            continue
        remedy = f"config.stages.{name}.alpha must be above 0" if chosen.name else "it must be another design"
        raise UserError(
            f"config.student.bottleneck.design is {networks.bottleneck['design']!r}, which has a classifier on the "
            f"device that learns from labels, and {name} learns from the teacher alone; {remedy}, or "
            f"config.stages.{name}.epochs 0"
        )


def needs_calibration(student_variables: Variables | None) -> bool:
    """Return whether these variables have a static range that has not been measured yet."""
    ranges = jax.tree.leaves((student_variables or {}).get("ranges", {}))
    return bool(ranges) and not any(np.any(leaf) for leaf in ranges)


def create_networks(
    config: Config, class_names: Sequence[str] | None, train_names: Sequence[str] | None = None
) -> Networks:
    """Build teacher and student, and read the weights that the config names.

    Args:
        config: of the run.
        class_names: of the evaluation images; None where these have no labels.
        train_names: of the training images; None where no stage learns from their labels.

    Raises:
        UserError: an unknown model, feature or option; weights of another model; classes that do not match.
    """
    teacher_variables, teacher_meta = _load(config.teacher.weights, "teacher")
    student_variables, student_meta = _load(config.student.weights, "student")
    metas = {config[key].weights: meta for key, meta in (("teacher", teacher_meta), ("student", student_meta)) if meta}
    name, options = _backbone(config, metas)
    own = tuple((train_names if train_names is not None else class_names) or ())
    num_classes, labels = len(own), tuple((name,) for name in own)
    if metas and not has_new_classifier(config):
        num_classes = _consistent("num_classes", metas)
        labels = next(iter(metas.values())).labels
    if config.teacher.labels:
        labels = data.read_labels(config.teacher.labels)
    created = {**options, "num_classes": num_classes, "dtype": jnp.dtype(config.compute_dtype)}
    teacher = models.create(name, **created) if has_teacher(config) else None
    bottleneck = student = None
    if has_student(config):
        bottleneck = bottleneck_options(config, student_meta.bottleneck if student_meta else None)
        student = models.create(name, bottleneck=bottleneck, **created)
    body = None
    if has_new_classifier(config) and teacher_variables is not None and teacher_meta is not None:
        given = models.create(name, **{**created, "num_classes": teacher_meta.num_classes})
        body, teacher_variables = _validate_variables(teacher_variables, given, config, config.teacher.weights), None
    if teacher is not None and teacher_variables is not None:
        teacher_variables = _validate_variables(teacher_variables, teacher, config, config.teacher.weights)
    if student is not None and student_variables is not None:
        student_variables = _validate_variables(student_variables, student, config, config.student.weights)
    return Networks(
        name=name,
        options=options,
        teacher=teacher,
        student=student,
        teacher_variables=teacher_variables,
        teacher_body=body,
        student_variables=student_variables,
        bottleneck=bottleneck,
        mean=tuple(config.dataset.mean or _consistent("mean", metas) or IMAGENET_MEAN),
        std=tuple(config.dataset.std or _consistent("std", metas) or IMAGENET_STD),
        num_classes=num_classes,
        labels=labels,
        train_indices=None
        if train_names is None
        else _class_columns(train_names, labels, num_classes, own=bool(metas)),
        class_indices=_class_columns(class_names, labels, num_classes, own=bool(metas)),
        steps=tuple(map(float, config.student.rate.steps))
        if student is not None and config.student.rate.weight
        else (),
    )


def _class_columns(
    class_names: Sequence[str] | None, labels: Any, num_classes: int, *, own: bool
) -> tuple[int, ...] | None:
    """Call `data.class_columns`, and suggest a new classifier for classes that the weights do not have.

    All columns count where there are no classes, but the labels must be as many as the network has classes.
    """
    if not class_names and not labels:
        return None
    try:
        return data.class_columns(class_names or (), labels, num_classes) or None
    except UserError as error:
        hint = "; to teach the weights your own classes, give --config=own_classes" if own else ""
        raise UserError(f"{error}{hint}") from error


def _load(folder: str, kind: str) -> tuple[Variables | None, NetworkMeta | None]:
    """Return a folder's variables and description, its options complete; (None, None) without a folder."""
    if not folder:
        return None, None
    variables, meta = checkpoint.load_variables(Path(folder))
    if (meta.bottleneck is None) != (kind == "teacher"):
        other = "student" if kind == "teacher" else "teacher"
        raise UserError(f"{folder} holds a {other}; config.{kind}.weights needs the folder of a {kind}")
    options = dict(models.create(meta.name, **meta.options).options)
    return variables, dataclasses.replace(meta, options=options)


def _backbone(config: Config, metas: dict[str, NetworkMeta]) -> tuple[str, dict[str, Any]]:
    """Name and options: those of the weights, which the config may repeat but not contradict."""
    name, options = config.teacher.name, model_options(config)
    for folder, meta in metas.items():
        if name and meta.name != name:
            raise UserError(
                f"{folder} holds a {meta.name}, not config.teacher.name {name!r}; "
                "--config.teacher.name= takes what the weights are of"
            )
        for key, value in options.items():
            if key in meta.options and meta.options[key] != value:
                raise UserError(f"{folder} has {key}={meta.options[key]!r}, not config.teacher.options.{key} {value!r}")
    return _consistent("name", metas) or name, {**(_consistent("options", metas) or {}), **options}


def _consistent(key: str, metas: dict[str, NetworkMeta]) -> Any:
    """Return the value of `key` in the descriptions of all folders, which must be the same; None without folders."""
    values = {folder: getattr(meta, key) for folder, meta in metas.items()}
    if len({repr(value) for value in values.values()}) > 1:
        listed = " and ".join(f"{value!r} in {folder}" for folder, value in values.items())
        raise UserError(f"the weights of teacher and student do not belong together: {key} is {listed}")
    return next(iter(values.values()), None)


def _validate_variables(variables: Variables, module: models.Network, config: Config, folder: str) -> Variables:
    """Return the variables if they are this network's; a calibrated range may be missing, as it is measured anyway."""
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
            f"{folder} does not fit the config's {module.spec.name}: {len(wrong)} arrays differ, first {first} "
            f"({shapes[0].get(first, 'missing')} there, {shapes[1].get(first, 'nothing')} in the network)"
        )
    return given


@contextlib.contextmanager
def hold_workdir(workdir: Path) -> Iterator[None]:
    """Lock the workdir against other runs; of several hosts' processes the first one locks it for all.

    Raises:
        UserError: another process trains there, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        problem = None
        if jax.process_index() == 0:
            try:
                stack.enter_context(lock.hold(workdir / ".lock", workdir, hint=", or give another --workdir"))
            except UserError as error:
                problem = error
        if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.int32(problem is not None)):
            problem = problem or UserError(f"process 0 cannot lock {workdir}; its own message says why")
        if problem is not None:
            raise problem
        yield


def claim_workdir(workdir: Path, config: Config) -> None:
    """Write the config into the workdir, or check that the config there is the same.

    Raises:
        UserError: it holds a run of another config, or cannot be written.
    """
    path = workdir / "config.json"
    ours = json.loads(json.dumps(config.to_dict()))
    if path.exists():
        try:
            theirs = json.loads(path.read_text())
        except (ValueError, OSError):  # also text that is not UTF-8
            raise UserError(f"{path} is damaged: remove {workdir}, or give another --workdir") from None
        defaults = json.loads(json.dumps(base_config().to_dict()))
        if different := differences(ours, _completed(theirs, defaults)):
            more = f" and {len(different) - 3} more" if len(different) > 3 else ""
            raise UserError(
                f"{workdir} holds a run of another config ({'; '.join(different[:3])}{more}): "
                "give another --workdir, or remove that one"
            )
        return
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(path, error) from error
        write_text(path, json.dumps(ours, indent=2) + "\n")


def _completed(given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return an older config with the keys that were added since; their defaults do not change what it trains."""
    out = {**defaults, **given}
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(defaults.get(key), dict):
            out[key] = _completed(value, defaults[key])
    return out
