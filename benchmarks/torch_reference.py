"""Stage 1 as one would write it in PyTorch: what `benchmarks/train_step.py` compares our step with.

A ResNet with torchvision's names, a student of it, and a step: teacher without gradients, student, sum of squared
errors, Adam on encoder and decoder. The tail is frozen and in evaluation mode.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def conv_norm(channels: int, out: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """Return a convolution without bias that keeps (or divides by `stride`) the image, and its batch norm."""
    return nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out)


class Block(nn.Module):
    """A residual block of two or, where `deep`, three convolutions."""

    def __init__(self, channels: int, width: int, stride: int, deep: bool):
        super().__init__()
        out = 4 * width if deep else width
        self.conv1, self.bn1 = conv_norm(channels, width, *((1, 1) if deep else (3, stride)))
        self.conv2, self.bn2 = conv_norm(width, width, 3, stride if deep else 1)
        if deep:
            self.conv3, self.bn3 = conv_norm(width, out, 1)
        self.deep = deep
        self.downsample = nn.Sequential(*conv_norm(channels, out, 1, stride)) if stride > 1 or channels != out else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, c, h, w] -> [B, out, h / stride, w / stride]."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.deep:
            y = self.bn3(self.conv3(self.relu(y)))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A ResNet; with `encoder` and `decoder` the student that is cut after layer2."""

    def __init__(self, depth: int, classes: int, halves: tuple[nn.Module, nn.Module] | None = None):
        super().__init__()
        deep = depth >= 50
        if halves is None:
            self.conv1, self.bn1 = conv_norm(3, 64, 7, 2)
            self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        else:
            self.bottleneck = nn.ModuleDict({"encoder": halves[0], "decoder": halves[1]})
        self.first = 1 if halves is None else 3
        channels = 64 if halves is None else 128 * (4 if deep else 1)
        for index in range(self.first, 5):
            width = 64 << (index - 1)
            blocks = []
            for number in range(BLOCKS[depth][index - 1]):
                blocks.append(Block(channels, width, 2 if index > 1 and not number else 1, deep))
                channels = 4 * width if deep else width
            setattr(self, f"layer{index}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """[B, 3, h, w] -> (logits, features)."""
        features = {}
        if self.first == 1:
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        else:
            x = features["layer2"] = self.bottleneck["decoder"](self.bottleneck["encoder"](x))
        for index in range(self.first, 5):
            x = features[f"layer{index}"] = getattr(self, f"layer{index}")(x)
        return self.fc(x.mean((2, 3))), features


def half(layers: Sequence[Any], channels: int) -> nn.Sequential:
    """Return encoder or decoder from the rows of a `bottlefit_jax.models.bottleneck.Design` (versions 1 and 2)."""
    made: list[nn.Module] = []
    for layer in layers:
        if layer.kind == "conv":
            made.append(nn.Conv2d(channels, layer.width, layer.kernel, layer.stride, layer.padding, bias=False))
            channels = layer.width
        elif layer.kind == "norm":
            made.append(nn.BatchNorm2d(channels))
        elif layer.kind == "relu":
            made.append(nn.ReLU(inplace=True))
        else:
            made.append(nn.MaxPool2d(3, 2, 1) if layer.kind == "max_pool" else nn.AvgPool2d(2, 1))
    return nn.Sequential(*made)


class Stage1:
    """The stage: teacher, student, optimiser and one step of them.

    Args:
        depth: of the ResNet.
        design: the student's `Design`.
        teacher, student: state dicts of NumPy arrays.
        matched: the features whose squared errors are summed.
        mean, std: of the images, per channel.
        dtype: "float32", or "bfloat16" for autocast.
        device: where it runs.
        memory_format: of weights and images.
    """

    def __init__(
        self,
        depth: int,
        design: Any,
        *,
        teacher: Mapping[str, np.ndarray],
        student: Mapping[str, np.ndarray],
        matched: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        dtype: str = "float32",
        device: str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ):
        classes = teacher["fc.bias"].shape[0]
        latent = [layer.width for layer in design.encoder if layer.kind == "conv"][-1]
        halves = half(design.encoder, 3), half(design.decoder, latent)
        self.teacher = _loaded(ResNet(depth, classes), teacher).eval().requires_grad_(False)
        self.student = _loaded(ResNet(depth, classes, halves), student).eval().requires_grad_(False)
        self.student.bottleneck.train().requires_grad_(True)
        for network in (self.teacher, self.student):
            network.to(device=device, memory_format=memory_format)
        self.trained = sum(parameter.numel() for parameter in self.student.parameters() if parameter.requires_grad)
        self.optimizer = torch.optim.Adam(self.student.bottleneck.parameters(), lr=1e-3)
        self.matched, self.dtype = matched, getattr(torch, dtype)
        self.device, self.memory_format = device, memory_format
        self.mean, self.std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (mean, std))

    def put(self, image: np.ndarray) -> torch.Tensor:
        """Images [B, h, w, 3] uint8 as the step takes them: [B, 3, h, w] uint8 on the device."""
        planes = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
        return planes.to(device=self.device, memory_format=self.memory_format)

    def step(self, image: torch.Tensor) -> torch.Tensor:
        """One step on [B, 3, h, w] uint8; the loss before it."""
        x = (image.float() / 255 - self.mean) / self.std
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            with torch.no_grad():
                _, target = self.teacher(x)
            _, features = self.student(x)
            errors = [(features[name].float() - target[name].float()).square().sum() for name in self.matched]
        loss = torch.stack(errors).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def _loaded(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> nn.Module:
    """`network` with these weights, every one of its own and no other."""
    counters = {key: value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
    network.load_state_dict({**counters, **{key: torch.from_numpy(value) for key, value in arrays.items()}})
    return network
