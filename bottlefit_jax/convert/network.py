"""From the content of a file to a finished network and what it is, and from a finished network to a state dict."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bottlefit_jax import models
from bottlefit_jax.convert import keras_names, students, torch_names
from bottlefit_jax.convert.files import File
from bottlefit_jax.convert.weight_sets import averaged_steps
from bottlefit_jax.data import read_labels
from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import IMAGENET_MEAN, IMAGENET_STD
from bottlefit_jax.training import checkpoint

IMAGENET_CLASSES = Path(__file__).with_name("imagenet_classes.txt")
BACKGROUND = ("background",)  # class 0 of the TensorFlow networks that have 1001
RESERVED = ("name", "num_classes", "bottleneck", "dtype")  # arguments of models.create that are no options


@dataclasses.dataclass
class Converted:
    """A network from a file.

    Attributes:
        variables: NumPy arrays.
        meta: what `checkpoint.save_variables` writes beside them.
        notes: what a reader would not expect, a line each.
    """

    variables: dict[str, Any]
    meta: dict[str, Any]
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class Given:
    """What the user says of a network; it goes before what the file says. None: nothing.

    Attributes:
        options: of `models.create`; `aux_logits` of an Inception v3 follows from the file.
        labels: file with the names of the classes, one a line.
        bits: of a student's quantiser, 0 for none; without it what the file says, or else 8.
        teacher: folder of a converted teacher, of which a file with a head alone takes the rest.
        mean, std: of the images that it was trained with, scaled to 0..1.
        image_size: side of those images, pixels.
    """

    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    labels: str | None = None
    bits: int | None = None
    teacher: Path | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    image_size: int | None = None


def from_file(file: File, name: str | None, given: Given) -> Converted:
    """The network that a file holds.

    Args:
        file: its content.
        name: the model, also as the reference spells its students: `custom_resnet152`; None: as the file says.
        given: what the user says of it.

    Raises:
        UserError: an unknown model or option; the file does not fit; flags that make no sense for it; wrong labels.
    """
    name = _name(file, name)
    for key in RESERVED:
        if key in given.options:
            raise UserError(f"--option {key}={given.options[key]} cannot be given: {key} follows from the file")
    models.create(name, **given.options)
    arrays, basis = file.arrays, dict(file.about)
    if students.is_head(arrays):
        arrays, basis = _completed(name, arrays, given.teacher)
    elif given.teacher is not None:
        raise UserError("--teacher is for files that hold a head alone; this one holds a whole network")
    chosen = {**basis.get("options", {}), **given.options}
    bottleneck, notes = _bottleneck(name, arrays, file, given.bits)
    keras = any(key.endswith(".kernel") for key in arrays)
    if keras:
        variables, needed = keras_names.from_keras(name, arrays)
        if wrong := [key for key in needed if chosen.get(key, needed[key]) != needed[key]]:
            raise UserError(f"--option {wrong[0]}={chosen[wrong[0]]} is wrong for a Keras file: it has {needed}")
        chosen |= needed
        basis |= {"mean": list(keras_names.MEAN), "std": list(keras_names.STD)}
    else:
        if name == "inception_v3" and bottleneck is None:
            chosen.setdefault("aux_logits", any("AuxLogits." in key for key in arrays))
        variables = torch_names.from_torch(name, arrays, bottleneck=bottleneck, **chosen)
        basis["num_batches_tracked"] = torch_names.counters(name, arrays)
        _set_ranges(variables, basis.get("ranges"))
        if steps := averaged_steps(arrays):
            notes.append(f"averaged over {steps} steps")
    if name == "inception_v3" and "transform_input" not in chosen:
        notes.append("torchvision's released weights of inception_v3 need --option transform_input=true")
    classes = _classes(variables)
    meta, assumed = _meta(name, chosen, classes, bottleneck, basis, given)
    meta["labels"], note = _labels(given.labels, classes, file.about, basis)
    return Converted(variables, meta, [*notes, *assumed, *note])


def to_state_dict(variables: Any, meta: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
    """A finished network as a PyTorch state dict, with the `num_batches_tracked` that came with it, and notes.

    Raises:
        UserError: the meta is not that of a finished network, or the arrays do not fit it.
    """
    if missing := [key for key in ("name", "num_classes", "bottleneck") if key not in meta]:
        raise UserError(f"the folder does not hold a finished network: its meta has no {', '.join(missing)}")
    options, bottleneck, notes = meta.get("options") or {}, meta["bottleneck"], []
    state_dict = torch_names.to_torch(meta["name"], variables, bottleneck=bottleneck, **options)
    for key, count in (meta.get("num_batches_tracked") or {}).items():
        state_dict[key] = np.asarray(count, np.int64)
    if options.get("padding") == "same":
        notes.append("this network pads as TensorFlow does, torchvision's mobilenet_v2 pads both sides alike")
    if options.get("transform_input"):
        notes.append("this network needs transform_input=True in torchvision")
    return state_dict, notes


def parameters(variables: Mapping[str, Any]) -> int:
    """How many parameters, batch statistics not counted."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def notes_for_others(meta: Mapping[str, Any]) -> list[str]:
    """What a program other than this one must be told of the network, since a state dict does not say it."""
    pixels = [" ".join(f"{value:.4g}" for value in meta[key]) for key in ("mean", "std")]
    notes = [f"elsewhere, feed it images of {meta['image_size']} px, normalised with mean {pixels[0]}, std {pixels[1]}"]
    if meta["bottleneck"]:
        plan, bits = meta["bottleneck"], meta["bottleneck"]["bits"]
        quantiser = f"{bits} bits, {plan['range']} range" if bits else "no quantiser"
        notes.append(f"elsewhere, quantise the latent likewise: {quantiser}")
    return notes


def _name(file: File, given: str | None) -> str:
    """The model, as the user and the file agree on it."""
    said = file.about.get("name")
    if given is None:
        assert said is not None  # the command has checked that one of them says it
        return said
    name = given.removeprefix("custom_")
    students.check_model(name, {**file.beside, **({"type": said} if said else {})})
    return name


def _set_ranges(variables: dict[str, Any], ranges: Any) -> None:
    """Put the static range that the file has beside its arrays where the network wants one."""
    wanted = variables.get("ranges", {}).get("quantizer")
    if wanted is None or not isinstance(ranges, Mapping):
        return
    arrays = {key: np.asarray(ranges.get(key), np.float32) for key in ("low", "high")}
    if any(arrays[key].shape != wanted[key].shape or not np.isfinite(arrays[key]).all() for key in arrays):
        raise UserError("what the file says of its network is damaged: its static range does not fit the bottleneck")
    variables["ranges"]["quantizer"] = arrays


def _bottleneck(
    name: str, arrays: Mapping[str, np.ndarray], file: File, bits: int | None
) -> tuple[dict[str, Any] | None, list[str]]:
    """A student's bottleneck, None of a teacher; and what to say about it."""
    if not students.is_student(arrays):
        if bits is not None:
            raise UserError("--bits is for students; this file has no bottleneck")
        return None, []
    if found := file.about.get("bottleneck"):
        width, source = (found.get("bits"), "as the file says") if bits is None else (bits or None, "by --bits")
        found = {**found, "bits": width}
        models.create(name, bottleneck=found)
    else:
        width, source = students.bits_of(file.beside, bits)
        found = students.bottleneck_of(name, arrays, width)
    quantiser = f"{width} bits" if width else "no quantiser"
    return found, [f"bottleneck: {students.title(found)}, {found['channels']} channels, {quantiser} ({source})"]


def _completed(
    name: str, head: Mapping[str, np.ndarray], teacher: Path | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state dict of the student that a head and its teacher make, and what the teacher's meta hands on."""
    if teacher is None:
        raise UserError(
            "the file holds a head alone; convert its teacher first, and name that folder with --teacher DIR"
        )
    variables, meta = checkpoint.load_variables(teacher)
    if meta.get("name") != name or meta.get("bottleneck") is not None:
        kind = "a student" if meta.get("bottleneck") else f"a {meta.get('name')}"
        raise UserError(f"{teacher} holds {kind}; --teacher needs the folder of a whole {name}")
    tail, _ = to_state_dict(variables, meta)
    handed = {key: meta[key] for key in ("labels", "mean", "std", "image_size", "options") if key in meta}
    return students.whole_student(name, head, tail, meta["options"]), handed


def _meta(
    name: str, options: dict[str, Any], classes: int, bottleneck: Any, basis: Mapping[str, Any], given: Given
) -> tuple[dict[str, Any], list[str]]:
    """What a folder says of its network, and what of it nobody has said, so that it was assumed."""
    network = models.create(name, num_classes=classes, bottleneck=bottleneck, **options)
    said = {key: list(value) for key, value in (("mean", given.mean), ("std", given.std)) if value}
    said |= {"image_size": given.image_size} if given.image_size else {}
    known = {**{key: basis[key] for key in ("mean", "std", "image_size", "resize") if key in basis}, **said}
    usual = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD), "image_size": network.spec.image_size}
    assumed = []
    if lacking := [key for key in ("mean", "std") if key not in known]:
        values = ", ".join(f"{key} {' '.join(map(str, usual[key]))}" for key in lacking)
        flags = " and ".join(f"--{key} R,G,B" for key in lacking)
        assumed.append(f"normalisation: taken to be ImageNet's, {values}; {flags} say otherwise")
    if "image_size" not in known:
        assumed.append(
            f"image size: taken to be {usual['image_size']} px, the model's own; --image-size N says otherwise"
        )
    meta = {
        "name": name,
        "options": dict(network.options),
        "num_classes": classes,
        "bottleneck": bottleneck,
        **usual,
        **known,
        "num_batches_tracked": basis.get("num_batches_tracked", {}),
    }
    return meta, assumed


def _labels(
    path: str | None, classes: int, about: Mapping[str, Any], basis: Mapping[str, Any]
) -> tuple[list[list[str]], list[str]]:
    """For each output its names, [] where nobody knows them, and what to say about it."""
    note, handed = [], basis.get("labels")
    if path is None and handed:
        if len(handed) != classes:
            raise UserError(f"the names of {len(handed)} classes go with the file, but the network has {classes}")
        source = "the file says" if about else "the teacher's"
        return [list(names) for names in handed], [f"classes: named as {source}"]
    if path is None and (about or classes not in (1000, 1001)):
        return [], [f"classes: {classes} without names; --labels FILE gives them"]
    if path is None:
        note = ["classes: taken to be ImageNet's 1000" + (" after a background" if classes == 1001 else "")]
    labels = read_labels(str(IMAGENET_CLASSES) if path is None else path)
    if len(labels) == 1000 and classes == 1001:
        labels = (BACKGROUND, *labels)
    if len(labels) != classes:
        raise UserError(f"--labels {path} has {len(labels)} classes, the network {classes}")
    return [list(names) for names in labels], note


def _classes(variables: Mapping[str, Any]) -> int:
    """How many outputs the last layer has."""
    params = variables["params"]
    last = params["fc"] if "fc" in params else params["classifier"]
    return int(last.get("1", last)["bias"].size)
