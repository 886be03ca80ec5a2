"""A backbone, declared as a sequence of named parts.

A part has torchvision's name of the feature that it computes. Its parameters lie under that name, then under
torchvision's inner names.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a backbone: first `function`, then the module that `make` creates; either may be absent.

    Args:
        name: torchvision's name of the feature.
        make: creates a module that is called with `(x, train)`.
        function: applied to the input first, without parameters.
        channels: of the output; 0 where the output has no spatial axes, so that it cannot be the cut.
        window: kernel, stride and padding, which determine the output's size.
        side: the feature where a side branch starts; the branch runs in training only, and its output is
            `features['aux_logits']`.
    """

    name: str
    make: Callable[[], nn.Module] | None = None
    function: Callable[[jax.Array], jax.Array] | None = None
    channels: int = 0
    window: tuple[int, int, int] = (1, 1, 0)
    side: str | None = None

    def length(self, n: int) -> int:
        """Return the number of output rows for n input rows."""
        kernel, stride, padding = self.window
        return (n + 2 * padding - kernel) // stride + 1


@dataclasses.dataclass(frozen=True, eq=False)
class Spec:
    """A backbone that `create` knows.

    Args:
        name: torchvision's.
        parts: `(num_classes, dtype, **options) -> tuple of Part`.
        family: a key of `bottleneck.DESIGNS`, the bottleneck designs that it has.
        cut: the feature at which a student is cut, unless the bottleneck names another.
        matched: the features that stage 1 matches.
        options: name -> (default, allowed values or type).
        image_size: side of the images that it was designed for, pixels.
        mean: of the images that its released weights are for, scaled to 0..1; None: ImageNet's.
        std: likewise.
    """

    name: str
    parts: Callable[..., tuple[Part, ...]]
    family: str
    cut: str
    matched: tuple[str, ...]
    options: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    image_size: int = 224
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __repr__(self) -> str:
        return f"<{self.name}>"


@functools.lru_cache(maxsize=64)
def parts_of(spec: Spec, num_classes: int, dtype: Any, options: tuple[tuple[str, Any], ...]) -> tuple[Part, ...]:
    """Return the parts of a backbone; a network needs them many times.

    Args:
        spec: the backbone.
        num_classes: outputs of the classifier.
        dtype: the type that it computes in.
        options: of the backbone, all of them.
    """
    return spec.parts(num_classes, dtype, **dict(options))
