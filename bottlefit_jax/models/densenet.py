"""DenseNet as torchvision builds it (`torchvision/models/densenet.py`); the feature `denseblock4` is before `norm5`."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bottlefit_jax.models.backbone import Part, Spec
from bottlefit_jax.models.layers import KAIMING_FAN_IN, Linear, Style, average_pool, global_average, max_pool_3x3

GROWTH = 32


class DenseLayer(nn.Module):
    """Norm, ReLU, 1×1 to four times the growth, norm, ReLU, 3×3: `[B, h, w, c] -> [B, h, w, GROWTH]`."""

    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the layer."""
        x = self.style.conv(4 * GROWTH, name="conv1")(nn.relu(self.style.norm(name="norm1")(x, train)))
        return self.style.conv(GROWTH, 3, padding=1, name="conv2")(nn.relu(self.style.norm(name="norm2")(x, train)))


class DenseBlock(nn.Module):
    """Layers, each applied to the outputs of all before it: `[B, h, w, c] -> [B, h, w, c + layers · GROWTH]`."""

    style: Style
    layers: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the block."""
        for i in range(self.layers):
            x = jnp.concatenate([x, DenseLayer(self.style, name=f"denselayer{i + 1}")(x, train)], axis=-1)
        return x


class Transition(nn.Module):
    """Norm, ReLU, 1×1 to half the channels, average-pool 2×2: `[B, h, w, c] -> [B, h/2, w/2, c/2]`."""

    style: Style

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the transition."""
        y = nn.relu(self.style.norm(name="norm")(x, train))
        return average_pool(self.style.conv(x.shape[-1] // 2, name="conv")(y), (2, 2), (2, 2))


def densenet_parts(num_classes: int, dtype: Any, *, blocks: tuple[int, ...]) -> tuple[Part, ...]:
    """Return the parts of a DenseNet.

    Args:
        num_classes: outputs of the classifier.
        dtype: the type that it computes in.
        blocks: how many layers each of the four blocks has.
    """
    style, channels = Style(dtype, KAIMING_FAN_IN), 64
    parts = [
        Part(
            "conv0",
            functools.partial(style.conv, channels, 7, stride=2, padding=3),
            channels=channels,
            window=(7, 2, 3),
        ),
        Part("norm0", style.norm, channels=channels),
        Part("relu0", function=nn.relu, channels=channels),
        Part("pool0", function=max_pool_3x3, channels=channels, window=(3, 2, 1)),
    ]
    for i, layers in enumerate(blocks, 1):
        channels += layers * GROWTH
        parts.append(Part(f"denseblock{i}", functools.partial(DenseBlock, style, layers), channels=channels))
        if i < len(blocks):
            channels //= 2
            parts.append(
                Part(f"transition{i}", functools.partial(Transition, style), channels=channels, window=(2, 2, 0))
            )
    linear = functools.partial(Linear, num_classes, dtype, zero_bias=True)
    return (*parts, Part("norm5", style.norm, channels=channels), Part("classifier", linear, _relu_average))


def _relu_average(x: jax.Array) -> jax.Array:
    return global_average(nn.relu(x))


def _spec(depth: int, *blocks: int) -> Spec:
    return Spec(
        name=f"densenet{depth}",
        parts=functools.partial(densenet_parts, blocks=blocks),
        family="densenet",
        cut="transition2",
        matched=("transition2", "transition3", "denseblock4"),
    )


SPECS = (_spec(121, 6, 12, 24, 16), _spec(169, 6, 12, 32, 32), _spec(201, 6, 12, 48, 32))
