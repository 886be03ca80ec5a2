"""ResNet as torchvision builds it (`torchvision/models/resnet.py`): the stride is in the 3×3 convolution."""

import functools
from typing import Any

import flax.linen as nn
import jax

from bottlefit_jax.models.backbone import Part, Spec
from bottlefit_jax.models.layers import ConvNorm, Linear, Style, global_average, max_pool_3x3


class Block(nn.Module):
    """One residual block, two 3×3 convolutions or a 1×1, 3×3, 1×1: `[B, h, w, c] -> [B, h/stride, w/stride, out]`."""

    style: Style
    width: int
    stride: int
    deep: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the block."""
        out = self.width * (4 if self.deep else 1)
        plan = ((self.width, 1, 1), (self.width, 3, self.stride), (out, 1, 1))
        if not self.deep:
            plan = ((self.width, 3, self.stride), (out, 3, 1))
        y = x
        for i, (channels, kernel, stride) in enumerate(plan, 1):
            y = self.style.conv(channels, kernel, stride=stride, padding=kernel // 2, name=f"conv{i}")(y)
            y = self.style.norm(name=f"bn{i}")(y, train)
            if i < len(plan):
                y = nn.relu(y)
        if self.stride != 1 or x.shape[-1] != out:
            x = ConvNorm(self.style, out, 1, self.stride, name="downsample")(x, train)
        return nn.relu(x + y)


class Stage(nn.Module):
    """Residual blocks in sequence, the first of which may halve the image: `[B, h, w, c] -> [B, h/stride, …, out]`."""

    style: Style
    width: int
    stride: int
    deep: bool
    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the blocks."""
        for i in range(self.blocks):
            x = Block(self.style, self.width, 1 if i else self.stride, self.deep, name=str(i))(x, train)
        return x


def resnet_parts(num_classes: int, dtype: Any, *, width: int, blocks: tuple[int, ...], deep: bool) -> tuple[Part, ...]:
    """Return the parts of a ResNet.

    Args:
        num_classes: outputs of the classifier.
        dtype: the type that it computes in.
        width: channels of the stem.
        blocks: how many each of the four stages has.
        deep: blocks of 1×1, 3×3, 1×1 instead of two 3×3.
    """
    style = Style(dtype)
    stages = [
        Part(
            f"layer{i + 1}",
            functools.partial(Stage, style, width << i, 2 if i else 1, deep, count),
            channels=(width << i) * (4 if deep else 1),
            window=(3, 2 if i else 1, 1),
        )
        for i, count in enumerate(blocks)
    ]
    return (
        Part("conv1", functools.partial(style.conv, width, 7, stride=2, padding=3), channels=width, window=(7, 2, 3)),
        Part("bn1", style.norm, channels=width),
        Part("relu", function=nn.relu, channels=width),
        Part("maxpool", function=max_pool_3x3, channels=width, window=(3, 2, 1)),
        *stages,
        Part("avgpool", function=global_average),
        Part("fc", functools.partial(Linear, num_classes, dtype)),
    )


def _spec(depth: int, *blocks: int) -> Spec:
    return Spec(
        name=f"resnet{depth}",
        parts=functools.partial(resnet_parts, blocks=blocks, deep=depth >= 50),
        family="resnet",
        cut="layer2",
        matched=("layer2", "layer3", "layer4"),
        options={"width": (64, int)},
    )


SPECS = (
    _spec(18, 2, 2, 2, 2),
    _spec(34, 3, 4, 6, 3),
    _spec(50, 3, 4, 6, 3),
    _spec(101, 3, 4, 23, 3),
    _spec(152, 3, 8, 36, 3),
)
