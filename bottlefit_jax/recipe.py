"""The config that every experiment starts from: the reference recipe, and the only place where defaults live.

A file in `configs/` calls `base_config()`, changes what its experiment needs, and returns it. The command locks it:
a key that is not here is an error.
"""

from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict, config_dict

from bottlefit_jax.errors import UserError

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
                "crop_scale": (0.08, 1.0),  # RandomResizedCrop: share of the picture's area
                "flip": True,
                "mean": (),  # empty, like std: what the weights were trained with, or else ImageNet's
                "std": (),
                "on_bad_image": "error",  # or "skip": leave it out and count it
                "workers": 4,
                "worker_type": "thread",  # or "process"
            },
            "teacher": {
                "name": "resnet152",  # empty: the one that the weights are of
                "options": {  # of models.create; not set: the weights', or else the model's own
                    "width": config_dict.placeholder(int),  # of a ResNet
                    "padding": config_dict.placeholder(str),  # of a MobileNetV2: "both", or "same" as TensorFlow
                    "aux_logits": config_dict.placeholder(bool),  # of an Inception v3
                    "transform_input": config_dict.placeholder(bool),  # likewise
                },
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
                "calibration_images": 256,  # training pictures that set a static range
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
    **{f"stages.{stage}.optimizer": ("adam", "sgd") for stage in ("teacher", "stage1", "stage2")},
    **{f"stages.{stage}.schedule": ("multistep", "cosine", "constant") for stage in ("teacher", "stage1", "stage2")},
}
AT_LEAST = {
    "dataset.image_size": 1,
    "dataset.workers": 0,
    "student.calibration_images": 1,
    "eval_batch_size": 1,
    "evaluate_every": 1,
    "checkpoint.every_steps": 0,
    **{f"stages.{stage}.epochs": 0 for stage in ("teacher", "stage1", "stage2")},
    **{f"stages.{stage}.batch_size": 1 for stage in ("teacher", "stage1", "stage2")},
}
# What a run may change without becoming another run: none of it moves a weight.
MAY_CHANGE = ("dataset.root", "dataset.workers", "dataset.worker_type", "checkpoint.every_steps", "eval_batch_size")


def check_config(config: Config) -> None:
    """Raises UserError for a value that no part of the program could use, before anything is opened or compiled."""
    for path, allowed in CHOICES.items():
        if (value := look_up(config, path)) not in allowed:
            words = " or ".join(repr(word) for word in allowed if word is not None)
            raise UserError(f"config.{path} is {value!r}; it can be {words}")
    for path, least in AT_LEAST.items():
        if (value := look_up(config, path)) < least:
            raise UserError(f"config.{path} is {value}; it must be at least {least}")
    for path in ("dataset.mean", "dataset.std"):
        if len(look_up(config, path)) not in (0, 3):
            raise UserError(
                f"config.{path} is {look_up(config, path)}; it needs three numbers, for red, green and blue"
            )
    low, high = config.dataset.crop_scale
    if not 0 < low <= high <= 1:
        raise UserError(
            f"config.dataset.crop_scale is ({low}, {high}); it must be two shares of the area, 0 < a <= b <= 1"
        )
    if not has_teacher(config) and (not config.student.weights or _asks_the_teacher(config)):
        raise UserError(
            "there is no teacher: set config.teacher.weights to a folder, or config.stages.teacher.epochs above 0"
        )
    if has_new_classifier(config):
        _check_new_classifier(config)
    if not (config.teacher.name or config.teacher.weights or config.student.weights):
        raise UserError("config.teacher.name is empty, and there are no weights that would tell it")


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


def meet_weights(config: Config, meta: dict[str, Any], folder: str, *, typed: Collection[str]) -> list[str]:
    """Changes what a config's file says of the network to what its weights are; what the user typed stays.

    Args:
      config: with weights.
      meta: what the folder of the weights says of them.
      folder: its name, for the notes.
      typed: what the command line sets, such as `config.teacher.options.width`.

    Returns:
      Notes, a line each.
    """
    notes, options = [], meta.get("options") or {}
    for key, value in model_options(config).items():
        if options.get(key) != value and f"config.teacher.options.{key}" not in typed:
            config.teacher.options[key] = None
            theirs = repr(options[key]) if key in options else "the model's own"
            notes.append(f"config.teacher.options.{key}: {theirs} as in {folder}, not the config's {value!r}")
    size = meta.get("image_size")
    if size and not config.dataset.image_size:
        config.dataset.image_size = size
        config.dataset.resize = config.dataset.resize or meta.get("resize", 0)
    elif size and size != config.dataset.image_size:
        notes.append(f"{folder} was trained with images of {size} px; this run has {config.dataset.image_size} px")
    return notes


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
