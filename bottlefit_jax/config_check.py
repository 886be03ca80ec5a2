"""Checks of a config that need nothing opened: which values are valid, and which of them go together."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import (
    PATHS,
    STAGES,
    Config,
    base_config,
    evaluates_agreement,
    has_new_classifier,
    has_student,
    has_teacher,
    look_up,
    needs_labels,
    path_at,
    trains,
    unlabelled_folders,
)

CHOICES = {
    "dataset.on_bad_image": ("error", "skip"),
    "dataset.worker_type": ("thread", "process"),
    "student.stem": ("teacher", "random"),
    "teacher.classifier": ("given", "new"),
    "student.bottleneck.per": (None, "image", "batch", "channel"),
    "student.bottleneck.range": (None, "dynamic", "static"),
    "frozen_statistics": ("fixed", "update"),
    "compute_dtype": ("float32", "bfloat16"),
    "checkpoint.select": ("last", "best"),
    **{f"stages.{stage}.optimizer": ("adam", "sgd") for stage in STAGES},
    **{f"stages.{stage}.schedule": ("multistep", "cosine", "constant") for stage in STAGES},
}
AT_LEAST = {
    "seed": 0,
    "dataset.image_size": 0,
    "dataset.resize": 0,
    "dataset.workers": 0,
    "student.calibration_images": 1,
    "student.rate.weight": 0,
    "eval_batch_size": 1,
    "evaluate_every": 1,
    "checkpoint.every_steps": 0,
    **{f"stages.{stage}.epochs": 0 for stage in STAGES},
    **{f"stages.{stage}.batch_size": 1 for stage in STAGES},
    **{f"stages.{stage}.weight_decay": 0 for stage in STAGES},
    **{f"stages.{stage}.warmup_epochs": 0 for stage in STAGES},
}
# Which numbers are valid, as a condition and in words.
STAGE_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "learning_rate": (lambda value: value > 0, "above 0"),
    "momentum": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "gamma": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "label_smoothing": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "alpha": (lambda value: 0 <= value <= 1, "from 0 to 1"),
    "temperature": (lambda value: value > 0, "above 0"),
}
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "seed": (lambda value: value <= 2**30, "at most 2**30"),  # JAX's random keys take 32 bits
    **{
        f"stages.{stage}.{key}": valid
        for stage, settings in base_config().stages.items()
        for key, valid in STAGE_RANGES.items()
        if key in settings
    },
}
NO_TEACHER = "there is no teacher: set config.teacher.weights to a folder, or config.stages.teacher.epochs above 0"


def check_config(config: Config) -> None:
    """Raise UserError for an invalid value, before anything is opened or compiled."""
    for path, allowed in CHOICES.items():
        if (value := look_up(config, path)) not in allowed:
            words = " or ".join(repr(word) for word in allowed if word is not None)
            raise UserError(f"config.{path} is {value!r}; it can be {words}")
    for path, value in _leaves(config.to_dict()):
        if any(isinstance(one, float) and not math.isfinite(one) for one in _items(value)):
            raise UserError(f"config.{path} is {value}; it must be finite")
    for path, least in AT_LEAST.items():
        if (value := look_up(config, path)) < least:
            raise UserError(f"config.{path} is {value}; it must be at least {least}")
    for path, (is_valid, words) in RANGES.items():
        if not is_valid(value := look_up(config, path)):
            raise UserError(f"config.{path} is {value}; it must be {words}")
    steps = tuple(config.student.rate.steps)
    if not steps or not _are_numbers(steps) or not all(step > 0 for step in steps):
        raise UserError(f"config.student.rate.steps is {steps}; it must hold numbers above 0, such as (1.0, 2.0)")
    _check_pixels(config.dataset)
    for stage in STAGES:
        _check_milestones(stage, config.stages[stage].milestones)
    for path in PATHS:
        path_at(config, path)
    _check_datasets(config)
    if not has_teacher(config) and not config.student.weights:
        raise UserError(NO_TEACHER)
    if has_new_classifier(config):
        _check_new_classifier(config)
    if not (config.teacher.name or config.teacher.weights or config.student.weights):
        raise UserError("config.teacher.name is empty, and there are no weights to take it from")
    if not config.dataset.image_size:
        raise UserError(
            "config.dataset.image_size is 0, and there are no weights to take it from; it must be at least 1"
        )


def _check_new_classifier(config: Config) -> None:
    """Raise UserError where a new classifier has no body or no epochs, or where another classifier is given too."""
    new = "config.teacher.classifier is 'new'"
    if not config.teacher.weights:
        raise UserError(f"{new}: set config.teacher.weights to the folder of the network that it belongs to")
    if not config.stages.teacher.epochs:
        raise UserError(f"{new} and config.stages.teacher.epochs is 0; a new classifier must be trained")
    if config.teacher.labels:
        raise UserError(f"{new}, so its classes are the dataset's; leave config.teacher.labels out")
    if config.student.weights:
        raise UserError(f"{new}, but config.student.weights has a classifier already; give one of the two")


def _check_datasets(config: Config) -> None:
    """Raise UserError where images or labels are asked for that no dataset has."""
    chosen, stages = config.dataset, [stage for stage in STAGES if trains(config, stage)]
    unlabelled_folders(config)
    if chosen.eval_root and not chosen.eval_name:
        raise UserError(
            f"config.dataset.eval_root is {chosen.eval_root!r} and config.dataset.eval_name is empty; it must be the "
            "name of a dataset, such as 'folder'"
        )
    if chosen.name:
        return
    empty = "config.dataset.name is empty"
    for stage in stages:
        if needs_labels(config, stage):
            alone = ""
            if stage == "stage2":
                alone = ", or config.stages.stage2.alpha=0 to learn from the teacher alone"
                if config.stages.stage2.loss != "distillation":
                    alone += ", with config.stages.stage2.loss='distillation'"
            raise UserError(
                f"{empty}, so there are no labels, and config.stages.{stage}.epochs is {config.stages[stage].epochs}; "
                f"it must be 0 without labels{alone}"
            )
    if not chosen.unlabelled and (stages or not chosen.eval_name):
        raise UserError(f"{empty}, and so is config.dataset.unlabelled; one of them must name images to train on")
    if evaluates_agreement(config) and not config.teacher.weights:
        raise UserError(
            f"{empty}, so the student is compared with its teacher, and config.teacher.weights is empty; it must be a "
            "folder, or config.dataset.eval_name a dataset with labels"
        )
    if evaluates_agreement(config) and not has_student(config):
        raise UserError(f"{empty}, and there is no student to compare with its teacher: a teacher needs labels")


def _check_pixels(dataset: Config) -> None:
    """Raise UserError for an invalid size, crop or normalisation of the images."""
    if dataset.resize and dataset.resize < dataset.image_size:
        raise UserError(
            f"config.dataset.resize is {dataset.resize}, too small to cut {dataset.image_size} x {dataset.image_size} "
            f"from it; it must be 0 or at least config.dataset.image_size"
        )
    scale = tuple(dataset.crop_scale)
    if len(scale) != 2 or not _are_numbers(scale) or not 0 < scale[0] <= scale[1] <= 1:
        raise UserError(
            f"config.dataset.crop_scale is {scale}; it must be two shares of the area, 0 < a <= b <= 1, as 0.08,1"
        )
    for key, is_valid, words in (
        ("mean", lambda value: 0 <= value <= 1, "from 0 to 1"),
        ("std", lambda value: 0 < value <= 1, "above 0 and at most 1"),
    ):
        values = tuple(dataset[key])
        if len(values) not in (0, 3) or not _are_numbers(values):
            raise UserError(f"config.dataset.{key} is {values}; it needs three numbers, for red, green and blue")
        if not all(map(is_valid, values)):
            hint = ", so divide them by 255" if max(values) > 1 else ""
            raise UserError(
                f"config.dataset.{key} is {values}; each must be {words}: images are scaled to 0..1 first{hint}"
            )


def _check_milestones(stage: str, milestones: Any) -> None:
    values = tuple(milestones)
    whole = all(isinstance(epoch, int) and epoch >= 1 for epoch in values)
    if not whole or list(values) != sorted(set(values)):
        raise UserError(
            f"config.stages.{stage}.milestones is {values}; it must be epochs from 1 up, each later than the one before"
        )


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a config, as a dictionary, with its dotted path."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _items(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _are_numbers(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
