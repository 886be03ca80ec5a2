"""The bottleneck: its options, and the modules that its design becomes.

The layers themselves are declared in `designs.py`.
"""

import dataclasses
import functools
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import flax.linen as nn
import jax
import jax.numpy as jnp

from bottlefit_jax.codec import quantizer as codec
from bottlefit_jax.errors import UserError
from bottlefit_jax.models import dct
from bottlefit_jax.models.designs import DESIGNS, REFERENCE, Layer, Size, check_design
from bottlefit_jax.models.gdn import DivisiveNorm
from bottlefit_jax.models.layers import TORCH_DEFAULT, ConvTranspose2x2, Style, adaptive_average, max_pool_3x3

INITIAL = {"": TORCH_DEFAULT, "dct": dct.analysis, "inverse_dct": dct.synthesis, "zeros": nn.initializers.zeros}


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """The options of a bottleneck, the keys of `bottleneck=dict(...)`.

    Args:
        channels: of the latent.
        hidden: inner width of the decoder, which costs the server alone; None: the family's (`designs.HIDDEN`).
        design: one of `designs.design_names()`.
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
        """Check a user's dictionary for a model of `family`.

        Raises:
            UserError: an unknown key, or a value that is invalid; it names the first.
        """
        if not isinstance(given, Mapping):
            raise UserError(f"bottleneck={given!r} must be a dictionary such as dict(channels=12, version=2, bits=8)")
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := [key for key in given if key not in known]:
            raise UserError(f"unknown bottleneck key {unknown[0]!r}; the keys are {', '.join(known)}")
        options = cls(**given)
        versions = sorted(DESIGNS[family])
        if not is_integer(options.channels) or options.channels < 1:
            raise UserError(f"bottleneck channels={options.channels!r} must be an integer from 1 up")
        if options.hidden is not None and (not is_integer(options.hidden) or options.hidden < 1):
            raise UserError(
                f"bottleneck hidden={options.hidden!r} must be an integer from 1 up, or None for the family's"
            )
        if not is_integer(options.version) or options.version not in versions:
            allowed = ", ".join(map(str, versions))
            raise UserError(f"bottleneck version={options.version!r} must be one of {allowed} for a {family}")
        if options.bits is not None and (not is_integer(options.bits) or not 1 <= options.bits <= 8):
            raise UserError(
                f"bottleneck bits={options.bits!r} must be an integer from 1 to 8, or None for no quantiser"
            )
        check_design(options.design)
        choices = {
            "per": ("image", "batch", "channel"),
            "range": ("dynamic", "static"),
            "quantize_training": (False, True),
        }
        for key, allowed in choices.items():
            if (value := getattr(options, key)) not in allowed:
                listed = ", ".join(map(repr, allowed))
                raise UserError(f"bottleneck {key}={value!r} must be one of {listed}")
        if options.design != REFERENCE and options.version != 2:
            raise UserError(
                f"bottleneck version={options.version!r} belongs to {REFERENCE}; design={options.design!r} has none"
            )
        return dataclasses.replace(options, image_size=_parse_size(options.image_size))


def is_integer(value: Any) -> TypeGuard[int]:
    """Return whether a value is a whole number; True and False are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _parse_size(value: Any) -> Size | None:
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    if len(pair) != 2 or not all(is_integer(n) and n >= 1 for n in pair):
        raise UserError(f"bottleneck image_size={value!r} must be a positive integer or a pair (height, width)")
    return int(pair[0]), int(pair[1])


class ConvStack(nn.Module):
    """The layers of an encoder or decoder in order; the parameters of each lie under its number."""

    layers: tuple[Layer, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, size: Size | None = None) -> jax.Array:
        """Apply the layers.

        Args:
            x: `[B, h, w, c]`, the images, the feature at the cut or the latent.
            train: batch norms use and record the batch's statistics.
            size: (h', w'), to which the decoder's adaptive pool resizes.
        """
        x = x.astype(self.dtype)
        for number, layer in enumerate(self.layers):
            name, width = str(number), int(layer.width)
            style = Style(self.dtype, INITIAL[layer.initial])
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
            elif layer.kind == "sum":
                branches = [ConvStack(each, self.dtype, name=f"{name}_{n}") for n, each in enumerate(layer.branches)]
                x = functools.reduce(jnp.add, [branch(x, train, size) for branch in branches])
            elif layer.kind == "unfold":
                x = _unfold(x, layer.stride)
            elif layer.kind in ("gdn", "inverse_gdn"):
                x = DivisiveNorm(layer.kind == "inverse_gdn", self.dtype, name=name)(x)
            else:
                assert size is not None
                x = adaptive_average(x, size)
        return x


def _unfold(x: jax.Array, side: int) -> jax.Array:
    """Turn [B, h, w, side · side · c] into [B, side · h, side · w, c]."""
    b, h, w, _ = x.shape
    return x.reshape(b, h, w, side, side, -1).swapaxes(2, 3).reshape(b, side * h, side * w, -1)


class Quantizer(nn.Module):
    """Quantises and dequantises a latent, with the formula of `codec.quantizer`.

    With static ranges the variables are `ranges/quantizer/low` and `high`, shape `()` or `[c]`, both 0 until they are
    calibrated.
    """

    bits: int
    per: str = "image"
    static: bool = False

    @nn.compact
    def __call__(self, latent: jax.Array, train: bool = False) -> jax.Array:
        """Return the latent with the errors of `bits` bits, in the same dtype.

        Args:
            latent: `[B, h, w, c]`.
            train: the range is dynamic, and gradients pass as if nothing were quantised.
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
        # Integers have no NaN: put it back, so that the output shows it.
        restored = jnp.where(jnp.isnan(x), x, codec.dequantize(integers, affine, xp=jnp))
        return (x + jax.lax.stop_gradient(restored - x) if train else restored).astype(latent.dtype)
