"""PyTorch's names and layouts for our variables, and back.

A parameter's path here is torchvision's name with `/` for `.`, so conversion is two small tables: `PREFIXES`, the
beginnings that differ, and `LEAVES`, the last part of the name with the order of the axes. Which variables there
are is asked of the model itself (`jax.eval_shape` of its `init`). The names are torchvision's, for the students
those of the BottleFit reference (`bottleneck.encoder.N`, in a DenseNet `features.bottleneck.encoder.N`).
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
from bottlefit_jax.models.designs import PARTS

_OWN = rf"^({'|'.join(PARTS)})\."  # of the bottleneck, and not the backbone's
# Our dotted path -> PyTorch's; of a family's rewrites the first that matches is applied.
PREFIXES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "resnet": ((_OWN, r"bottleneck.\1."),),
    "densenet": ((_OWN, r"features.bottleneck.\1."), (r"^(?!classifier\.)", "features.")),
    "mobilenet": ((_OWN, r"bottleneck.\1."), (r"^features(\d+)\.", r"features.\1.")),
    "inception": ((_OWN, r"bottleneck.\1."),),
}
# Spellings of older files -> today's.
OLD_SPELLINGS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "densenet": ((r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2"),),
}
SHOWN = 5  # problems on the line
COUNTER = ".num_batches_tracked"
CLASSIFIER_BIAS: Mapping[str, str] = {
    "resnet": "fc.bias", "densenet": "classifier.bias", "mobilenet": "classifier.1.bias", "inception": "fc.bias",
}  # fmt: skip


class Leaf(NamedTuple):
    """PyTorch's last name for a leaf, and the axes of its array in the order in which we keep them."""

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
}


def from_torch(
    name: str, state_dict: Mapping[str, Any], *, bottleneck: dict[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """A PyTorch state dict as our variables.

    Args:
        name: the model, as `models.create` knows it.
        state_dict: PyTorch's keys to arrays. `num_batches_tracked` is skipped (`counters` has it), what wrappers such
            as `module.` put before every key is taken off, and torchvision's older DenseNet spelling is understood.
        bottleneck: of a student, as for `models.create`.
        **options: as for `models.create`; the number of classes follows from the classifier's bias.

    Returns:
        `{"params": ..., "batch_stats": ...}` of float32 NumPy arrays; static ranges, which PyTorch files do not
        have, are there as zeros. Keys left over, missing or of another shape, and values that are no finite floats,
        are one UserError that names the first.
    """
    family = _family(name)
    given = {key: np.asarray(value) for key, value in _renamed(state_dict, family) if not key.endswith(COUNTER)}
    expected = _variables(name, bottleneck, options, _classes(given, family))
    flat, problems = {}, []
    for path, shape in expected.items():
        if path[0] == "ranges":
            flat[path] = np.zeros(shape, np.float32)
            continue
        key, axes = _torch_key(path, len(shape), family)
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
    _raise(name, problems)
    return traverse_util.unflatten_dict(flat)


def counters(name: str, state_dict: Mapping[str, Any]) -> dict[str, int]:
    """The `num_batches_tracked` of a state dict, which no network computes with, under today's keys.

    Raises:
        UserError: one belongs to no batch norm of the file, or is no whole number; it names the first.
    """
    renamed = dict(_renamed(state_dict, _family(name)))
    found, problems = {}, []
    for key, value in renamed.items():
        if not key.endswith(COUNTER):
            continue
        array = np.asarray(value)
        if f"{key.removesuffix(COUNTER)}.running_mean" not in renamed:
            problems.append(f"unknown {key}")
        elif array.size != 1 or not np.issubdtype(array.dtype, np.integer):
            problems.append(f"{key} holds {array.dtype} of shape {array.shape} and not one integer")
        else:
            found[key] = int(array.reshape(()))
    _raise(name, problems)
    return found


def to_torch(
    name: str, variables: Mapping[str, Any], *, bottleneck: dict[str, Any] | None = None, **options: Any
) -> dict[str, np.ndarray]:
    """Our variables as a PyTorch state dict of NumPy arrays; the inverse of `from_torch`.

    Args:
        name: the model.
        variables: `{"params", "batch_stats"}`; static ranges have no place in PyTorch's file and are left out.
        bottleneck: of a student.
        **options: as for `models.create`.

    Returns:
        Without `num_batches_tracked`, which `load_state_dict` adds by itself.
    """
    family = _family(name)
    given = traverse_util.flatten_dict({key: variables[key] for key in ("params", "batch_stats") if key in variables})
    arrays = {path: np.asarray(value) for path, value in given.items()}
    biases = {_dotted(path, family): value for path, value in arrays.items() if path[-1] == "bias"}
    expected = _variables(name, bottleneck, options, _classes(biases, family))
    out, problems = {}, []
    for path, shape in expected.items():
        if path[0] == "ranges":
            continue
        value = arrays.pop(path, None)
        if value is None:
            problems.append(f"missing {'/'.join(path)}")
        elif value.shape != shape:
            problems.append(f"{'/'.join(path)} has shape {value.shape}, expected {shape}")
        else:
            key, axes = _torch_key(path, len(shape), family)
            out[key] = np.ascontiguousarray(value.transpose(np.argsort(axes)), np.float32)
    problems += [f"unknown {'/'.join(path)}" for path in arrays]
    _raise(name, problems)
    return out


def keys(name: str, *, num_classes: int = 1000, bottleneck: dict[str, Any] | None = None, **options: Any) -> set[str]:
    """The keys of the model's state dict, without `num_batches_tracked`."""
    family = _family(name)
    expected = _variables(name, bottleneck, options, num_classes)
    return {_torch_key(path, len(shape), family)[0] for path, shape in expected.items() if path[0] != "ranges"}


def _variables(name: str, bottleneck: dict[str, Any] | None, options: dict, classes: int) -> dict[tuple, tuple]:
    """Path -> shape of every variable of the model."""
    module = models.create(name, num_classes=classes, bottleneck=bottleneck, **options)
    size = module.spec.image_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    abstract: Any = jax.eval_shape(module.init, jax.random.key(0), images)
    flat: Any = traverse_util.flatten_dict(abstract)
    return {path: leaf.shape for path, leaf in flat.items()}


def _torch_key(path: tuple[str, ...], axes: int, family: str) -> tuple[str, tuple[int, ...]]:
    """PyTorch's name of the variable at `path`, and the axes that bring its array into our order."""
    leaf = LEAVES[path[-1], axes]
    return _dotted((*path[:-1], leaf.name), family), leaf.axes


def _dotted(path: tuple[str, ...], family: str) -> str:
    """PyTorch's spelling of `(collection, part, ..., last name)`."""
    return _rewrite(".".join(path[1:]), PREFIXES[family])


def _renamed(state_dict: Mapping[str, Any], family: str) -> list[tuple[str, Any]]:
    """(key as torchvision spells it today, value)."""
    table = OLD_SPELLINGS.get(family, ())
    return [(_rewrite(key, table), value) for key, value in without_wrappers(state_dict).items()]


def _rewrite(key: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        key, count = re.subn(pattern, replacement, key, count=1)
        if count:
            return key
    return key


def _classes(arrays: Mapping[str, np.ndarray], family: str) -> int:
    """How many classes the classifier's bias has; without one 1000, and the bias is reported missing."""
    bias = arrays.get(CLASSIFIER_BIAS[family])
    return 1000 if bias is None or not bias.size else bias.size


def _family(name: str) -> str:
    return models.create(name).spec.family


def _torch_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[i] for i in np.argsort(axes))


def _raise(name: str, problems: list[str]) -> None:
    if problems:
        raise UserError(misfit(name, problems))


def misfit(name: str, problems: Sequence[str]) -> str:
    """One line for weights that do not fit a model: the first problems, and how many more there are.

    Where names are missing because others stand in their place, both kinds are shown.
    """
    unknown = [problem for problem in problems if problem.startswith("unknown ")]
    others = [problem for problem in problems if problem not in unknown]
    shown = others[: SHOWN - min(2, len(unknown))]
    shown += unknown[: SHOWN - len(shown)]
    more = f"; and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
    count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
    return f"these weights do not fit {name}, {count}: {'; '.join(shown)}{more}"
