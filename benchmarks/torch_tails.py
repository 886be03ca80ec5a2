"""Tails as one would write them in PyTorch, with torchvision's layers and names, for `benchmarks/tail.py`.

A tail takes the latent `[B, h, w, c]` uint8, undoes the quantiser, and runs decoder, the rest of the backbone and the
classifier.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks.torch_reference import BLOCKS, Block

GROWTH = 32
DENSE_LAYERS = {121: (24, 16), 169: (32, 32), 201: (48, 32)}  # of denseblock3 and denseblock4
OPSET = 13


class Tail(nn.Module):
    """Quantiser undone, decoder, features, average, classifier.

    Args:
        decoder: made from a `bottlefit_jax.models.bottleneck.Design`.
        rest: the backbone after the cut.
        classifier: from the channels of the last feature.
        scale, zero_point: of the quantiser.
    """

    def __init__(self, decoder: nn.Module, rest: nn.Module, classifier: nn.Module, scale: float, zero_point: int):
        super().__init__()
        self.decoder, self.rest, self.classifier = decoder, rest, classifier
        self.average = nn.AdaptiveAvgPool2d(1)
        self.scale, self.zero_point = scale, zero_point

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """[B, h, w, c] uint8 -> [B, classes]."""
        x = self.scale * (latent.float().permute(0, 3, 1, 2) - self.zero_point)
        return self.classifier(torch.flatten(self.average(self.rest(self.decoder(x))), 1))


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1, norm, ReLU, 3x3 of everything before."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4 * GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """[B, c, h, w] each -> [B, GROWTH, h, w]."""
        y = self.conv1(self.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu(self.norm2(y)))


class DenseBlock(nn.ModuleDict):
    """Layers that each see everything before them."""

    def __init__(self, channels: int, layers: int):
        super().__init__({f"denselayer{i + 1}": DenseLayer(channels + i * GROWTH) for i in range(layers)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, c, h, w] -> [B, c + layers * GROWTH, h, w]."""
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


def densenet_tail(depth: int, design: Any, state: Mapping[str, np.ndarray], scale: float, zero_point: int) -> Tail:
    """Return the tail of a DenseNet that is cut after transition2, with the weights of a student's state dict."""
    (third, fourth), channels = DENSE_LAYERS[depth], design.decoder[-2].width
    rest = nn.Sequential()
    rest.add_module("denseblock3", DenseBlock(channels, third))
    channels += third * GROWTH
    transition = nn.Sequential()
    transition.add_module("norm", nn.BatchNorm2d(channels))
    transition.add_module("relu", nn.ReLU(inplace=True))
    transition.add_module("conv", nn.Conv2d(channels, channels // 2, 1, bias=False))
    transition.add_module("pool", nn.AvgPool2d(2, 2))
    rest.add_module("transition3", transition)
    channels //= 2
    rest.add_module("denseblock4", DenseBlock(channels, fourth))
    channels += fourth * GROWTH
    rest.add_module("norm5", nn.BatchNorm2d(channels))
    rest.add_module("relu", nn.ReLU(inplace=True))
    tail = Tail(_decoder(design, 2), rest, nn.Linear(channels, len(state["classifier.bias"])), scale, zero_point)
    places = {"features.bottleneck.decoder.": "decoder.", "features.": "rest.", "classifier.": "classifier."}
    return _load(tail, state, places)


def resnet_tail(depth: int, design: Any, state: Mapping[str, np.ndarray], scale: float, zero_point: int) -> Tail:
    """Return the tail of a ResNet of 50 or more layers that is cut after layer2."""
    rest, channels = nn.Sequential(), design.decoder[-2].width
    for index in (3, 4):
        blocks = []
        for number in range(BLOCKS[depth][index - 1]):
            blocks.append(Block(channels, 64 << (index - 1), 1 if number else 2, deep=True))
            channels = 256 << (index - 1)
        rest.add_module(f"layer{index}", nn.Sequential(*blocks))
    tail = Tail(_decoder(design, 1), rest, nn.Linear(channels, len(state["fc.bias"])), scale, zero_point)
    return _load(tail, state, {"bottleneck.decoder.": "decoder.", "layer": "rest.layer", "fc.": "classifier."})


def export(tail: Tail, latent_shape: Sequence[int]) -> bytes:
    """PyTorch's own ONNX export, any batch."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that writes operator set 13 is the older one
        torch.onnx.export(
            tail, (torch.zeros((1, *latent_shape), dtype=torch.uint8),), buffer, opset_version=OPSET, dynamo=False,
            input_names=["latent"], output_names=["logits"],
            dynamic_axes={"latent": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
    return buffer.getvalue()


def _decoder(design: Any, stride: int) -> nn.Sequential:
    """Return the rows of a design whose last average-pool is 2x2 with this stride."""
    made: list[nn.Module] = []
    channels = next(row.width for row in reversed(design.encoder) if row.kind == "conv")
    for row in design.decoder:
        if row.kind == "conv":
            made.append(nn.Conv2d(channels, row.width, row.kernel, row.stride, row.padding, bias=False))
            channels = row.width
        elif row.kind == "norm":
            made.append(nn.BatchNorm2d(channels))
        else:
            made.append(nn.ReLU(inplace=True) if row.kind == "relu" else nn.AvgPool2d(2, stride))
    return nn.Sequential(*made)


def _load(tail: Tail, state: Mapping[str, np.ndarray], places: Mapping[str, str]) -> Tail:
    """Return the tail in evaluation mode with these weights; `places` maps their prefixes to ours."""
    renamed = {}
    for key, value in state.items():
        if ".encoder." not in key and not key.startswith("encoder."):
            old = next(prefix for prefix in places if key.startswith(prefix))
            renamed[places[old] + key.removeprefix(old)] = torch.from_numpy(value)
    counters = {key: value for key, value in tail.state_dict().items() if key.endswith("num_batches_tracked")}
    tail.load_state_dict({**counters, **renamed})
    return tail.eval().requires_grad_(False)
