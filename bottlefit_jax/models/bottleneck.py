"""The bottleneck: encoder, decoder and quantiser, declared layer by layer.

`DESIGNS` holds one `Design` for each family and version, as DESIGN.md lists them and as the reference spells
them (`custom/model.py` of yoshitomo-matsubara/bottlefit-split_computing for ResNet, torchdistill's
`Bottleneck4DenseNet` for DenseNet). MobileNetV2 and Inception v3 follow ResNet's version 2 with widths of
their own. `PATCH` and `OTHERS` are not the reference's and fit every family. A width is a number or one of three
names: `latent` (the channels that are sent), `cut` (the channels of the feature that the decoder stands in for),
`hidden` (the decoder's inner width, `HIDDEN` where nothing else is asked for).
"""

import dataclasses
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import flax.linen as nn
import jax
import jax.numpy as jnp

from bottlefit_jax.codec import quantizer as codec
from bottlefit_jax.errors import UserError
from bottlefit_jax.models.layers import (
    TORCH_DEFAULT,
    ConvNorm,
    ConvTranspose2x2,
    Linear,
    Style,
    adaptive_average,
    global_average,
    max_pool_3x3,
)

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer: `kind` is conv, depthwise, transposed, norm, relu, max_pool or average (the adaptive pool)."""

    kind: str
    width: str | int = 0
    kernel: int = 1
    stride: int = 1
    padding: int = 0

    def length(self, n: int) -> int:
        """How many rows come out when n go in."""
        if self.kind == "transposed":
            return n * self.stride
        return (n + 2 * self.padding - self.kernel) // self.stride + 1


@dataclasses.dataclass(frozen=True)
class Design:
    """The two halves of a bottleneck.

    Args:
        encoder: from the image to the latent, or from the feature at the cut to the latent.
        decoder: from the latent to the feature at the cut.
        after_cut: the device runs the teacher's own parts up to the cut, and the encoder begins there.
        early_exit: a classifier beside the latent answers on the device where it is sure.
    """

    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...]
    after_cut: bool = False
    early_exit: bool = False


def _conv(width: str | int, kernel: int = 2, stride: int = 1, padding: int = 0) -> Layer:
    return Layer("conv", width, kernel, stride, padding)


_ACT = (Layer("norm"), Layer("relu"))
_UP = (Layer("transposed", "hidden", 2, 2), *_ACT)
_POOL = Layer("max_pool", 0, 3, 2, 1)
_END = Layer("average")
_STEM = (_conv(64, 7, 2, 3), *_ACT, _POOL, *_ACT)
_PADDED = _conv("hidden", padding=1)
_BODY = (_PADDED, *_ACT, _conv("hidden"), *_ACT, _conv("cut"), _END)

_V1 = Design(
    encoder=(_conv("latent", 7, 2, 3), *_ACT, _POOL),
    decoder=(*_ACT, _conv(64, 2, 2, 1), *_ACT, _PADDED, *_ACT, *_BODY),
)
_V2 = Design(
    encoder=(*_STEM, _conv("latent", 2, 2, 1)),
    decoder=(*_ACT, _PADDED, *_ACT, *_BODY),
)
_V3 = Design(
    encoder=(*_STEM, _conv("hidden", 2, 2, 1), *_ACT, _conv("latent", 2, 2, 1)),
    decoder=(*_ACT, *_UP, *_BODY),
)
_DENSENET = Design(
    encoder=_V2.encoder,
    decoder=(*_ACT, _PADDED, *_ACT, _PADDED, *_ACT, _conv("cut"), *_ACT, _conv("cut"), *_ACT, _conv("cut"), _END),
)

DESIGNS: Mapping[str, Mapping[int, Design]] = {
    "resnet": {1: _V1, 2: _V2, 3: _V3},
    "densenet": {2: _DENSENET},
    "mobilenet": {2: _V2},
    "inception": {2: _V2},
}
# Ours: 18 instead of 120 million multiply-adds at 224 px. The latent has version 2's size for sides divisible by 4.
PATCH = (
    *(_conv(48, 4, 4), *_ACT, Layer("depthwise", 48, 3, 1, 1), *_ACT),
    *(_conv(48, 1), *_ACT, _conv("latent", 2, 2, 1)),
)
# What BottleFit is compared with, by the name that a bottleneck's `design` has.
OTHERS: Mapping[str, Design] = {
    # What split computing did before. A transposed convolution 2×2 of stride 1 is a convolution 2×2 with padding 1, its
    # kernel turned round.
    "autoencoder": Design(
        encoder=(_conv(128), *_ACT, _conv(64), *_ACT, _conv(32), *_ACT, _conv("latent")),
        decoder=(
            *(_conv(32, padding=1), *_ACT, _conv(64, padding=1), *_ACT),
            *(_conv(128, padding=1), *_ACT, _conv("cut", padding=1), _END),
        ),
        after_cut=True,
    ),
    # Channel reduction (and, as everywhere, quantisation).
    "reduction": Design(encoder=(_conv("latent", 1),), decoder=(_conv("cut", 1), _END), after_cut=True),
    # SPINN (Laskaridis et al., MobiCom 2020): the feature at the cut as it is, behind an early exit.
    "spinn": Design(encoder=(), decoder=(), after_cut=True, early_exit=True),
}
REFERENCE = "bottlefit"  # the designs that `version` chooses from
DESIGN_NAMES = (REFERENCE, "patch", *OTHERS)
HIDDEN: Mapping[str, Callable[[int], int]] = {
    "resnet": lambda cut: cut,
    "densenet": lambda cut: 2 * cut,
    "mobilenet": lambda cut: max(128, cut),
    "inception": lambda cut: cut,
}


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """What `bottleneck=dict(...)` may say.

    Args:
        channels: of the latent.
        hidden: inner width of the decoder, which costs the server and nobody else; None: the family's (`HIDDEN`).
        design: one of `DESIGN_NAMES`.
        version: which of the reference's; ResNets have 1, 2 and 3, the others 2.
        bits: of the quantiser, 1 to 8; None: no quantiser.
        cut: the feature that the decoder reproduces; None: the model's own choice.
        image_size: int or (h, w). The constructor checks it, and `decode` restores the feature's size from it
            where the latent's size leaves a choice.
        per: what shares one range: `image` (what a device sends), `batch` or `channel` (of an image).
        range: `dynamic` from the latent itself, or `static` from the collection `ranges`.
        quantize_training: quantise in training as well, with the dynamic range and a straight-through gradient.
    """

    channels: int = 12
    hidden: int | None = None
    design: str = REFERENCE
    version: int = 2
    bits: int | None = 8
    cut: str | None = None
    image_size: Any = None
    per: str = "image"
    range: str = "dynamic"
    quantize_training: bool = False

    @classmethod
    def parse(cls, given: Mapping[str, Any], family: str) -> "Bottleneck":
        """Check the user's dictionary for a model of `family`."""
        if not isinstance(given, Mapping):
            raise UserError(f"bottleneck={given!r} must be a dictionary such as dict(channels=12, version=2, bits=8)")
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := [key for key in given if key not in known]:
            raise UserError(f"unknown bottleneck key {unknown[0]!r}; the keys are {', '.join(known)}")
        made = cls(**given)
        versions = sorted(DESIGNS[family])
        if not is_integer(made.channels) or made.channels < 1:
            raise UserError(f"bottleneck channels={made.channels!r} must be an integer from 1 up")
        if made.hidden is not None and (not is_integer(made.hidden) or made.hidden < 1):
            raise UserError(f"bottleneck hidden={made.hidden!r} must be an integer from 1 up, or None for the family's")
        if not is_integer(made.version) or made.version not in versions:
            allowed = ", ".join(map(str, versions))
            raise UserError(f"bottleneck version={made.version!r} must be one of {allowed} for a {family}")
        if made.bits is not None and (not is_integer(made.bits) or not 1 <= made.bits <= 8):
            raise UserError(f"bottleneck bits={made.bits!r} must be an integer from 1 to 8, or None for no quantiser")
        if made.design != REFERENCE and made.version != 2:
            raise UserError(
                f"bottleneck version={made.version!r} belongs to {REFERENCE}; design={made.design!r} has none"
            )
        for key, allowed in (
            ("design", DESIGN_NAMES),
            ("per", ("image", "batch", "channel")),
            ("range", ("dynamic", "static")),
            ("quantize_training", (False, True)),
        ):
            if getattr(made, key) not in allowed:
                raise UserError(
                    f"bottleneck {key}={getattr(made, key)!r} must be one of {', '.join(map(repr, allowed))}"
                )
        return dataclasses.replace(made, image_size=_parse_size(made.image_size))


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number, which True and False are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _parse_size(value: Any) -> Size | None:
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    if len(pair) != 2 or not all(is_integer(n) and n >= 1 for n in pair):
        raise UserError(f"bottleneck image_size={value!r} must be a positive integer or a pair (height, width)")
    return int(pair[0]), int(pair[1])


def design(family: str, plan: Bottleneck, cut_channels: int, natural: int, cut_length: int) -> Design:
    """The design with its widths filled in, and with as many transposed convolutions as the cut needs.

    Args:
        family: key of `DESIGNS`.
        plan: what was asked for.
        cut_channels: of the feature at the cut.
        natural: the model's usual image size; the structure follows from it alone, so that weights fit any size.
        cut_length: rows of the feature at the cut for an image of that size.
    """
    chosen = DESIGNS[family][plan.version]
    if plan.design == "patch":
        chosen = dataclasses.replace(chosen, encoder=PATCH)
    elif plan.design != REFERENCE:
        chosen = OTHERS[plan.design]
    decoder, added = chosen.decoder, 0
    start = cut_length if chosen.after_cut else natural
    while length_after((*chosen.encoder, *decoder), start) < cut_length:
        added += 1
        decoder = (*_ACT, *(_UP * added), *chosen.decoder[len(_ACT) :])
    widths = {"latent": plan.channels, "cut": cut_channels, "hidden": plan.hidden or HIDDEN[family](cut_channels)}

    def fill(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        return tuple(dataclasses.replace(layer, width=widths.get(str(layer.width), layer.width)) for layer in layers)

    return dataclasses.replace(chosen, encoder=fill(chosen.encoder), decoder=fill(decoder))


def length_after(layers: Sequence[Layer], n: int) -> int:
    """Rows that come out of the layers when n go in; 0 where nothing remains behind one of them."""
    for layer in layers:
        n = max(0, layer.length(n)) if n else 0
    return n


class Exit(nn.Module):
    """The early exit: convolution 3×3/2 of as many channels, BN, ReLU, mean over the image, linear layer."""

    classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """`[B, h, w, c]` at the cut to logits `[B, classes]`."""
        x = ConvNorm(Style(self.dtype), x.shape[-1], 3, 2, 1, activation=nn.relu, name="0")(x, train)
        return Linear(self.classes, self.dtype, name="1")(global_average(x))


class Half(nn.Module):
    """Encoder or decoder: its layers in a row, each under its number.

    Args of a call:
        x: `[B, h, w, c]`, the images or the latent.
        train: batch norms use and record the batch's statistics.
        size: (h', w') that the decoder's adaptive pool leaves.
    """

    layers: tuple[Layer, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, size: Size | None = None) -> jax.Array:
        """Apply the layers."""
        style = Style(self.dtype, TORCH_DEFAULT)
        x = x.astype(self.dtype)
        for number, layer in enumerate(self.layers):
            name, width = str(number), int(layer.width)
            if layer.kind == "conv":
                x = style.conv(width, layer.kernel, stride=layer.stride, padding=layer.padding, name=name)(x)
            elif layer.kind == "depthwise":
                x = style.conv(
                    width, layer.kernel, stride=layer.stride, padding=layer.padding, groups=width, name=name
                )(x)
            elif layer.kind == "transposed":
                x = ConvTranspose2x2(width, self.dtype, name=name)(x)
            elif layer.kind == "norm":
                x = style.norm(name=name)(x, train)
            elif layer.kind == "relu":
                x = nn.relu(x)
            elif layer.kind == "max_pool":
                x = max_pool_3x3(x)
            else:
                assert size is not None
                x = adaptive_average(x, size)
        return x


class Quantizer(nn.Module):
    """Quantise and dequantise a latent; the formula is `codec.quantizer`'s.

    With static ranges the variables are `ranges/quantizer/low` and `high`, shape `()` or `[c]`, both 0 until
    something calibrates them.
    """

    bits: int
    per: str = "image"
    static: bool = False

    @nn.compact
    def __call__(self, latent: jax.Array, train: bool = False) -> jax.Array:
        """`[B, h, w, c] -> [B, h, w, c]` of the same type, with the errors of `bits` bits.

        In training the range is always dynamic, and gradients pass as if nothing were quantised.
        """
        x = latent.astype(jnp.float32)
        if self.static:
            shape = (latent.shape[-1],) if self.per == "channel" else ()
            low = self.variable("ranges", "low", jnp.zeros, shape, jnp.float32)
            high = self.variable("ranges", "high", jnp.zeros, shape, jnp.float32)
        if self.static and not train:
            bounds = [one.value for one in (low, high)]
            if self.per == "channel":
                bounds = [jnp.expand_dims(one, (0, 1, 2)) for one in bounds]  # [1, 1, 1, c]
            affine = codec.static_range(*bounds, bits=self.bits, xp=jnp)
        else:
            axis = {"image": (1, 2, 3), "batch": None, "channel": (1, 2)}[self.per]
            affine = codec.dynamic_range(jax.lax.stop_gradient(x), bits=self.bits, axis=axis, xp=jnp)
        integers = codec.quantize(jax.lax.stop_gradient(x), affine, bits=self.bits, xp=jnp)
        # An integer cannot carry a NaN: put it back, so that whoever looks at the output sees it.
        restored = jnp.where(jnp.isnan(x), x, codec.dequantize(integers, affine, xp=jnp))
        return (x + jax.lax.stop_gradient(restored - x) if train else restored).astype(latent.dtype)
