"""From a file's content to a finished network and its description, and from a finished network to a state dict."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bottlefit_jax import models
from bottlefit_jax.convert import keras_names, students, torch_names
from bottlefit_jax.convert.files import File
from bottlefit_jax.convert.options import Given
from bottlefit_jax.convert.weight_sets import averaged_steps
from bottlefit_jax.data import read_labels
from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import IMAGENET_MEAN, IMAGENET_STD
from bottlefit_jax.training import checkpoint
from bottlefit_jax.training.network_meta import NetworkMeta

IMAGENET_CLASSES = Path(__file__).with_name("imagenet_classes.txt")
BACKGROUND = ("background",)  # class 0 of the TensorFlow networks that have 1001
RESERVED = ("name", "num_classes", "bottleneck", "dtype")  # arguments of models.create that are no options
NO_BOTTLENECK = "--bits is for students; this file has no bottleneck"


@dataclasses.dataclass(frozen=True)
class Converted:
    """A network from a file.

    Attributes:
        variables: NumPy arrays.
        meta: their description.
        notes: what the user should know about the conversion, a line each.
    """

    variables: dict[str, Any]
    meta: NetworkMeta
    notes: list[str]


def from_file(file: File, name: str | None, given: Given) -> Converted:
    """Convert the network that a file holds.

    Args:
        file: its content.
        name: the model, also as the reference spells its students, `custom_resnet152`; None: as the file states.
        given: what the user states about it.

    Raises:
        UserError: the model or an option is unknown, the file does not fit the model, a flag does not apply to it, or
            the labels are invalid.
    """
    name = _name(file, name)
    spec = models.find_spec(name)
    for key in RESERVED:
        if key in given.options:
            raise UserError(f"--option {key}={given.options[key]} is invalid: {key} follows from the file")
    arrays, basis = file.arrays, file.about.meta if file.about else None
    if students.is_head(arrays):
        arrays, basis = _complete(name, arrays, given.teacher)
    elif given.teacher is not None:
        raise UserError("--teacher is for files that hold a head alone; this one holds a whole network")
    options = {**(basis.options if basis else {}), **given.options}
    usual = {"mean": spec.mean or IMAGENET_MEAN, "std": spec.std or IMAGENET_STD, "image_size": spec.image_size}
    known = {} if basis is None else {key: getattr(basis, key) for key in (*usual, "resize")}
    if any(key.endswith(".kernel") for key in arrays):
        network, variables = _read_keras(name, arrays, options, given.bits)
        bottleneck, notes, counters = None, [], {}
        known |= {"mean": keras_names.MEAN, "std": keras_names.STD}
    else:
        bottleneck, notes = _bottleneck(spec, arrays, file, given.bits)
        if name == "inception_v3" and bottleneck is None:
            options.setdefault("aux_logits", any("AuxLogits." in key for key in arrays))
        renamed = torch_names.rename(name, arrays)
        network = torch_names.create_network(name, renamed, bottleneck, options)
        variables = torch_names.read_variables(network, renamed)
        counters = torch_names.read_counters(name, renamed)
        _set_ranges(variables, file.about.ranges if file.about else None)
        if steps := averaged_steps(arrays):
            notes.append(f"averaged over {steps} steps")
    if name == "inception_v3" and "transform_input" not in options:
        notes.append("torchvision's released weights of inception_v3 need --option transform_input=true")
    known |= {key: value for key in usual if (value := getattr(given, key))}
    assumed = {key: value for key, value in usual.items() if not known.get(key)}
    labels, label_notes = _labels(given.labels, network.num_classes, basis, in_file=file.about is not None)
    meta = NetworkMeta(
        name=name,
        options=dict(network.options),
        num_classes=network.num_classes,
        bottleneck=bottleneck,
        labels=labels,
        num_batches_tracked=counters,
        **{**known, **assumed},
    )
    return Converted(variables, meta, [*notes, *_notes_of_assumptions(spec, assumed), *label_notes])


def to_state_dict(variables: Any, meta: NetworkMeta) -> tuple[dict[str, np.ndarray], list[str]]:
    """Convert a finished network to a PyTorch state dict, with the `num_batches_tracked` that came with it.

    Args:
        variables: its collections.
        meta: their description.

    Returns:
        PyTorch's keys to arrays, and notes for the user, a line each.

    Raises:
        UserError: the arrays do not fit the description.
    """
    notes = []
    state_dict = torch_names.to_torch(meta.name, variables, bottleneck=meta.bottleneck, **meta.options)
    for key, count in meta.num_batches_tracked.items():
        state_dict[key] = np.asarray(count, np.int64)
    if meta.options.get("padding") == "same":
        notes.append("this network pads as TensorFlow does; torchvision's mobilenet_v2 pads both sides alike")
    if meta.options.get("transform_input"):
        notes.append("this network needs transform_input=True in torchvision")
    return state_dict, notes


def count_parameters(variables: Mapping[str, Any]) -> int:
    """Count the parameters, without batch statistics."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def notes_for_others(meta: NetworkMeta) -> list[str]:
    """Return what another program needs to know about a network and a state dict does not hold, a line each."""
    mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (meta.mean, meta.std))
    notes = [f"elsewhere, feed it images of {meta.image_size} px, normalised with mean {mean}, std {std}"]
    if meta.bottleneck:
        plan = models.Bottleneck.parse(meta.bottleneck, models.find_spec(meta.name).family)
        quantiser = f"{plan.bits} bits, {plan.range} range" if plan.bits else "no quantiser"
        notes.append(f"elsewhere, quantise the latent likewise: {quantiser}")
    return notes


def _name(file: File, given: str | None) -> str:
    """Return the model's name, from the user or from the file; the two must not differ."""
    in_file = file.about.meta.name if file.about else None
    if given is None:
        assert in_file is not None  # the command has checked that one of them states it
        return in_file
    name = given.removeprefix("custom_")
    students.check_model(name, {**file.beside, **({"type": in_file} if in_file else {})})
    return name


def _read_keras(
    name: str, arrays: Mapping[str, np.ndarray], options: dict[str, Any], bits: int | None
) -> tuple[models.Network, dict[str, Any]]:
    """Return the network of a Keras file and its variables."""
    if bits is not None:
        raise UserError(NO_BOTTLENECK)
    variables, needed = keras_names.from_keras(name, arrays)
    if wrong := [key for key in needed if options.get(key, needed[key]) != needed[key]]:
        raise UserError(f"--option {wrong[0]}={options[wrong[0]]} is wrong for a Keras file: it has {needed}")
    classes = variables["params"]["classifier"]["1"]["bias"].size
    return models.create(name, num_classes=classes, **{**options, **needed}), variables


def _set_ranges(variables: dict[str, Any], ranges: Any) -> None:
    """Set the static range of a network that has one, where the file holds it."""
    wanted = variables.get("ranges", {}).get("quantizer")
    if wanted is None or not isinstance(ranges, Mapping):
        return
    arrays = {key: np.asarray(ranges.get(key), np.float32) for key in ("low", "high")}
    if any(arrays[key].shape != wanted[key].shape or not np.isfinite(arrays[key]).all() for key in arrays):
        raise UserError(
            "the file's description of its network is damaged: the static range does not fit the bottleneck"
        )
    variables["ranges"]["quantizer"] = arrays


def _bottleneck(
    spec: models.Spec, arrays: Mapping[str, np.ndarray], file: File, bits: int | None
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return a student's bottleneck, None for a teacher, and notes about it."""
    if not students.is_student(arrays):
        if bits is not None:
            raise UserError(NO_BOTTLENECK)
        return None, []
    if file.about and file.about.meta.bottleneck:
        given = file.about.meta.bottleneck
        width, source = (given.get("bits"), "as the file says") if bits is None else (bits or None, "by --bits")
        bottleneck = {**given, "bits": width}
    else:
        width, source = students.bits_of(file.beside, bits)
        bottleneck = students.bottleneck_of(spec.name, arrays, width)
    plan = models.Bottleneck.parse(bottleneck, spec.family)
    quantiser = f"{width} bits" if width else "no quantiser"
    return bottleneck, [f"bottleneck: {students.title(plan)}, {plan.channels} channels, {quantiser} ({source})"]


def _complete(
    name: str, head: Mapping[str, np.ndarray], teacher: Path | None
) -> tuple[dict[str, np.ndarray], NetworkMeta]:
    """Return the state dict of the student that a head and its teacher make, and the teacher's description."""
    if teacher is None:
        raise UserError(
            "the file holds a head alone; convert its teacher first, and name that folder with --teacher DIR"
        )
    variables, meta = checkpoint.load_variables(teacher)
    if meta.name != name or meta.bottleneck is not None:
        kind = "a student" if meta.bottleneck else f"a {meta.name}"
        raise UserError(f"{teacher} holds {kind}; --teacher needs the folder of a whole {name}")
    tail, _ = to_state_dict(variables, meta)
    return students.whole_student(name, head, tail, meta.options), meta


def _notes_of_assumptions(spec: models.Spec, assumed: Mapping[str, Any]) -> list[str]:
    """Return a line for each assumption about the images of a network, by the keys of `NetworkMeta`."""
    notes = []
    if keys := [key for key in ("mean", "std") if key in assumed]:
        values = ", ".join(f"{key} {' '.join(f'{value:.4g}' for value in assumed[key])}" for key in keys)
        owner = "ImageNet's" if spec.mean is None else "that of the released weights"
        flags = " and ".join(f"--{key} R,G,B" for key in keys)
        notes.append(f"normalisation: assumed to be {owner}, {values}; {flags} set other values")
    if size := assumed.get("image_size"):
        notes.append(f"image size: assumed to be {size} px, the model's own; --image-size N sets another")
    return notes


def _labels(
    path: str | None, classes: int, basis: NetworkMeta | None, *, in_file: bool
) -> tuple[tuple[tuple[str, ...], ...], list[str]]:
    """Return the names of each class, () where they are unknown, and notes about them.

    Args:
        path: file with the names; None without one.
        classes: how many the network has.
        basis: the file's or the teacher's description; None without one.
        in_file: whether the file has a description.
    """
    if path is None and basis is not None and basis.labels:
        if len(basis.labels) != classes:
            raise UserError(f"the file names {len(basis.labels)} classes, but the network has {classes}")
        source = "the file says" if in_file else "the teacher's"
        return basis.labels, [f"classes: named as {source}"]
    if path is None and (in_file or classes not in (1000, 1001)):
        return (), [f"classes: {classes} without names; --labels FILE gives them"]
    notes = []
    if path is None:
        notes = ["classes: assumed to be ImageNet's 1000" + (" after a background" if classes == 1001 else "")]
    labels = read_labels(str(IMAGENET_CLASSES) if path is None else path)
    if len(labels) == 1000 and classes == 1001:
        labels = (BACKGROUND, *labels)
    if len(labels) != classes:
        raise UserError(f"--labels {path} has {len(labels)} classes, the network {classes}")
    return labels, notes
