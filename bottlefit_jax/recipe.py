"""The config that every experiment starts from: the reference recipe, and the only place where defaults live.

A file in `configs/` calls `base_config()`, changes what its experiment needs, and returns it. The command locks it:
a key that is not here is an error.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict, config_dict

from bottlefit_jax.errors import UserError
from bottlefit_jax.paths import PathError, local_path

Config = Any  # a ConfigDict, whose keys a type checker cannot know

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# A bottleneck where neither the config nor the student's weights say otherwise: the reference's.
BOTTLENECK = {
    "channels": 12,
    "hidden": None,
    "design": "bottlefit",
    "version": 2,
    "bits": 8,
    "cut": None,
    "per": "image",
    "range": "dynamic",
    "quantize_training": False,
}


def base_config() -> Config:
    """BottleFit's recipe for ImageNet: ResNet-152, 12 channels, distillation behind a frozen encoder, 8 bits.

    Batch 64; stage 1 Adam 1e-3, stage 2 SGD 1e-3 with momentum 0.9 and weight decay 5e-4, 10 + 10 epochs, both ×0.1
    after 5 (the reference's config/ghnd_kd/custom_resnet152_from_resnet152-12ch.yaml).
    """
    return ConfigDict(
        {
            "seed": 0,
            "dataset": {
                "name": "imagenet2012",  # digits, folder, or a TFDS classification set
                "root": "",  # the folder, or TFDS's data_dir
                "image_size": 224,  # 0: what the weights were trained with
                "resize": 0,  # short side before the centre crop of evaluation; 0: image_size × 256 / 224
                "crop_scale": (0.08, 1.0),  # RandomResizedCrop: share of the image's area
                "flip": True,
                "mean": (),  # empty, like std: what the weights were trained with, or else ImageNet's
                "std": (),
                "on_bad_image": "error",  # or "skip": leave it out and count it
                "workers": 4,
                "worker_type": "thread",  # or "process"
            },
            "teacher": {
                "name": "resnet152",  # empty: the one that the weights are of
                "options": {},  # of models.create, such as width; not set: the weights', or else the model's own
                "weights": "",  # folder of a converted or trained teacher; empty: train one
                "classifier": "given",  # or "new": keep the weights' body, and train it with the dataset's classes
                "labels": "",  # file with the names of its classes, where they are more than the dataset's
            },
            "student": {
                "weights": "",  # folder of a converted or trained student, to start from or to evaluate
                "stem": "teacher",  # the encoder begins with the teacher's first filters, where they fit; or "random"
                "bottleneck": {  # not set: what the student's weights have, or else BOTTLENECK
                    "channels": config_dict.placeholder(int),
                    "hidden": config_dict.placeholder(int),  # inner width of the decoder; 0: the model's own
                    "design": config_dict.placeholder(str),  # "patch": a cheaper encoder; see models.bottleneck
                    "version": config_dict.placeholder(int),
                    "bits": config_dict.placeholder(int),  # 0: no quantiser
                    "cut": config_dict.placeholder(str),  # feature to cut after; empty: the model's own
                    "per": config_dict.placeholder(str),  # one range for each "image" (as a device), "batch", "channel"
                    "range": config_dict.placeholder(str),  # "dynamic", or "static": calibrated once, after training
                    "quantize_training": config_dict.placeholder(bool),  # also in training, straight-through gradient
                },
                "calibration_images": 256,  # training images that set a static range
            },
            "stages": {
                "teacher": _stage(
                    epochs=90,
                    batch_size=256,
                    optimizer="sgd",
                    learning_rate=0.1,
                    weight_decay=1e-4,
                    milestones=(30, 60),
                    label_smoothing=0.0,
                ),
                "stage1": _stage(
                    optimizer="adam",
                    matched=(),  # features; empty: the model's own
                ),
                "stage2": _stage(
                    optimizer="sgd",
                    weight_decay=5e-4,
                    loss="distillation",  # or "cross_entropy"
                    alpha=0.5,  # weight of the labels in distillation
                    temperature=1.0,
                    freeze_encoder=True,
                ),
            },
            "frozen_statistics": "fixed",  # or "drift": frozen parts' batch statistics move, as in the reference
            "compute_dtype": "float32",  # or "bfloat16"; parameters and statistics stay float32
            "eval_batch_size": 64,
            "evaluate_every": 1,  # epochs from one evaluation to the next; the last epoch of a stage always has one
            "checkpoint": {
                "every_steps": 1000,  # besides the end of each epoch; 0: only there
                "select": "last",  # or "best" top-1: which weights a stage hands on
            },
        }
    )


def _stage(**changes: Any) -> dict[str, Any]:
    return {
        "epochs": 10,
        "batch_size": 64,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": "multistep",  # or cosine, constant
        "milestones": (5,),
        "gamma": 0.1,
        "warmup_epochs": 0,
        **changes,
    }


STAGES = ("teacher", "stage1", "stage2")
PATHS = ("dataset.root", "teacher.weights", "teacher.labels", "student.weights")
CHOICES = {
    "dataset.on_bad_image": ("error", "skip"),
    "dataset.worker_type": ("thread", "process"),
    "student.stem": ("teacher", "random"),
    "teacher.classifier": ("given", "new"),
    "student.bottleneck.per": (None, "image", "batch", "channel"),
    "student.bottleneck.range": (None, "dynamic", "static"),
    "frozen_statistics": ("fixed", "drift"),
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
    "eval_batch_size": 1,
    "evaluate_every": 1,
    "checkpoint.every_steps": 0,
    **{f"stages.{stage}.epochs": 0 for stage in STAGES},
    **{f"stages.{stage}.batch_size": 1 for stage in STAGES},
    **{f"stages.{stage}.weight_decay": 0 for stage in STAGES},
    **{f"stages.{stage}.warmup_epochs": 0 for stage in STAGES},
}
# Whether a number makes sense, and the words for those that do.
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "seed": (lambda value: value <= 2**30, "at most 2**30"),  # each stage has a stream of its own, of 32 bits
    **{f"stages.{stage}.learning_rate": (lambda value: value > 0, "above 0") for stage in STAGES},
    **{f"stages.{stage}.momentum": (lambda value: 0 <= value < 1, "at least 0 and below 1") for stage in STAGES},
    **{f"stages.{stage}.gamma": (lambda value: 0 < value <= 1, "above 0 and at most 1") for stage in STAGES},
    "stages.teacher.label_smoothing": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "stages.stage2.alpha": (lambda value: 0 <= value <= 1, "from 0 to 1"),
    "stages.stage2.temperature": (lambda value: value > 0, "above 0"),
}
# What a run may change without becoming another run: none of it moves a weight.
MAY_CHANGE = ("dataset.root", "dataset.workers", "dataset.worker_type", "checkpoint.every_steps", "eval_batch_size")


def check_config(config: Config) -> None:
    """Raise UserError for a value that no part of the program could use, before anything is opened or compiled."""
    for path, allowed in CHOICES.items():
        if (value := look_up(config, path)) not in allowed:
            words = " or ".join(repr(word) for word in allowed if word is not None)
            raise UserError(f"config.{path} is {value!r}; it can be {words}")
    for path, value in _leaves(config):
        if any(isinstance(one, float) and not math.isfinite(one) for one in _items(value)):
            raise UserError(f"config.{path} is {value}; it must be finite")
    for path, least in AT_LEAST.items():
        if (value := look_up(config, path)) < least:
            raise UserError(f"config.{path} is {value}; it must be at least {least}")
    for path, (possible, words) in RANGES.items():
        if not possible(value := look_up(config, path)):
            raise UserError(f"config.{path} is {value}; it must be {words}")
    _check_pixels(config.dataset)
    for stage in STAGES:
        _check_milestones(stage, config.stages[stage].milestones)
    for path in PATHS:
        _local(config, path)
    if not has_teacher(config) and (not config.student.weights or _asks_the_teacher(config)):
        raise UserError(
            "there is no teacher: set config.teacher.weights to a folder, or config.stages.teacher.epochs above 0"
        )
    if has_new_classifier(config):
        _check_new_classifier(config)
    if not (config.teacher.name or config.teacher.weights or config.student.weights):
        raise UserError("config.teacher.name is empty, and there are no weights that would tell it")
    if not config.dataset.image_size:
        raise UserError("config.dataset.image_size is 0, and no weights say what it is; it must be at least 1")


def _check_new_classifier(config: Config) -> None:
    """A new classifier needs a body, epochs to learn in, and nothing that has another one."""
    new = "config.teacher.classifier is 'new'"
    if not config.teacher.weights:
        raise UserError(f"{new}: set config.teacher.weights to the folder of the network that it belongs to")
    if not config.stages.teacher.epochs:
        raise UserError(f"{new} and config.stages.teacher.epochs is 0; a new classifier must be trained")
    if config.teacher.labels:
        raise UserError(f"{new}, so its classes are the dataset's; leave config.teacher.labels out")
    if config.student.weights:
        raise UserError(f"{new}, but config.student.weights has a classifier already; give one of the two")


def _check_pixels(dataset: Config) -> None:
    """Sizes, crops and normalisation of the images."""
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
    for key, possible, words in (
        ("mean", lambda value: 0 <= value <= 1, "from 0 to 1"),
        ("std", lambda value: 0 < value <= 1, "above 0 and at most 1"),
    ):
        values = tuple(dataset[key])
        if len(values) not in (0, 3) or not _are_numbers(values):
            raise UserError(f"config.dataset.{key} is {values}; it needs three numbers, for red, green and blue")
        if not all(map(possible, values)):
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


def expand_paths(config: Config) -> None:
    """Write the paths of `config` out where they begin with `~`.

    Raises:
        UserError: one is not a path of this machine.
    """
    for path in PATHS:
        if look_up(config, path):
            parent, _, key = path.rpartition(".")
            look_up(config, parent)[key] = _local(config, path)


def _local(config: Config, path: str) -> str:
    """The path at `path` of the config, `~` expanded; empty where none is set."""
    value = look_up(config, path)
    try:
        return str(local_path(value)) if value else ""
    except PathError as error:
        raise UserError(f"config.{path}: {error}") from None


def _leaves(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of the config with its dotted path."""
    for key in config:
        value = config[key]
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _items(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _are_numbers(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def has_teacher(config: Config) -> bool:
    """Whether the run has a teacher: one that it trains, or one from a folder."""
    return bool(config.teacher.weights or config.stages.teacher.epochs)


def has_new_classifier(config: Config) -> bool:
    """Whether the teacher keeps the body of its weights and learns the dataset's classes."""
    return config.teacher.classifier == "new"


def has_student(config: Config) -> bool:
    """Whether the run has a student: one that it trains, or one from a folder."""
    return bool(config.student.weights or config.stages.stage1.epochs or config.stages.stage2.epochs)


def _asks_the_teacher(config: Config) -> bool:
    stage2 = config.stages.stage2
    return bool(config.stages.stage1.epochs or (stage2.epochs and stage2.loss == "distillation"))


def look_up(config: Config, path: str) -> Any:
    """The value at a dotted path."""
    value: Any = config
    for key in path.split("."):
        value = value[key]
    return value


def model_options(config: Config) -> dict[str, Any]:
    """The options that the config sets, for `models.create`."""
    return {key: value for key, value in config.teacher.options.to_dict().items() if value is not None}


def bottleneck_options(config: Config, weights: dict[str, Any] | None = None) -> dict[str, Any]:
    """`models.create`'s bottleneck dictionary.

    Args:
        config: what it sets goes first; bits 0, hidden 0 and an empty cut mean None.
        weights: the dictionary that came with the student's weights.
    """
    chosen = {key: value for key, value in config.student.bottleneck.to_dict().items() if value is not None}
    chosen.update({key: chosen[key] or None for key in ("bits", "cut", "hidden") if key in chosen})
    return {**BOTTLENECK, **(weights or {}), **chosen, "image_size": config.dataset.image_size}


def differences(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two configs, as dictionaries, and could move a weight: `path: ours here, theirs there`."""
    found = []
    for key in sorted({*ours, *theirs}):
        path, a, b = f"{prefix}{key}", ours.get(key), theirs.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{path}.")
        elif a != b and path not in MAY_CHANGE:
            found.append(f"{path}: {a!r} here, {b!r} there")
    return found
