"""What a network needs besides its arrays, as one text that a file of weights can hold.

safetensors has a place for it in its header; in a PyTorch file it lies in the `_metadata` that every state dict has,
where `load_state_dict` takes no notice of it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.errors import UserError

KEY = "bottlefit_jax"
FORMAT = 1
# Of a network's meta, what goes into the text.
TRAVELS = ("name", "options", "num_classes", "bottleneck", "image_size", "resize", "mean", "std", "labels")
NEEDED = ("name", "options", "bottleneck", "image_size", "mean", "std", "labels")


def write(meta: Mapping[str, Any], variables: Mapping[str, Any]) -> str:
    """The text for a network, with the static range of its quantiser where it has one."""
    about = {"format": FORMAT, **{key: meta[key] for key in TRAVELS if key in meta}}
    if "ranges" in variables:
        ranges = variables["ranges"]["quantizer"]
        about["ranges"] = {key: np.asarray(ranges[key], np.float32).tolist() for key in ("low", "high")}
    return json.dumps(about)


def read(path: Path, text: str | None) -> dict[str, Any]:
    """What the text of a file says; {} without one.

    Raises:
        UserError: it is not a text that `write` made, or one of a later format.
    """
    if text is None:
        return {}
    try:
        about = json.loads(text)
    except (TypeError, ValueError):
        about = None
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise UserError(f"{path}: what it says of its network ({KEY!r}) is damaged; give --model and drop that text")
    if about["format"] > FORMAT:
        raise UserError(f"{path} was written by a later version: its format is {about['format']}, not {FORMAT}")
    wrong = next((key for key in NEEDED if not _valid(key, about.get(key))), None)
    if wrong is not None:
        raise UserError(f"{path}: what it says of its network is damaged: {wrong} is {about.get(wrong)!r}")
    return about


def check_pixels(name: str, values: Any) -> tuple[float, float, float]:
    """Three numbers for red, green and blue, of images scaled to 0..1.

    Args:
        name: "mean" or "std", or what the user calls it.
        values: to be checked.

    Raises:
        UserError: other values.
    """
    numbers = isinstance(values, list | tuple) and all(isinstance(v, int | float) for v in values)
    if not numbers or len(values) != 3:
        raise UserError(f"{name} is {values!r}; it needs three numbers, for red, green and blue")
    least = 0.0 if name.endswith("mean") else 1e-6
    if not all(least <= value <= 1 for value in values):
        raise UserError(f"{name} is {list(values)}; images are scaled to 0..1, so each must lie from {least:g} to 1")
    return tuple(float(value) for value in values)  # type: ignore[return-value]


def _valid(key: str, value: Any) -> bool:
    if key in ("mean", "std"):
        try:
            check_pixels(key, value)
        except UserError:
            return False
        return True
    if key == "labels":
        return isinstance(value, list) and all(isinstance(names, list) and names for names in value)
    if key == "bottleneck":
        return value is None or isinstance(value, dict)
    kind = {"name": str, "options": dict, "image_size": int}[key]
    return isinstance(value, kind) and (kind is not int or value >= 1)
