"""Find the sets of weights in a checkpoint (raw, averaged, several networks), and choose the one to read.

A set is recognised by its form, not by its key: a dictionary of named arrays, at any depth. Where there are several,
the user chooses one.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bottlefit_jax.errors import UserError

# Prefixes of every name, in any order: DataParallel, AveragedModel, and scripts with the network in an attribute.
WRAPPERS = ("module.", "model.", "net.", "network.")
# Inserted between any two names: torch.compile, FSDP, activation checkpointing.
INSIDE = re.compile(r"(^|\.)(?:(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")
AVERAGED = "n_averaged"  # the counter of torch.optim.swa_utils.AveragedModel
OPTIMIZER = "param_groups"  # marks an optimiser's state, whose arrays are no weights
TOP = "."  # the name of the set that is the file itself
DEPTH = 4  # levels of nested dictionaries that are searched
NETWORK = 20  # arrays of a network at least; fewer are those of a layer


@dataclasses.dataclass(frozen=True)
class WeightSet:
    """One set of weights.

    Attributes:
        name: the keys that lead to it, joined by dots, or `TOP`.
        values: name -> array, and any other values among them; None where the arrays have no names.
        beside: the other content of the dictionaries that lead to it.
    """

    name: str
    values: Mapping[str, Any] | None
    beside: dict[str, Any]


def find(content: Mapping[Any, Any]) -> list[WeightSet]:
    """Return all sets of weights in a checkpoint. An array is any value with `ndim` and `shape`."""
    sets: list[WeightSet] = []
    _search(content, (), {}, sets)
    kernels = [item for item in sets if item.values is None or _has_array(item.values.values(), axes=2)]
    chosen = kernels if any(item.values is not None for item in kernels) else sets
    values = [item.values for item in chosen]
    return [
        dataclasses.replace(part, beside={k: v for k, v in part.beside.items() if not any(v is it for it in values)})
        for item in chosen
        for part in _side_by_side(item)
    ]


def choose(path: Path, sets: list[WeightSet], name: str | None) -> WeightSet:
    """Return the set with the given name, or without a name the only set.

    Args:
        path: of the file, for the messages.
        sets: of the file, at least one.
        name: as `--weights` states it.

    Raises:
        UserError: there are several and no name, none of that name, or its arrays have no names.
    """
    names = ", ".join(item.name for item in sets)
    if name is None:
        if len(sets) > 1:
            raise UserError(f"{path} holds {len(sets)} sets of weights: {names}; choose one with --weights NAME")
        return sets[0]
    chosen = next((item for item in sets if item.name == name), None)
    if chosen is None:
        raise UserError(f"--weights {name}: {path} has {names} ({TOP} is the file itself)")
    if chosen.values is None:
        raise UserError(
            f"--weights {name} is a list of arrays without names, which fits no network: copy the averaged weights "
            "into the network with the program that made the file, and save the network's state dict"
        )
    return chosen


def without_wrappers(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights under the network's own names: `_orig_mod.model.conv1.weight` becomes `conv1.weight`."""
    renamed = {INSIDE.sub(r"\1", key): value for key, value in weights.items()}
    if len(renamed) != len(weights):  # two names would become one
        renamed = dict(weights)
    while True:
        inner = {key: value for key, value in renamed.items() if key != AVERAGED}
        wrapper = next((w for w in WRAPPERS if inner and all(key.startswith(w) for key in inner)), None)
        if wrapper is None:
            return renamed
        renamed = {key.removeprefix(wrapper): value for key, value in inner.items()}


def averaged_steps(weights: Mapping[str, Any]) -> int | None:
    """Return how many steps PyTorch's AveragedModel averaged; None where the weights are not of one."""
    value = next((value for key, value in weights.items() if key.rpartition(".")[2] == AVERAGED), None)
    return None if value is None else int(value)


def _search(content: Mapping[Any, Any], path: tuple[str, ...], beside: dict[str, Any], sets: list[WeightSet]) -> None:
    """Append to `sets` those of a dictionary and of all under it; `path` and `beside` as in `WeightSet`."""
    if OPTIMIZER in content or not all(isinstance(key, str) for key in content):
        return
    if _has_array(content.values()):
        sets.append(WeightSet(".".join(path) or TOP, content, beside))
    for key, value in content.items():
        around = {**beside, **{other: item for other, item in content.items() if other != key}}
        if isinstance(value, Mapping) and len(path) < DEPTH:
            _search(value, (*path, key), around, sets)
        elif isinstance(value, list | tuple) and len(value) >= NETWORK and _has_array(value, axes=2):
            sets.append(WeightSet(".".join((*path, key)), None, around))


def _has_array(values: Any, *, axes: int = 1) -> bool:
    return any(getattr(value, "ndim", 0) >= axes for value in values)


def _side_by_side(item: WeightSet) -> list[WeightSet]:
    """Split a set that holds equal networks under prefixes (`net.…`, `net_ema.…`); another is returned as it is."""
    groups: dict[str, dict[str, Any]] = {}
    plain = without_wrappers(item.values or {})
    arrays = {key for key, value in plain.items() if getattr(value, "ndim", 0)}
    for key, value in plain.items():
        first, _, rest = key.partition(".")
        groups.setdefault(first, {})[rest] = value
    groups = {first: group for first, group in groups.items() if any(f"{first}.{key}" in arrays for key in group)}
    shapes = [
        {key: tuple(value.shape) for key, value in without_wrappers(group).items() if getattr(value, "ndim", 0)}
        for group in groups.values()
    ]
    alike = len(shapes) > 1 and all(shape == shapes[0] for shape in shapes) and len(shapes[0]) >= NETWORK
    if not alike or any("." not in key for key in arrays):
        return [item]
    above = "" if item.name == TOP else f"{item.name}."
    return [dataclasses.replace(item, name=f"{above}{first}", values=group) for first, group in groups.items()]
