"""What a finished network is: the description that lies beside its arrays.

`checkpoint.save_variables` writes it, `checkpoint.load_variables` and `checkpoint.load_meta` read it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import IMAGENET_MEAN, IMAGENET_STD

FORMAT = 1
REQUIRED = ("name", "num_classes", "bottleneck", "labels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkMeta:
    """The description of a finished network. Files of older runs lack some keys, for which the defaults stand.

    Attributes:
        name: the model, as `models.create` knows it.
        num_classes: outputs of its classifier.
        bottleneck: a student's, as `models.create` takes it; None for a teacher.
        labels: the names of each class, in the order of the outputs; () where they are unknown.
        options: of `models.create`, such as width.
        image_size: side of the square images that it was trained with, pixels; 0 where it is unknown.
        resize: short side before the centre crop of evaluation, pixels; 0 for image_size × 256 / 224.
        mean: of those images per channel, scaled to 0..1.
        std: likewise.
        num_batches_tracked: PyTorch's counters of a converted network, by their keys in its state dict.
        source: of a converted network, the file's name and SHA-256.
        digest: of the arrays (`checkpoint.digest`); `checkpoint.save_variables` sets it.
    """

    name: str
    num_classes: int
    bottleneck: dict[str, Any] | None
    labels: tuple[tuple[str, ...], ...]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    image_size: int = 0
    resize: int = 0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    num_batches_tracked: dict[str, int] = dataclasses.field(default_factory=dict)
    source: dict[str, str] | None = None
    digest: str = ""

    @classmethod
    def from_json(cls, values: Any, path: Path) -> "NetworkMeta":
        """Check what was read from a file. Keys of later versions are ignored.

        Args:
            values: the file's content, as `json.loads` returns it.
            path: of the file or folder, for the messages.

        Raises:
            UserError: a key is missing or has an invalid value, or a later version wrote the file.
        """
        if not isinstance(values, Mapping):
            raise UserError(f"{path} is damaged: its description is {values!r}, not a dictionary")
        version = values.get("format", FORMAT)
        if isinstance(version, int) and version > FORMAT:
            raise UserError(f"{path} was written by a later version: its format is {version}, not {FORMAT}")
        if missing := [key for key in REQUIRED if key not in values]:
            raise UserError(f"{path} does not hold a finished network: nothing in it says {', '.join(missing)}")
        known = {key: values[key] for key in _CHECKS if key in values}
        for key, value in known.items():
            is_valid, expected = _CHECKS[key]
            if not is_valid(value):
                raise UserError(f"{path} is damaged: its {key} is {value!r}, not {expected}")
        known["labels"] = tuple(tuple(names) for names in known["labels"])
        known |= {key: tuple(known[key]) for key in ("mean", "std") if key in known}
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file, which `from_json` reads."""
        values = {
            **{key: getattr(self, key) for key in ("name", "num_classes", "image_size", "resize", "digest")},
            "format": FORMAT,
            "options": dict(self.options),
            "bottleneck": None if self.bottleneck is None else dict(self.bottleneck),
            "labels": [list(names) for names in self.labels],
            "mean": list(self.mean),
            "std": list(self.std),
        }
        if self.num_batches_tracked:
            values["num_batches_tracked"] = dict(self.num_batches_tracked)
        if self.source is not None:
            values["source"] = dict(self.source)
        return values


def _is_integer(value: Any, least: float = -math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_list(value: Any, is_valid: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(map(is_valid, value))


def _is_table(value: Any, is_valid: Callable[[Any], bool]) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) and is_valid(value[key]) for key in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_pixel(value: Any) -> bool:
    """Whether it is the value of one channel for red, green and blue, of images scaled to 0..1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_names(value: Any) -> bool:
    return _is_list(value, _is_text) and len(value) > 0


# key -> (whether a value is valid, what would be)
_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_is_text, "a model's name"),
    "num_classes": (lambda value: _is_integer(value, 1), "an integer from 1 up"),
    "bottleneck": (lambda value: value is None or _is_table(value, lambda _: True), "a dictionary or null"),
    "labels": (lambda value: _is_list(value, _is_names), "a list with a list of names for each class"),
    "options": (lambda value: _is_table(value, lambda _: True), "a dictionary"),
    "image_size": (lambda value: _is_integer(value, 0), "an integer from 0 up"),
    "resize": (lambda value: _is_integer(value, 0), "an integer from 0 up"),
    "mean": (lambda value: _is_list(value, _is_pixel) and len(value) == 3, "three numbers from 0 to 1"),
    "std": (
        lambda value: _is_list(value, _is_pixel) and len(value) == 3 and all(value),
        "three numbers above 0 and at most 1",
    ),
    "num_batches_tracked": (lambda value: _is_table(value, _is_integer), "a dictionary of integers"),
    "source": (lambda value: _is_table(value, _is_text), "a dictionary of strings"),
    "digest": (_is_text, "a string"),
}
