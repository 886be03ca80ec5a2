"""Names of a Keras MobileNetV2 whose batch norms were folded into its kernels, in an npz file.

The file has `<layer>.kernel` and `<layer>.bias` of 53 layers, numbered in the order in which they run, as
`tf2_mobilenet_v2_1.0_224` of google-coral/test_data gives them: padding is TensorFlow's, images go from -1 to 1, and
class 0 of 1001 is the background. A batch norm of our network then only adds the layer's bias.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from bottlefit_jax import models
from bottlefit_jax.convert.torch_names import misfit
from bottlefit_jax.errors import UserError
from bottlefit_jax.models.norms import FOLDED_VARIANCE

NAME = "mobilenet_v2"
OPTIONS: dict[str, Any] = {"padding": "same"}
MEAN = STD = (0.5, 0.5, 0.5)  # pixel / 127.5 - 1
CLASSIFIER = "52_classifier"


def _layers() -> dict[str, tuple[tuple[str, ...], tuple[str, ...] | None]]:
    """Layer of the file -> paths of our convolution (or linear layer) and of the batch norm after it."""
    rows: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [("stem_conv", ("features0", "0"), ("features0", "1"))]
    for block in range(1, 18):
        conv, label = (f"features{block}", "conv"), f"block{block:02d}"
        wide = 0 if block == 1 else 1  # the first block does not widen
        if wide:
            rows.append((f"{label}_expand", (*conv, "0", "0"), (*conv, "0", "1")))
        rows.append((f"{label}_depthwise", (*conv, str(wide), "0"), (*conv, str(wide), "1")))
        rows.append((f"{label}_project", (*conv, str(wide + 1)), (*conv, str(wide + 2))))
    rows.append(("head_conv", ("features18", "0"), ("features18", "1")))
    table = {f"{number:02d}_{name}": (conv, norm) for number, (name, conv, norm) in enumerate(rows)}
    return {**table, CLASSIFIER: (("classifier", "1"), None)}


LAYERS = _layers()


def from_keras(name: str, arrays: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Convert a folded Keras MobileNetV2 to our variables.

    Args:
        name: the model; only `mobilenet_v2` has such a table.
        arrays: `<layer>.kernel` (HWIO; HWC1 where each channel has its own; in × out) and `<layer>.bias`, any float
            type.

    Returns:
        `{"params", "batch_stats"}` of float32 NumPy arrays, and the options with which `models.create` makes their
        network.

    Raises:
        UserError: the model is another, keys are unknown or missing, or arrays have another shape or values that are
            not finite floats. The message lists the first problems.
    """
    if name != NAME:
        raise UserError(f"this is a Keras file, which can only be a {NAME}, not a {name}")
    given = {key: np.asarray(value) for key, value in arrays.items()}
    last = given.get(f"{CLASSIFIER}.bias", np.zeros(1001))
    expected = _shapes(last.size or 1)
    flat, problems = {}, []
    for layer, (conv, norm) in LAYERS.items():
        bias = norm or conv
        for key, path in ((f"{layer}.kernel", (*conv, "kernel")), (f"{layer}.bias", (*bias, "bias"))):
            flat[("params", *path)], more = _take(given, key, expected["params", *path])
            problems += more
        if norm:
            shape = expected["params", *norm, "bias"]
            flat["params", *norm, "scale"] = np.ones(shape, np.float32)
            flat["batch_stats", *norm, "mean"] = np.zeros(shape, np.float32)
            flat["batch_stats", *norm, "var"] = np.full(shape, FOLDED_VARIANCE)
    problems += [f"unknown {key}" for key in given]
    if problems:
        raise UserError(misfit(name, problems))
    assert flat.keys() == expected.keys()
    return traverse_util.unflatten_dict(flat), dict(OPTIONS)


def _take(given: dict[str, np.ndarray], key: str, shape: tuple[int, ...]) -> tuple[np.ndarray | None, list[str]]:
    """Remove the array under `key`, and return it in our layout with a list of its problems."""
    value = given.pop(key, None)
    if value is None:
        return None, [f"missing {key}"]
    depthwise = "_depthwise.kernel" in key
    theirs = (*shape[:2], shape[3], shape[2]) if depthwise else shape
    if value.shape != theirs:
        return None, [f"{key} has shape {value.shape}, expected {theirs}"]
    if not np.issubdtype(value.dtype, np.floating):
        return None, [f"{key} holds {value.dtype} and not floating-point numbers"]
    array = np.ascontiguousarray(value.transpose(0, 1, 3, 2) if depthwise else value, np.float32)  # HWC1 -> HW1C
    return array, [] if np.isfinite(array).all() else [f"{key} has values that are not finite"]


def _shapes(classes: int) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Path -> shape of every variable of our network."""
    module = models.create(NAME, num_classes=classes, **OPTIONS)
    abstract: Any = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    flat: Any = traverse_util.flatten_dict(abstract)
    return {path: leaf.shape for path, leaf in flat.items()}
