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


def from_file(
    file: File,
    name: str,
    *,
    options: Mapping[str, Any],
    labels: str | None = None,
    bits: int | None = None,
    teacher: Path | None = None,
) -> Converted:
    """The network that a file holds.

    Args:
      file: its content.
      name: the model, also as the reference spells its students: `custom_resnet152`.
      options: of `models.create`; `aux_logits` of an Inception v3 follows from the file.
      labels: file with the names of the classes, one a line.
      bits: of a student's quantiser, 0 for none; None: what the file says, or else 8.
      teacher: folder of a converted teacher, of which a file with a head alone takes the rest.

    Raises:
      UserError: an unknown model or option; the file does not fit; flags that make no sense for it; wrong labels.
    """
    name = name.removeprefix("custom_")
    for key in RESERVED:
        if key in options:
            raise UserError(f"--option {key}={options[key]} cannot be given: {key} follows from the file")
    models.create(name, **options)
    students.check_model(name, file.beside)
    arrays, basis = file.arrays, {}
    if students.is_head(arrays):
        arrays, basis = _completed(name, arrays, teacher)
    elif teacher is not None:
        raise UserError("--teacher is for files that hold a head alone; this one holds a whole network")
    chosen = {**basis.get("options", {}), **options}
    bottleneck, notes = _bottleneck(name, arrays, file.beside, bits)
    keras = any(key.endswith(".kernel") for key in arrays)
    if keras:
        variables, needed = keras_names.from_keras(name, arrays)
        if wrong := [key for key in needed if chosen.get(key, needed[key]) != needed[key]]:
            raise UserError(f"--option {wrong[0]}={chosen[wrong[0]]} is wrong for a Keras file: it has {needed}")
        chosen |= needed
    else:
        if name == "inception_v3" and bottleneck is None:
            chosen.setdefault("aux_logits", any("AuxLogits." in key for key in arrays))
        variables = torch_names.from_torch(name, arrays, bottleneck=bottleneck, **chosen)
        basis["num_batches_tracked"] = torch_names.counters(name, arrays)
    if name == "inception_v3" and "transform_input" not in chosen:
        notes.append("torchvision's released weights of inception_v3 need --option transform_input=true")
    classes = _classes(variables)
    meta = _meta(name, chosen, classes, bottleneck, basis, keras=keras)
    meta["labels"], note = _labels(labels, classes, basis.get("labels"))
    return Converted(variables, meta, [*notes, *note])


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
    if "ranges" in variables:
        notes.append("a static range has no place in the file and is left out")
    if options.get("padding") == "same":
        notes.append("this network pads as TensorFlow does, torchvision's mobilenet_v2 pads both sides alike")
    if options.get("transform_input"):
        notes.append("this network needs transform_input=True in torchvision")
    return state_dict, notes


def parameters(variables: Mapping[str, Any]) -> int:
    """How many parameters, batch statistics not counted."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def _bottleneck(
    name: str, arrays: Mapping[str, np.ndarray], beside: Mapping[str, Any], bits: int | None
) -> tuple[dict[str, Any] | None, list[str]]:
    """A student's bottleneck, None of a teacher; and what to say about it."""
    if not students.is_student(arrays):
        if bits is not None:
            raise UserError("--bits is for students; this file has no bottleneck")
        return None, []
    width, source = students.bits_of(beside, bits)
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
    handed = {key: meta[key] for key in ("labels", "mean", "std") if key in meta} | {"options": meta["options"]}
    return students.whole_student(name, head, tail, meta["options"]), handed


def _meta(
    name: str, options: dict[str, Any], classes: int, bottleneck: Any, basis: Mapping[str, Any], *, keras: bool
) -> dict[str, Any]:
    network = models.create(name, num_classes=classes, bottleneck=bottleneck, **options)
    mean, std = (keras_names.MEAN, keras_names.STD) if keras else (IMAGENET_MEAN, IMAGENET_STD)
    return {
        "name": name,
        "options": dict(network.options),
        "num_classes": classes,
        "bottleneck": bottleneck,
        "image_size": network.spec.image_size,
        "mean": list(basis.get("mean", mean)),
        "std": list(basis.get("std", std)),
        "num_batches_tracked": basis.get("num_batches_tracked", {}),
    }


def _labels(path: str | None, classes: int, handed: Any) -> tuple[list[list[str]], list[str]]:
    """For each output its names, [] where nobody knows them, and what to say about it."""
    note = []
    if path is None and handed:
        return [list(names) for names in handed], ["classes: named as the teacher's"]
    if path is None and classes not in (1000, 1001):
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
