"""MobileNetV2 as torchvision builds it (`torchvision/models/mobilenetv2.py`); `features3` is its `features.3`."""

import functools
from typing import Any

import flax.linen as nn
import jax

from bottlefit_jax.models.backbone import Part, Spec
from bottlefit_jax.models.layers import ConvNorm, Linear, Style, global_average

# Rows of residual blocks: expansion, channels, number of blocks, stride of the first.
ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class Expansion(nn.Module):
    """Widen with 1×1, filter each channel with 3×3, narrow with 1×1; the last has no activation."""

    style: Style
    expand: int
    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply it: `[B, h, w, c] -> [B, h/stride, w/stride, channels]`."""
        inner, n = x.shape[-1] * self.expand, 0
        if self.expand != 1:
            x = ConvNorm(self.style, inner, activation=nn.relu6, name="0")(x, train)
            n = 1
        x = ConvNorm(self.style, inner, 3, self.stride, 1, inner, nn.relu6, name=str(n))(x, train)
        x = self.style.conv(self.channels, name=str(n + 1))(x)
        return self.style.norm(name=str(n + 2))(x, train)


class InvertedResidual(nn.Module):
    """An `Expansion`, added to its input where their shapes agree."""

    style: Style
    expand: int
    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply it: `[B, h, w, c] -> [B, h/stride, w/stride, channels]`."""
        y = Expansion(self.style, self.expand, self.channels, self.stride, name="conv")(x, train)
        return x + y if y.shape == x.shape else y


class Classifier(nn.Module):
    """Dropout and the linear layer: `[B, c] -> [B, classes]`."""

    classes: int
    dtype: Any
    dropout: float = 0.2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply it; in training the dropout draws from the rng `dropout`."""
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Linear(self.classes, self.dtype, nn.initializers.normal(0.01), zero_bias=True, name="1")(x)


def mobilenet_parts(num_classes: int, dtype: Any, *, padding: str) -> tuple[Part, ...]:
    """Return the parts of MobileNetV2.

    Args:
        num_classes: outputs of the classifier.
        dtype: the type that it computes in.
        padding: `torch`, the same on both sides, or `same`, TensorFlow's.
    """
    style = Style(dtype, same=padding == "same")
    stem = functools.partial(ConvNorm, style, 32, 3, 2, 1, activation=nn.relu6)
    parts = [Part("features0", stem, channels=32, window=(3, 2, 1))]
    for expand, channels, count, first in ROWS:
        for i in range(count):
            stride = 1 if i else first
            make = functools.partial(InvertedResidual, style, expand, channels, stride)
            parts.append(Part(f"features{len(parts)}", make, channels=channels, window=(3, stride, 1)))
    last = functools.partial(ConvNorm, style, 1280, activation=nn.relu6)
    parts.append(Part(f"features{len(parts)}", last, channels=1280))
    return (*parts, Part("classifier", functools.partial(Classifier, num_classes, dtype), global_average))


SPECS = (
    Spec(
        name="mobilenet_v2",
        parts=mobilenet_parts,
        family="mobilenet",
        cut="features6",
        matched=("features6", "features13", "features18"),
        options={"padding": ("torch", ("torch", "same"))},
    ),
)
