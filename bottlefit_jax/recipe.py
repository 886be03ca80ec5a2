"""The config that every experiment starts from: the reference recipe, and the only place with defaults.

A file in `configs/` calls `base_config()`, changes what its experiment needs, and returns it. The command locks it, so
a key that is not here is an error. The comments at the keys are the text of docs/reference/configuration.md.
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
            "seed": 0,  # of all random numbers: first weights, order of the images, augmentation
            "dataset": {  # the images, and how the network gets them
                # "imagenet2012" or another classification set of TFDS, "digits", or "folder"; empty: no labelled images
                "name": "imagenet2012",
                "root": "",  # the folder, or TFDS's data_dir; empty: TFDS's own
                "unlabelled": (),  # folders of images, flat or nested, that join the stages which need no labels
                # the dataset to evaluate on; empty: `dataset.name`, or without one the agreement with the teacher
                "eval_name": "",
                "eval_root": "",  # root of `dataset.eval_name`, as `dataset.root`
                "image_size": 224,  # side of the network's input, pixels; 0: what the weights were trained with
                # short side, in pixels, before the centre crop of evaluation; 0: image_size × 256 / 224
                "resize": 0,
                "crop_scale": (0.08, 1.0),  # least and largest share of an image's area that a training crop covers
                "flip": True,  # mirror a training image with probability 1/2
                # of red, green and blue, scaled to 0..1; empty: what the weights were trained with, or ImageNet's
                "mean": (),
                "std": (),  # standard deviations, likewise
                # what a file that is no valid image does: "error" stops the run, "skip" leaves it out and counts it
                "on_bad_image": "error",
                "workers": 4,  # threads or processes that decode images; 0: the training's own thread does it
                "worker_type": "thread",  # what the workers are; processes help where Python itself is the limit
            },
            "teacher": {  # the classifier that the student learns from
                "name": "resnet152",  # a key of `models.MODELS`; empty: the model that the weights belong to
                "options": {},  # options of `models.create`, such as width; not set: the weights', or the model's own
                "weights": "",  # folder of a converted or trained teacher; empty: train one
                # "given" with the weights, or "new": keep the weights' body, and train it with the dataset's classes
                "classifier": "given",
                # file with the names of the teacher's classes, one a line, where they are more than the dataset's
                "labels": "",
            },
            "student": {  # the teacher with a bottleneck
                "weights": "",  # folder of a converted or trained student, to start from or to evaluate; empty: none
                # how the encoder begins: "teacher", with the teacher's first filters where they fit, or "random"
                "stem": "teacher",
                "bottleneck": {  # its options; not set: what the student's weights have, or else the default below
                    "channels": config_dict.placeholder(int),  # channels of the latent
                    "hidden": config_dict.placeholder(int),  # inner width of the decoder, channels; 0: the model's own
                    # encoder: "bottlefit", "patch", which is cheaper, or another of models/designs.py
                    "design": config_dict.placeholder(str),
                    "version": config_dict.placeholder(int),  # which of the reference's decoders; ResNets have 1, 2, 3
                    "bits": config_dict.placeholder(int),  # bits of the quantiser, 1 to 8; 0: no quantiser
                    "cut": config_dict.placeholder(str),  # feature to cut after; empty: the model's own
                    # what shares a range of the quantiser: an image, as on a device, a batch, or a channel of an image
                    "per": config_dict.placeholder(str),
                    # range of the quantiser: "static", calibrated after the training, or "dynamic", measured each time
                    "range": config_dict.placeholder(str),
                    # quantise in training as well, with a straight-through gradient
                    "quantize_training": config_dict.placeholder(bool),
                },
                "rate": {  # training for payloads of few bytes; see models/density.py
                    "weight": 0.0,  # weight of a bit in stage 1's loss, at a step of 1; 0: off
                    "steps": (1.0,),  # steps of the quantiser, in units of the latent; one is drawn for each image
                },
                "calibration_images": 256,  # training images that set a static range
            },
            "stages": {  # what is trained, in this order; a stage of 0 epochs is left out
                "teacher": _stage(
                    epochs=90,
                    batch_size=256,
                    optimizer="sgd",
                    learning_rate=0.1,
                    weight_decay=1e-4,
                    milestones=(30, 60),
                    label_smoothing=0.0,  # share of the target that is spread over all classes
                ),
                "stage1": _stage(
                    optimizer="adam",
                    matched=(),  # names of the features that the student learns to reproduce; empty: the model's own
                    relative=False,  # divide each feature's squared errors by the variance of the teacher's
                ),
                "stage2": _stage(
                    optimizer="sgd",
                    weight_decay=5e-4,
                    # "distillation" from labels and teacher, "cross_entropy" from labels, or "feature_matching"
                    # as in stage 1
                    loss="distillation",
                    matched=(),  # with "feature_matching", as in stage 1
                    relative=False,  # with "feature_matching", as in stage 1
                    alpha=0.5,  # weight of the labels in distillation, 0 to 1; the teacher has the rest
                    temperature=1.0,  # what distillation divides the logits of student and teacher by
                    freeze_encoder=True,  # the encoder keeps its weights of stage 1, which devices may have already
                    fixed_norms=False,  # the tail keeps its batch statistics: for images unlike those that made them
                ),
            },
            # whether frozen parts keep their batch statistics, or update them in training, as in the reference
            "frozen_statistics": "fixed",
            "compute_dtype": "float32",  # what activations are computed in; parameters and statistics stay float32
            "eval_batch_size": 64,  # images that are evaluated at once
            "evaluate_every": 1,  # epochs from one evaluation to the next; the last epoch of a stage always has one
            "checkpoint": {  # when a run is saved, and which weights a stage hands on
                "every_steps": 1000,  # steps between checkpoints, besides the end of each epoch; 0: only there
                "select": "last",  # weights that a stage hands on: its last, or the best by top-1
            },
        }
    )


def _stage(**changes: Any) -> dict[str, Any]:
    """Return the settings that every stage has, and those that only some stages have among `changes`."""
    return {
        "epochs": 10,  # passes over the training images; 0 leaves the stage out
        "batch_size": 64,  # images of a step, on all devices together
        "optimizer": "adam",  # PyTorch's Adam, or SGD with momentum
        "learning_rate": 1e-3,  # the highest, after the warm-up
        "momentum": 0.9,  # momentum of "sgd"
        "weight_decay": 0.0,  # share of a parameter that is added to its gradient
        "schedule": "multistep",  # how the learning rate falls: at milestones, along a cosine to 0, or not at all
        "milestones": (5,),  # epochs after which "multistep" multiplies the learning rate by `gamma`
        "gamma": 0.1,  # what "multistep" multiplies the learning rate by
        "warmup_epochs": 0,  # epochs in which the learning rate first rises linearly from 0
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
