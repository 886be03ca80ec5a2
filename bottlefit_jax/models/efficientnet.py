"""EfficientNet-Lite0 to Lite4 (`tensorflow/tpu`, `models/official/efficientnet/lite`): EfficientNets for small devices.

Beside an EfficientNet they have ReLU6 in place of Swish, no squeeze-and-excitation, and a stem and a last convolution
of the same width in every size. Padding is TensorFlow's `SAME`. Features have the names of the package
`efficientnet_lite_pytorch`: `stem`, `block0`, `block1`, …, `conv_head`. Stochastic depth is left out.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax

from bottlefit_jax.models.backbone import Part, Spec
from bottlefit_jax.models.layers import ConvNorm, Style, global_average
from bottlefit_jax.models.mobilenet import Classifier

# Stages of blocks in Lite0: expansion, channels, number of blocks, stride of the first, side of the depthwise kernel.
STAGES = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip
# Factors of the channels and of the number of blocks, side of the images, dropout.
SIZES = ((1.0, 1.0, 224, 0.2), (1.0, 1.1, 240, 0.2), (1.1, 1.2, 260, 0.3), (1.2, 1.4, 280, 0.3), (1.4, 1.8, 300, 0.3))
EPSILON = 1e-3
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3  # (pixel - 127) / 128


class Block(nn.Module):
    """Widen with 1×1, filter each channel, narrow with 1×1, and add the input where the shapes agree."""

    style: Style
    expand: int
    channels: int
    stride: int
    kernel: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply it: `[B, h, w, c] -> [B, ⌈h/stride⌉, ⌈w/stride⌉, channels]`."""
        y, inner, style = x, x.shape[-1] * self.expand, self.style
        if self.expand != 1:
            y = style.conv(inner, name="expand_conv")(y)
            y = nn.relu6(style.norm(name="bn0")(y, train))
        depthwise = style.conv(
            inner, self.kernel, stride=self.stride, padding=self.kernel // 2, groups=inner, name="depthwise_conv"
        )
        y = nn.relu6(style.norm(name="bn1")(depthwise(y), train))
        y = style.norm(name="bn2")(style.conv(self.channels, name="project_conv")(y), train)
        return x + y if y.shape == x.shape else y


def efficientnet_parts(num_classes: int, dtype: Any, *, size: int) -> tuple[Part, ...]:
    """Return the parts of an EfficientNet-Lite.

    Args:
        num_classes: outputs of the classifier.
        dtype: the type that it computes in.
        size: 0 to 4.
    """
    style = Style(dtype, eps=EPSILON, same=True)
    stem = functools.partial(ConvNorm, style, 32, 3, 2, 1, activation=nn.relu6, names=("conv", "bn"))
    parts, blocks = [Part("stem", stem, channels=32, window=(3, 2, 1))], 0
    for (expand, width, _, first, kernel), count in zip(STAGES, _counts(size), strict=True):
        channels = _channels(width, SIZES[size][0])
        for i in range(count):
            stride = 1 if i else first
            make = functools.partial(Block, style, expand, channels, stride, kernel)
            parts.append(Part(f"block{blocks}", make, channels=channels, window=(kernel, stride, kernel // 2)))
            blocks += 1
    last = functools.partial(ConvNorm, style, 1280, activation=nn.relu6, names=("conv", "bn"))
    parts.append(Part("conv_head", last, channels=1280))
    classifier = functools.partial(Classifier, num_classes, dtype, SIZES[size][3])
    return (*parts, Part("classifier", classifier, global_average))


def _counts(size: int) -> list[int]:
    """Return the number of blocks of each stage; the first and the last stage have one in every size."""
    counts = [math.ceil(SIZES[size][1] * count) for _, _, count, _, _ in STAGES]
    return [1, *counts[1:-1], 1]


def _channels(width: int, factor: float) -> int:
    """Return the channels of a stage: a multiple of 8, at most a tenth below the exact product."""
    exact = width * factor
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def _spec(size: int) -> Spec:
    """Return the declaration of one size: cut and matched where MobileNetV2 is, at the end of its stages."""
    counts = _counts(size)
    cut, middle = (f"block{sum(counts[:stages]) - 1}" for stages in (3, 5))
    return Spec(
        name=f"efficientnet_lite{size}",
        parts=functools.partial(efficientnet_parts, size=size),
        family="efficientnet_lite",
        cut=cut,
        matched=(cut, middle, "conv_head"),
        image_size=SIZES[size][2],
        mean=MEAN,
        std=STD,
    )


SPECS = tuple(_spec(size) for size in range(len(SIZES)))
