"""Designs of the bottleneck: encoders and decoders, declared layer by layer.

`DESIGNS` holds one `Design` for each family and version, as the reference has them (`custom/model.py` of
yoshitomo-matsubara/bottlefit-split_computing for ResNet, torchdistill's `Bottleneck4DenseNet` for DenseNet).
MobileNetV2, Inception v3 and EfficientNet-Lite follow ResNet's version 2 with widths of their own. `ENCODERS` holds
encoders of ours, which fit every family. Other rooms add whole designs with `register`.

A width is a number or one of three names: `latent` (the channels that are sent), `cut` (the channels of the feature
that the decoder reproduces), `hidden` (the decoder's inner width; `HIDDEN` has each family's default). `2*cut` is twice
that many.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn

from bottlefit_jax.errors import UserError
from bottlefit_jax.models.dct import SIDE, VALUES

IMAGE = "image"  # the cut before the teacher's first layer
Size = tuple[int, int]
PARTS = ("encoder", "decoder", "exit")  # the parts that only a student can have


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        kind: conv, depthwise, transposed, norm, gdn, inverse_gdn, relu, max_pool, average (the adaptive pool), unfold
            (a pixel's channels become a square of `stride` × `stride` pixels) or sum (of what its branches return).
        width: channels of its output.
        kernel, stride, padding: of its window.
        initial: of a convolution's weights: `dct`, `inverse_dct`, `zeros`, or empty for PyTorch's default.
        pace: factor of the learning rate; below 1 for weights that begin near their goal.
        branches: of a sum, each some layers that see the same input and keep the number of rows.
    """

    kind: str
    width: str | int = 0
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    initial: str = ""
    pace: float = 1.0
    branches: tuple[tuple[Layer, ...], ...] = ()

    def length(self, n: int) -> int:
        """Return how many rows come out when n go in."""
        if self.kind == "sum":
            return n
        if self.kind in ("transposed", "unfold"):
            return n * self.stride
        return (n + 2 * self.padding - self.kernel) // self.stride + 1


@dataclasses.dataclass(frozen=True)
class Design:
    """The layers of a bottleneck.

    Args:
        encoder: from the image to the latent, or from the feature at the cut to the latent.
        decoder: from the latent to the feature at the cut.
        after_cut: the device runs the teacher's own parts up to the cut, and the encoder begins there.
        early_exit: makes, from the number of classes and the dtype, a module that classifies the latent on the device.
        cut: the feature that it is made for; None: the model's own choice.
    """

    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...]
    after_cut: bool = False
    early_exit: Callable[[int, Any], nn.Module] | None = None
    cut: str | None = None

    @property
    def paces(self) -> dict[str, float]:
        """The paces other than 1, by the path of the kernel among the network's parameters."""
        return dict([*_paces(self.encoder, "encoder"), *_paces(self.decoder, "decoder")])


def conv(width: str | int, kernel: int = 2, stride: int = 1, padding: int = 0) -> Layer:
    """Make a convolution."""
    return Layer("conv", width, kernel, stride, padding)


NORM_RELU = (Layer("norm"), Layer("relu"))
_UP = (Layer("transposed", "hidden", 2, 2), *NORM_RELU)
_POOL = Layer("max_pool", 0, 3, 2, 1)
RESIZE = Layer("average")
_STEM = (conv(64, 7, 2, 3), *NORM_RELU, _POOL, *NORM_RELU)
_PADDED = conv("hidden", padding=1)
_BODY = (_PADDED, *NORM_RELU, conv("hidden"), *NORM_RELU, conv("cut"), RESIZE)

_V1 = Design(
    encoder=(conv("latent", 7, 2, 3), *NORM_RELU, _POOL),
    decoder=(*NORM_RELU, conv(64, 2, 2, 1), *NORM_RELU, _PADDED, *NORM_RELU, *_BODY),
)
_V2 = Design(
    encoder=(*_STEM, conv("latent", 2, 2, 1)),
    decoder=(*NORM_RELU, _PADDED, *NORM_RELU, *_BODY),
)
_V3 = Design(
    encoder=(*_STEM, conv("hidden", 2, 2, 1), *NORM_RELU, conv("latent", 2, 2, 1)),
    decoder=(*NORM_RELU, *_UP, *_BODY),
)
_DENSENET = Design(
    encoder=_V2.encoder,
    decoder=(
        *(*NORM_RELU, _PADDED, *NORM_RELU, _PADDED),
        *(*NORM_RELU, conv("cut"), *NORM_RELU, conv("cut"), *NORM_RELU, conv("cut"), RESIZE),
    ),
)

DESIGNS: Mapping[str, Mapping[int, Design]] = {
    "resnet": {1: _V1, 2: _V2, 3: _V3},
    "densenet": {2: _DENSENET},
    "mobilenet": {2: _V2},
    "inception": {2: _V2},
    "efficientnet_lite": {2: _V2},
}
# Encoders in front of the decoder of version 2, by the name that a bottleneck's `design` has.
ENCODERS: Mapping[str, tuple[Layer, ...]] = {
    # 18 instead of 120 million multiply-adds at 224 px. The latent has version 2's size for sides divisible by 4.
    "patch": (
        *(conv(48, 4, 4), *NORM_RELU, Layer("depthwise", 48, 3, 1, 1), *NORM_RELU),
        *(conv(48, 1), *NORM_RELU, conv("latent", 2, 2, 1)),
    ),
}
# What a transform alone cannot know: layers over a block and its neighbours guess what rounding took away, at whatever
# step. They begin with nothing to add. Adam moves every weight by about the learning rate, whatever its size: at the
# pace of the guess, a transform's small ones would be lost before anything is gained.
_TRANSFORM_PACE = 0.15
_RESIDUAL = Layer(
    "sum",
    branches=((), (Layer("relu"), conv(128, 3, padding=1), Layer("relu"), Layer("conv", 128, initial="zeros"))),
)
_GUESS = (conv(128, 3, padding=1), _RESIDUAL, _RESIDUAL, Layer("relu"), Layer("conv", VALUES, initial="zeros"))
_INVERSE = (Layer("conv", VALUES, 3, 1, 1, initial="inverse_dct", pace=_TRANSFORM_PACE),)
# Whole designs of ours. `dct` is the transform of a codec for images, learned from there on: one convolution on the
# device, and on the server its inverse and a guess, before the whole teacher.
WHOLE: Mapping[str, Design] = {
    "dct": Design(
        encoder=(Layer("conv", "latent", SIDE, SIDE, initial="dct", pace=_TRANSFORM_PACE),),
        decoder=(Layer("sum", branches=(_INVERSE, _GUESS)), Layer("unfold", "cut", stride=SIDE), RESIZE),
        cut=IMAGE,
    ),
}
REFERENCE = "bottlefit"  # the designs that `version` chooses from
HIDDEN: Mapping[str, Callable[[int], int]] = {
    "resnet": lambda cut: cut,
    "densenet": lambda cut: 2 * cut,
    "mobilenet": lambda cut: max(128, cut),
    "inception": lambda cut: cut,
    "efficientnet_lite": lambda cut: max(128, cut),
}

_registered: dict[str, Design] = {}


def register(name: str, design: Design) -> None:
    """Add a design that every family can have, under the name that a bottleneck's `design` chooses it by.

    Args:
        name: none of another design.
        design: with widths that are numbers or named.

    Raises:
        ValueError: another design has this name.
    """
    if name in (REFERENCE, *ENCODERS, *WHOLE) or _registered.get(name, design) != design:
        raise ValueError(f"there is a design {name!r} already")
    _registered[name] = design


def design_names() -> tuple[str, ...]:
    """Return the names that a bottleneck's `design` can have."""
    return (REFERENCE, *ENCODERS, *WHOLE, *_registered)


def check_design(name: Any) -> None:
    """Raise a UserError where no design has this name."""
    if name not in design_names():
        known = ", ".join(map(repr, design_names()))
        others = "" if _registered else "; others belong to the comparison (bottlefit_jax.compare.designs)"
        raise UserError(f"bottleneck design={name!r} must be one of {known}{others}")


def cut_of(name: str) -> str | None:
    """Return the feature that a design is made for; None: the model's own choice."""
    whole = _whole(name)
    return whole.cut if whole else None


def _whole(name: str) -> Design | None:
    return WHOLE.get(name) or _registered.get(name)


def build_design(
    name: str,
    *,
    family: str,
    version: int,
    channels: int,
    hidden: int | None,
    cut_channels: int,
    cut_rows: int,
    image_rows: int,
) -> Design:
    """Build a design with its widths filled in, and with as many transposed convolutions as the cut needs.

    Args:
        name: one of `design_names()`.
        family: key of `DESIGNS`.
        version: of the reference's designs.
        channels: of the latent.
        hidden: inner width of the decoder; None: the family's.
        cut_channels: of the feature at the cut.
        cut_rows: of the feature at the cut for an image of `image_rows`.
        image_rows: of the model's usual images; the structure follows from them alone, so that weights fit any size.
    """
    chosen = _whole(name) or DESIGNS[family][version]
    if name in ENCODERS:
        chosen = dataclasses.replace(chosen, encoder=ENCODERS[name])
    decoder, added = chosen.decoder, 0
    start = cut_rows if chosen.after_cut else image_rows
    first = len(NORM_RELU)
    body = decoder[first:] if decoder[:first] == NORM_RELU else decoder
    while chosen.cut is None and length_after((*chosen.encoder, *decoder), start) < cut_rows:
        added += 1
        decoder = (*NORM_RELU, *(_UP * added), *body)
    widths = {"latent": channels, "cut": cut_channels, "hidden": hidden or HIDDEN[family](cut_channels)}

    def width(given: str | int) -> int:
        factor, _, name = str(given).rpartition("*")
        return int(factor or 1) * int(widths.get(name, name))

    def fill(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        return tuple(
            dataclasses.replace(layer, width=width(layer.width), branches=tuple(map(fill, layer.branches)))
            for layer in layers
        )

    return dataclasses.replace(chosen, encoder=fill(chosen.encoder), decoder=fill(decoder))


def length_after(layers: Sequence[Layer], n: int) -> int:
    """Return how many rows come out of the layers when n go in; 0 where nothing is left behind one of them."""
    for layer in layers:
        n = max(0, layer.length(n)) if n else 0
    return n


def _paces(layers: Sequence[Layer], path: str) -> Iterator[tuple[str, float]]:
    """Yield the paths of the kernels that have a pace other than 1, and this pace.

    Args:
        layers: of a `ConvStack`, which names parameters by the number of the layer and of the branch.
        path: of the stack's parameters.
    """
    for number, layer in enumerate(layers):
        if layer.pace != 1:
            yield f"{path}/{number}/kernel", layer.pace
        for n, branch in enumerate(layer.branches):
            yield from _paces(branch, f"{path}/{number}_{n}")
