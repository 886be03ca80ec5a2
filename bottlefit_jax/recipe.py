"""The config that every experiment starts from: the reference recipe, and the only place with defaults.

A file in `configs/` calls `base_config()`, changes what its experiment needs, and returns it. The command locks it, so
a key that is not here is an error.
"""

from typing import Any

from ml_collections import ConfigDict, config_dict

from bottlefit_jax.errors import UserError
from bottlefit_jax.paths import PathError, local_path

Config = Any  # a ConfigDict, whose keys a type checker cannot know

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The bottleneck: options that neither the config nor the student's weights set. They are the reference's, but for the
# range: it is fixed at the end of training, so that no payload pays for it.
BOTTLENECK = {
    "channels": 12,
    "hidden": None,
    "design": "bottlefit",
    "version": 2,
    "bits": 8,
    "cut": None,
    "per": "image",
    "range": "static",
    "quantize_training": False,
}


def base_config() -> Config:
    """Return BottleFit's recipe for ImageNet: ResNet-152, 12 channels, 8 bits, distillation with a frozen encoder.

    Batch 64; stage 1 Adam 1e-3, stage 2 SGD 1e-3 with momentum 0.9 and weight decay 5e-4, 10 + 10 epochs, both ×0.1
    after 5 (the reference's config/ghnd_kd/custom_resnet152_from_resnet152-12ch.yaml).
    """
    return ConfigDict(
        {
            "seed": 0,
            "dataset": {
                "name": "imagenet2012",  # digits, folder, or a TFDS classification set; empty: no labelled images
                "root": "",  # the folder, or TFDS's data_dir
                "unlabelled": (),  # folders of images, flat or nested, that join the stages which need no labels
                "eval_name": "",  # the dataset to evaluate on; empty: the one above, or agreement with the teacher
                "eval_root": "",
                "image_size": 224,  # 0: what the weights were trained with
                "resize": 0,  # short side before the centre crop of evaluation; 0: image_size × 256 / 224
                "crop_scale": (0.08, 1.0),  # RandomResizedCrop: share of the image's area
                "flip": True,
                "mean": (),  # empty, like std: what the weights were trained with, or else ImageNet's
                "std": (),
                "on_bad_image": "error",  # or "skip": leave it out and report how many there are
                "workers": 4,
                "worker_type": "thread",  # or "process"
            },
            "teacher": {
                "name": "resnet152",  # empty: the model that the weights belong to
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
                    "range": config_dict.placeholder(str),  # "static": calibrated once, after training; or "dynamic"
                    "quantize_training": config_dict.placeholder(bool),  # also in training, straight-through gradient
                },
                "rate": {  # train for payloads of few bytes; see models/density.py
                    "weight": 0.0,  # of a bit in stage 1's loss, at a step of 1; 0: off
                    "steps": (1.0,),  # drawn for each image, in units of the latent
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
                    relative=False,  # divide each feature's squared errors by the variance of the teacher's
                ),
                "stage2": _stage(
                    optimizer="sgd",
                    weight_decay=5e-4,
                    loss="distillation",  # or "cross_entropy", or "feature_matching" as in stage 1
                    matched=(),  # likewise
                    relative=False,
                    alpha=0.5,  # weight of the labels in distillation
                    temperature=1.0,
                    freeze_encoder=True,
                    fixed_norms=False,  # the tail keeps its batch statistics: for images unlike those that made them
                ),
            },
            "frozen_statistics": "fixed",  # or "update": frozen parts update batch statistics, as in the reference
            "compute_dtype": "float32",  # or "bfloat16"; parameters and statistics stay float32
            "eval_batch_size": 64,
            "evaluate_every": 1,  # epochs from one evaluation to the next; the last epoch of a stage always has one
            "checkpoint": {
                "every_steps": 1000,  # besides the end of each epoch; 0: only there
                "select": "last",  # or "best" top-1: which weights are its result
            },
        }
    )


def _stage(**changes: Any) -> dict[str, Any]:
    """Return the settings that every stage has, and those that only some stages have among `changes`."""
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


STAGES = tuple(base_config().stages)
PATHS = ("dataset.root", "dataset.eval_root", "teacher.weights", "teacher.labels", "student.weights")
# What may differ when a run is resumed: none of it changes a weight.
MAY_CHANGE = (
    "dataset.root",
    "dataset.eval_root",
    "dataset.workers",
    "dataset.worker_type",
    "checkpoint.every_steps",
    "eval_batch_size",
)


def expand_paths(config: Config) -> None:
    """Expand `~` in the paths of `config`.

    Raises:
        UserError: one is not a path of this machine.
    """
    for path in PATHS:
        if look_up(config, path):
            parent, _, key = path.rpartition(".")
            look_up(config, parent)[key] = path_at(config, path)
    config.dataset.unlabelled = unlabelled_folders(config)


def unlabelled_folders(config: Config) -> tuple[str, ...]:
    """Return the folders of images without labels, `~` expanded.

    Raises:
        UserError: one is not the path of a folder of this machine.
    """
    if invalid := [folder for folder in config.dataset.unlabelled if not isinstance(folder, str) or not folder]:
        raise UserError(f"config.dataset.unlabelled has {invalid[0]!r}; each must be the path of a folder")
    return tuple(_local(folder, "dataset.unlabelled") for folder in config.dataset.unlabelled)


def path_at(config: Config, path: str) -> str:
    """Return the path at the config's key `path`, `~` expanded; empty where none is set."""
    return _local(look_up(config, path), path)


def _local(value: Any, path: str) -> str:
    try:
        return str(local_path(value)) if value else ""
    except PathError as error:
        raise UserError(f"config.{path}: {error}") from None


def has_teacher(config: Config) -> bool:
    """Return whether the run has a teacher: one that it trains, or one from a folder."""
    return bool(config.teacher.weights or config.stages.teacher.epochs)


def has_new_classifier(config: Config) -> bool:
    """Return whether the teacher keeps the body of its weights and learns the dataset's classes."""
    return config.teacher.classifier == "new"


def trains(config: Config, stage: str) -> bool:
    """Return whether a stage trains: one with epochs, but for the teacher's where its classifier is given."""
    given = stage == "teacher" and config.teacher.weights and not has_new_classifier(config)
    return bool(config.stages[stage].epochs) and not given


def needs_labels(config: Config, stage: str) -> bool:
    """Return whether a stage learns from labels: stage 1 does not, nor stage 2 where the teacher says all."""
    if stage == "stage2":
        loss, alpha = config.stages.stage2.loss, config.stages.stage2.alpha
        return loss != "feature_matching" and (loss != "distillation" or alpha > 0)
    return stage != "stage1"


def evaluates_agreement(config: Config) -> bool:
    """Return whether the evaluation images have no labels, so that the student is compared with its teacher."""
    return not (config.dataset.name or config.dataset.eval_name)


def has_student(config: Config) -> bool:
    """Return whether the run has a student: one that it trains, or one from a folder."""
    trained = any(settings.epochs for name, settings in config.stages.items() if name != "teacher")
    return bool(config.student.weights or trained)


def look_up(config: Config, path: str) -> Any:
    """Return the value at a dotted path."""
    value: Any = config
    for key in path.split("."):
        value = value[key]
    return value


def model_options(config: Config) -> dict[str, Any]:
    """Return the options that the config sets, for `models.create`."""
    return {key: value for key, value in config.teacher.options.to_dict().items() if value is not None}


def bottleneck_options(config: Config, weights: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the bottleneck dictionary of `models.create`.

    Args:
        config: what it sets takes precedence; bits 0, hidden 0 and an empty cut mean None.
        weights: the dictionary that came with the student's weights.
    """
    chosen = {key: value for key, value in config.student.bottleneck.to_dict().items() if value is not None}
    chosen.update({key: chosen[key] or None for key in ("bits", "cut", "hidden") if key in chosen})
    return {**BOTTLENECK, **(weights or {}), **chosen, "image_size": config.dataset.image_size}


def differences(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> list[str]:
    """Return what differs between two configs and could change a weight, as `path: ours here, theirs there`.

    Args:
        ours: a config, as a dictionary.
        theirs: likewise.
        prefix: of the paths.
    """
    lines = []
    for key in sorted({*ours, *theirs}):
        path, a, b = f"{prefix}{key}", ours.get(key), theirs.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{path}.")
        elif a != b and path not in MAY_CHANGE:
            lines.append(f"{path}: {a!r} here, {b!r} there")
    return lines
