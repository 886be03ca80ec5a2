"""Folds a student's encoder as far as algebra allows: a few layers with float32 weights remain.

* A batch norm after a convolution, depthwise or not, goes into the convolution's weights.
* The images' scale, 1 / (255 std), goes into the first convolution. If that convolution pads with zeros, the mean is
  subtracted first, since a padded zero means a pixel of the mean colour; otherwise `head` puts the mean into the bias.
* A batch norm and a ReLU after `convolution, ReLU, max-pool` compute y = relu(f p + t) with p >= 0 in each channel.
  |f| always goes into the convolution, since the pool commutes with it. If t <= 0, nothing remains: t goes into the
  convolution as well if f > 0, and the channel is 0 if f <= 0. If t > 0, t must stay, since the next convolution pads
  with zeros; if there is such a channel, an `Affine` with factors -1, 0 and 1 remains.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bottlefit_jax.errors import UserError
from bottlefit_jax.models.designs import ENCODERS, REFERENCE, WHOLE, Size
from bottlefit_jax.models.layers import Style
from bottlefit_jax.models.network import Network


@dataclasses.dataclass(frozen=True, eq=False)
class Convolution:
    """`relu(x * kernel + bias)`, or without the ReLU.

    Args:
        name: of the first of the model's layers that it replaces.
        kernel: [kh, kw, c, channels]; of a depthwise convolution [kh, kw, 1, channels].
        bias: [channels].
        stride: of both axes.
        padding: zeros on each side.
        relu: whether a ReLU follows.
        depthwise: every channel has a kernel of its own.
    """

    name: str
    kernel: np.ndarray
    bias: np.ndarray
    stride: int
    padding: int
    relu: bool = False
    depthwise: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class MaxPool:
    """Windows of 3 × 3, stride 2, one row or column of padding on each side."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
    """`relu(factor * x + shift)`, both [c]."""

    name: str
    factor: np.ndarray
    shift: np.ndarray
    relu: bool = False


Layer = Convolution | MaxPool | Affine
EXPORTED = ("conv", "depthwise", "norm", "relu", "max_pool")  # kinds of layers of an encoder


@dataclasses.dataclass(frozen=True, eq=False)
class Folded:
    """An encoder for images of one size.

    Args:
        image_size: (h, w).
        mean: [3] float32, to be subtracted from pixels 0..255.
        layers: what follows. The first is a convolution; either the second is a max-pool, or the first makes one pixel
            of each square of the image (`begins_with_patches`).
        latent_shape: (h, w, c).
    """

    image_size: Size
    mean: np.ndarray
    layers: tuple[Layer, ...]
    latent_shape: tuple[int, int, int]

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The layers' names in the model, as `encoder/0` and `encoder/3`."""
        return tuple(layer.name for layer in self.layers)

    @property
    def begins_with_patches(self) -> bool:
        """Whether the first convolution reads every pixel once and no padding."""
        return _reads_patches(self.layers[0])


def fold_encoder(
    module: Network, variables: Mapping[str, Any], *, mean: Sequence[float], std: Sequence[float], image_size: Size
) -> Folded:
    """Fold a student's encoder, in float64.

    Args:
        module: made by `models.create` with a bottleneck.
        variables: its collections, NumPy or JAX.
        mean: per channel, of images scaled to 0..1.
        std: per channel, of images scaled to 0..1.
        image_size: (h, w) of the images.

    Raises:
        UserError: the module is no student or cannot be exported, the images are too small, the weights are not finite,
            or a layer is unknown.
    """
    check_exportable(module)
    assert module.bottleneck is not None
    h, w = module.latent_size(image_size)
    layers = _without_norms(module, variables["params"]["encoder"], variables["batch_stats"].get("encoder", {}))
    if not _reads_patches(layers[0]) and not _pools(layers):
        raise UserError(
            "the export supports encoders that begin with a convolution and a max-pool, or with a convolution of "
            "squares that do not overlap; this one does neither"
        )
    assert isinstance(layers[0], Convolution)
    if _pools(layers) and len(layers) > 2 and isinstance(layers[2], Affine) and layers[0].relu and layers[2].relu:
        layers[0], layers[2] = _through_pool(layers[0], layers[2])
        if np.all(layers[2].factor == 1) and np.all(layers[2].shift == 0):
            del layers[2]
    scale = 1 / (255 * np.asarray(std, np.float64))
    layers[0] = dataclasses.replace(layers[0], kernel=layers[0].kernel * scale[:, None])
    return Folded(
        image_size,
        (255 * np.asarray(mean, np.float64)).astype(np.float32),
        tuple(map(_as_float32, layers)),
        (h, w, module.bottleneck.channels),
    )


def check_exportable(module: Network) -> None:
    """Raise a UserError if the module has no encoder that runs on a device by itself."""
    if module.bottleneck is None:
        raise UserError(f"{module.spec.name} was created without a bottleneck, so it has no encoder to export")
    reason = "its device runs the teacher's own layers" if module.design.after_cut else None
    for number, layer in enumerate(module.design.encoder):
        if layer.kind not in EXPORTED:
            reason = reason or f"the export does not know its layer encoder/{number} ({layer.kind})"
    if reason:
        *known, last = map(repr, (REFERENCE, *ENCODERS, *WHOLE))
        raise UserError(
            f"the bottleneck's design {module.bottleneck.design!r} cannot be exported, since {reason}; those that can "
            f"are {', '.join(known)} and {last}"
        )


def _reads_patches(layer: Layer) -> bool:
    return isinstance(layer, Convolution) and layer.kernel.shape[:2] == (layer.stride,) * 2 and not layer.padding


def _pools(layers: Sequence[Layer]) -> bool:
    return len(layers) > 1 and isinstance(layers[0], Convolution) and isinstance(layers[1], MaxPool)


def _without_norms(module: Network, params: Mapping[str, Any], stats: Mapping[str, Any]) -> list[Layer]:
    """Return the encoder's layers in float64; ReLUs, and batch norms after convolutions, are folded."""
    layers: list[Layer] = []
    for number, layer in enumerate(module.design.encoder):
        key, name = str(number), f"encoder/{number}"
        last = layers[-1] if layers else None
        if layer.kind in ("conv", "depthwise"):
            kernel = np.asarray(params[key]["kernel"], np.float64)
            conv = Convolution(name, kernel, np.zeros(kernel.shape[-1]), layer.stride, layer.padding)
            layers.append(dataclasses.replace(conv, depthwise=layer.kind == "depthwise"))
        elif layer.kind == "norm":
            factor, shift = _norm(params[key], stats[key])
            if isinstance(last, Convolution) and not last.relu:
                bias = last.bias * factor + shift
                layers[-1] = dataclasses.replace(last, kernel=last.kernel * factor, bias=bias)
            else:
                layers.append(Affine(name, factor, shift))
        elif layer.kind == "relu" and isinstance(last, Convolution | Affine):
            layers[-1] = dataclasses.replace(last, relu=True)
        elif layer.kind == "max_pool":
            layers.append(MaxPool(name))
        else:
            raise UserError(f"the export does not support the layer {name} ({layer.kind}) in this place")
    return layers


def _norm(params: Mapping[str, Any], stats: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch norm as a factor and a shift, [c] float64 each."""
    scale, bias = (np.asarray(params[key], np.float64) for key in ("scale", "bias"))
    mean, var = (np.asarray(stats[key], np.float64) for key in ("mean", "var"))
    factor = scale / np.sqrt(var + Style().eps)
    return factor, bias - mean * factor


def _through_pool(conv: Convolution, affine: Affine) -> tuple[Convolution, Affine]:
    """Move what can be moved from the batch norm after the pool to the convolution before it."""
    factor, shift = affine.factor, affine.shift
    dead = (factor <= 0) & (shift <= 0)
    moves = (factor > 0) & (shift <= 0)
    gain = np.where(dead, 0, np.where(factor == 0, 1, np.abs(factor)))
    conv = dataclasses.replace(conv, kernel=conv.kernel * gain, bias=conv.bias * gain + np.where(moves, shift, 0))
    rest = dataclasses.replace(
        affine, factor=np.where(dead | moves, 1, np.sign(factor)), shift=np.where(dead | moves, 0, shift)
    )
    return conv, rest


def _as_float32(layer: Layer) -> Layer:
    """Convert every array of the layer to float32."""
    arrays = {key: value.astype(np.float32) for key, value in vars(layer).items() if isinstance(value, np.ndarray)}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError(f"the weights of {layer.name} are not finite; a run that diverged cannot be exported")
    return dataclasses.replace(layer, **arrays)
