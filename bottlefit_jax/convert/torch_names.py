"""PyTorch's names and layouts for our variables, and back.

A parameter's path here is torchvision's name with `/` for `.`, so conversion is two small tables: `PREFIXES`, the
beginnings that differ, and `LEAVES`, the last part of the name with the order of the axes. The model itself provides
the list of its variables (`jax.eval_shape` of its `init`). The names are torchvision's, for an EfficientNet-Lite
those of `efficientnet_lite_pytorch`, for the students those of the BottleFit reference (`bottleneck.encoder.N`, in a
DenseNet `features.bottleneck.encoder.N`).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from bottlefit_jax import models
from bottlefit_jax.convert.weight_sets import without_wrappers
from bottlefit_jax.errors import UserError
from bottlefit_jax.models import Network
from bottlefit_jax.models.designs import PARTS

_OWN = rf"^({'|'.join(PARTS)})\."  # of the bottleneck, and not the backbone's
# Our dotted path -> PyTorch's; the first rewrite of a family that matches is applied.
PREFIXES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "resnet": ((_OWN, r"bottleneck.\1."),),
    "densenet": ((_OWN, r"features.bottleneck.\1."), (r"^(?!classifier\.)", "features.")),
    "mobilenet": ((_OWN, r"bottleneck.\1."), (r"^features(\d+)\.", r"features.\1.")),
    "inception": ((_OWN, r"bottleneck.\1."),),
    "efficientnet_lite": (
        *((_OWN, r"bottleneck.\1."), (r"^block(\d+)\.", r"_blocks.\1._"), (r"^classifier\.1\.", "_fc.")),
        *((r"^stem\.conv\.", "_conv_stem."), (r"^stem\.bn\.", "_bn0.")),
        *((r"^conv_head\.conv\.", "_conv_head."), (r"^conv_head\.bn\.", "_bn1.")),
    ),
}
# Spellings of older files -> today's.
OLD_SPELLINGS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "densenet": ((r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2"),),
}
SHOWN = 5  # problems that a message lists
COUNTER = ".num_batches_tracked"
CLASSIFIER_BIAS: Mapping[str, str] = {
    "resnet": "fc.bias", "densenet": "classifier.bias", "mobilenet": "classifier.1.bias", "inception": "fc.bias",
    "efficientnet_lite": "_fc.bias",
}  # fmt: skip


class Leaf(NamedTuple):
    """PyTorch's last name for a leaf, and the axes of its array in our order."""

    name: str
    axes: tuple[int, ...]


# (our leaf, number of axes) -> Leaf
LEAVES: Mapping[tuple[str, int], Leaf] = {
    ("kernel", 4): Leaf("weight", (2, 3, 1, 0)),  # OIHW -> HWIO; I is 1 of a depthwise one in both
    ("kernel_transposed", 4): Leaf("weight", (2, 3, 0, 1)),  # IOHW -> HWIO
    ("kernel", 2): Leaf("weight", (1, 0)),
    ("bias", 1): Leaf("bias", (0,)),
    ("scale", 1): Leaf("weight", (0,)),
    ("mean", 1): Leaf("running_mean", (0,)),
    ("var", 1): Leaf("running_var", (0,)),
    ("beta", 1): Leaf("beta", (0,)),
    ("gamma", 2): Leaf("gamma", (1, 0)),
}


def from_torch(
    name: str, state_dict: Mapping[str, Any], *, bottleneck: dict[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """Convert a PyTorch state dict to our variables.

    Args:
        name: the model, as `models.create` knows it.
        state_dict: PyTorch's keys to arrays. `num_batches_tracked` is skipped, prefixes of wrappers such as `module.`
            are removed, and the spelling of torchvision's older DenseNets is understood.
        bottleneck: of a student, as for `models.create`.
        **options: as for `models.create`; the number of classes follows from the classifier's bias.

    Returns:
        `{"params": ..., "batch_stats": ...}` of float32 NumPy arrays. Static ranges, which PyTorch files do not have,
        are zeros.

    Raises:
        UserError: keys are unknown or missing, or arrays have another shape or values that are not finite floats. The
            message lists the first problems.
    """
    arrays = rename(name, state_dict)
    return read_variables(create_network(name, arrays, bottleneck, options), arrays)


def rename(name: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict under torchvision's present names, without the prefixes of wrappers."""
    table = OLD_SPELLINGS.get(models.find_spec(name).family, ())
    return {_rewrite(key, table): value for key, value in without_wrappers(state_dict).items()}


def create_network(
    name: str, arrays: Mapping[str, Any], bottleneck: dict[str, Any] | None, options: Mapping[str, Any]
) -> Network:
    """Create the network of a state dict, with as many classes as its classifier's bias has.

    Args:
        name: the model.
        arrays: as `rename` returns them.
        bottleneck: of a student.
        options: of `models.create`.
    """
    bias = np.asarray(arrays.get(CLASSIFIER_BIAS[models.find_spec(name).family], ()))
    # Without a bias any number will do: the bias is then reported as missing.
    return models.create(name, num_classes=bias.size or 1000, bottleneck=bottleneck, **options)


def read_variables(network: Network, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a state dict to the variables of a network; see `from_torch`.

    Args:
        network: as `create_network` returns it.
        arrays: as `rename` returns them.

    Raises:
        UserError: as `from_torch`.
    """
    given = {key: np.asarray(value) for key, value in arrays.items() if not key.endswith(COUNTER)}
    flat, problems = {}, []
    for path, shape in _shapes(network).items():
        if path[0] == "ranges":
            flat[path] = np.zeros(shape, np.float32)
            continue
        key, axes = _torch_key(path, len(shape), network.spec.family)
        if key not in given:
            problems.append(f"missing {key}")
            continue
        value = given.pop(key)
        if value.ndim != len(axes) or value.transpose(axes).shape != shape:
            problems.append(f"{key} has shape {value.shape}, expected {_torch_shape(shape, axes)}")
            continue
        if not jnp.issubdtype(value.dtype, jnp.floating):
            problems.append(f"{key} holds {value.dtype} and not floating-point numbers")
            continue
        with np.errstate(over="ignore"):
            flat[path] = np.ascontiguousarray(value.transpose(axes), np.float32)
        if not np.isfinite(flat[path]).all():
            problems.append(f"{key} has values that are not finite")
    problems += [f"unknown {key}" for key in given]
    _raise(network.spec.name, problems)
    return traverse_util.unflatten_dict(flat)


def read_counters(name: str, arrays: Mapping[str, Any]) -> dict[str, int]:
    """Return the `num_batches_tracked` of a state dict, which no network needs to compute.

    Args:
        name: the model, for the message.
        arrays: as `rename` returns them.

    Raises:
        UserError: a counter belongs to no batch norm of the file, or is not an integer.
    """
    counters, problems = {}, []
    for key, value in arrays.items():
        if not key.endswith(COUNTER):
            continue
        array = np.asarray(value)
        if f"{key.removesuffix(COUNTER)}.running_mean" not in arrays:
            problems.append(f"unknown {key}")
        elif array.size != 1 or not np.issubdtype(array.dtype, np.integer):
            problems.append(f"{key} holds {array.dtype} of shape {array.shape} and not one integer")
        else:
            counters[key] = int(array.reshape(()))
    _raise(name, problems)
    return counters


def to_torch(
    name: str, variables: Mapping[str, Any], *, bottleneck: dict[str, Any] | None = None, **options: Any
) -> dict[str, np.ndarray]:
    """Convert our variables to a PyTorch state dict of NumPy arrays; the inverse of `from_torch`.

    Args:
        name: the model.
        variables: `{"params", "batch_stats"}`; static ranges have no place in PyTorch's file and are left out.
        bottleneck: of a student.
        **options: as for `models.create`.

    Returns:
        PyTorch's keys to arrays, without `num_batches_tracked`, which `load_state_dict` adds by itself.

    Raises:
        UserError: variables are unknown or missing, or have another shape.
    """
    family = models.find_spec(name).family
    given = traverse_util.flatten_dict({key: variables[key] for key in ("params", "batch_stats") if key in variables})
    arrays = {path: np.asarray(value) for path, value in given.items()}
    biases = {_dotted(path, family): value for path, value in arrays.items() if path[-1] == "bias"}
    state_dict, problems = {}, []
    for path, shape in _shapes(create_network(name, biases, bottleneck, options)).items():
        if path[0] == "ranges":
            continue
        value = arrays.pop(path, None)
        if value is None:
            problems.append(f"missing {'/'.join(path)}")
        elif value.shape != shape:
            problems.append(f"{'/'.join(path)} has shape {value.shape}, expected {shape}")
        else:
            key, axes = _torch_key(path, len(shape), family)
            state_dict[key] = np.ascontiguousarray(value.transpose(np.argsort(axes)), np.float32)
    problems += [f"unknown {'/'.join(path)}" for path in arrays]
    _raise(name, problems)
    return state_dict


def keys(name: str, *, bottleneck: dict[str, Any] | None = None, **options: Any) -> set[str]:
    """Return the keys of the model's state dict, without `num_batches_tracked`."""
    network = models.create(name, bottleneck=bottleneck, **options)
    shapes = _shapes(network).items()
    return {_torch_key(path, len(shape), network.spec.family)[0] for path, shape in shapes if path[0] != "ranges"}


def _shapes(network: Network) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Path -> shape of every variable of a network."""
    size = network.spec.image_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    abstract: Any = jax.eval_shape(network.init, jax.random.key(0), images)
    flat: Any = traverse_util.flatten_dict(abstract)
    return {path: leaf.shape for path, leaf in flat.items()}


def _torch_key(path: tuple[str, ...], axes: int, family: str) -> tuple[str, tuple[int, ...]]:
    """PyTorch's name of the variable at `path`, and the axes that bring its array into our order."""
    leaf = LEAVES[path[-1], axes]
    return _dotted((*path[:-1], leaf.name), family), leaf.axes


def _dotted(path: tuple[str, ...], family: str) -> str:
    """PyTorch's spelling of `(collection, part, ..., last name)`."""
    return _rewrite(".".join(path[1:]), PREFIXES[family])


def _rewrite(key: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        key, count = re.subn(pattern, replacement, key, count=1)
        if count:
            return key
    return key


def _torch_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[i] for i in np.argsort(axes))


def _raise(name: str, problems: list[str]) -> None:
    if problems:
        raise UserError(misfit(name, problems))


def misfit(name: str, problems: Sequence[str]) -> str:
    """Return one line for weights that do not fit a model: the first problems, and how many more there are.

    Where a file has other names than the model, both the missing and the unknown ones are shown.

    Args:
        name: the model.
        problems: such as "missing fc.bias" or "unknown linear.bias".
    """
    unknown = [problem for problem in problems if problem.startswith("unknown ")]
    others = [problem for problem in problems if problem not in unknown]
    shown = others[: SHOWN - min(2, len(unknown))]
    shown += unknown[: SHOWN - len(shown)]
    more = f"; and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
    count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
    return f"these weights do not fit {name}, {count}: {'; '.join(shown)}{more}"
