"""The description of a network, and its quantiser's static range, as one text in a file of weights.

safetensors has a place for it in its header. In a PyTorch file it lies in the `_metadata` that every state dict has,
which `load_state_dict` ignores.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.errors import UserError
from bottlefit_jax.training.network_meta import NetworkMeta

KEY = "bottlefit_jax"
FORMAT = 1
# The keys of a description that go into the text.
KEYS = ("name", "options", "num_classes", "bottleneck", "image_size", "resize", "mean", "std", "labels")
REQUIRED = tuple(key for key in KEYS if key != "resize")


@dataclasses.dataclass(frozen=True)
class About:
    """What a file states about its network.

    Attributes:
        meta: the description.
        ranges: the static range of the quantiser, as JSON has it; None without one.
    """

    meta: NetworkMeta
    ranges: Any = None


def write(meta: NetworkMeta, variables: Mapping[str, Any]) -> str:
    """Return the text for a network, with the static range of its quantiser where it has one."""
    values = meta.to_json()
    about = {"format": FORMAT, **{key: values[key] for key in KEYS}}
    if "ranges" in variables:
        ranges = variables["ranges"]["quantizer"]
        about["ranges"] = {key: np.asarray(ranges[key], np.float32).tolist() for key in ("low", "high")}
    return json.dumps(about)


def read(path: Path, text: str | None) -> About | None:
    """Read the text of a file; None without one.

    Args:
        path: of the file, for the messages.
        text: as `write` returned it.

    Raises:
        UserError: the text is damaged, or a later version wrote it.
    """
    if text is None:
        return None
    try:
        values = json.loads(text)
    except (TypeError, ValueError):
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise UserError(f"{path}: its description of the network ({KEY!r}) is damaged; give --model and drop that text")
    if values["format"] > FORMAT:
        raise UserError(f"{path} was written by a later version: its format is {values['format']}, not {FORMAT}")
    if missing := [key for key in REQUIRED if key not in values]:
        raise UserError(f"{path} is damaged: its description of the network has no {', '.join(missing)}")
    return About(NetworkMeta.from_json(values, path), values.get("ranges"))
