"""The folded encoder as JAX functions that LiteRT runs fast: raw image in, latent out.

Two wordings of the same numbers. What they share where a max-pool follows the first convolution: the mean is
subtracted from rows of 16 pixels, since XNNPACK's loop over 3 channels is slow, and the convolution makes an odd number
of rows and columns, since only then the pool needs no padding operator of its own (`SAME` pads an odd image on both
sides, as the model does); the row and column too many are cut off behind the pool, where they are small. A first
convolution of patches pads nothing, so the mean goes into its bias.

`float_head` must have the same bits on every machine: an affine layer is a multiplication and an addition, and a latent
of fewer than 8 channels is cut out of one of 8, because ARM kernels sum narrower convolutions in another order.
`integer_head`: int8 kernels take channels in eights or fours, so 3 would waste most of the work. Before a pool the
first convolution reads groups of 8 pixels, 24 channels; of patches it reads each row as one pixel, 12 channels where
they are 4 × 4. An affine layer is a depthwise 1 × 1 convolution, which rounds once instead of twice.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bottlefit_jax.models.bottleneck import Size
from export.folding import Affine, Convolution, Folded, Layer

Head = Callable[[jax.Array], jax.Array]
Begin = Callable[[jax.Array, Convolution, Size, Size], jax.Array]
PIXELS = 16  # in a row of the subtraction; longer rows are hardly faster, and the file holds the mean once per pixel
GROUP = 8  # pixels, together 24 channels
CHANNELS = 8  # that a float convolution has at least


def float_head(folded: Folded, *, until: int | None = None) -> Head:
    """The head to export as float32 or float16.

    Args:
        folded: from `folding.fold_encoder`.
        until: how many of `folded.layers` to run, from 1 up; None: all. A failed export finds with it the first layer
            that departs.

    Returns:
        `[1, H, W, 3]` uint8 -> `[1, h, w, c]` float32.
    """
    layers = list(folded.layers)
    last = max(number for number, layer in enumerate(layers) if isinstance(layer, Convolution))
    layers[last] = _widened(layers[last])
    folded = dataclasses.replace(folded, layers=tuple(layers))
    begin = _patches(folded) if folded.begins_with_patches else _before_pool(folded, until, _pixels)
    head = _head(folded, until, begin, _multiply_add)
    if until is not None and until <= last:
        return head
    return lambda image: head(image)[..., : folded.latent_shape[-1]]


def integer_head(folded: Folded, *, until: int | None = None) -> Head:
    """The head to export as int8; arguments and result (float32 still) are those of `float_head`.

    A kernel of patches is rounded here already, as int8 rounds it: the mean's share of the bias is that of the kernel
    that is used, and images lose by the rounding only what they have beside the mean.
    """
    begin = _patch_rows(folded) if folded.begins_with_patches else _before_pool(folded, until, _pixel_groups)
    return _head(folded, until, begin, _depthwise)


def on_grid(kernel: np.ndarray) -> np.ndarray:
    """A kernel `[kh, kw, c, channels]` as int8 holds it, with one step for each channel."""
    step = np.maximum(np.abs(kernel).max((0, 1, 2)), np.finfo(np.float32).tiny) / 127
    return (np.rint(kernel / step) * step).astype(np.float32)


def _head(folded: Folded, until: int | None, begin: Head, affine: Callable[[jax.Array, Affine], jax.Array]) -> Head:
    """`begin` has made what follows the first convolution, or the max-pool behind it."""

    def head(image: jax.Array) -> jax.Array:
        x = begin(image)
        for layer in folded.layers[1 if folded.begins_with_patches else 2 : until]:
            x = _apply(x, layer, affine)
        return x

    return head


def _patches(folded: Folded) -> Head:
    """The first convolution, of the image as it is."""
    conv = _with_mean(folded.layers[0], folded.mean)
    return lambda image: _convolve(image.astype(jnp.float32), conv.kernel, conv, (conv.stride, conv.stride))


def _patch_rows(folded: Folded) -> Head:
    """The same of rows of pixels that lie in one channel dimension; the columns that fill no patch are left out."""
    assert isinstance(folded.layers[0], Convolution)
    rounded = dataclasses.replace(folded.layers[0], kernel=on_grid(folded.layers[0].kernel))
    conv, side = _with_mean(rounded, folded.mean), rounded.stride
    (h, w), kernel = folded.image_size, conv.kernel.reshape(side, 1, 3 * side, -1)

    def begin(image: jax.Array) -> jax.Array:
        x = image.astype(jnp.float32)[:, :, : w // side * side]
        return _convolve(x.reshape(1, h, w // side, 3 * side), kernel, conv, (side, 1))

    return begin


def _with_mean(conv: Layer, mean: np.ndarray) -> Convolution:
    """The convolution without padding that takes pixels from which no mean was subtracted."""
    assert isinstance(conv, Convolution)
    share = np.einsum("hwco,c->o", conv.kernel.astype(np.float64), mean.astype(np.float64))
    return dataclasses.replace(conv, bias=(conv.bias - share).astype(np.float32))


def _before_pool(folded: Folded, until: int | None, first: Begin) -> Head:
    """The mean, the first convolution and, unless `until` says that it is the last, the max-pool."""
    conv = folded.layers[0]
    assert isinstance(conv, Convolution)
    h, w = (
        (n + 2 * conv.padding - k) // conv.stride + 1
        for n, k in zip(folded.image_size, conv.kernel.shape[:2], strict=True)
    )
    odd = (h + (h % 2 == 0), w + (w % 2 == 0))

    def begin(image: jax.Array) -> jax.Array:
        x = first(_minus_mean(image, folded.mean), conv, folded.image_size, odd)
        if until == 1:
            return x[:, :h, :w]
        return nn.max_pool(x, (3, 3), (2, 2), "SAME")[:, : (h + 1) // 2, : (w + 1) // 2]

    return begin


def _widened(conv: Layer) -> Layer:
    """The convolution with channels of zeros, so that there are at least `CHANNELS`."""
    assert isinstance(conv, Convolution)
    spare = (0, max(0, CHANNELS - conv.bias.size))
    return dataclasses.replace(
        conv, kernel=np.pad(conv.kernel, ((0, 0), (0, 0), (0, 0), spare)), bias=np.pad(conv.bias, spare)
    )


def _apply(x: jax.Array, layer: Layer, affine: Callable[[jax.Array, Affine], jax.Array]) -> jax.Array:
    if isinstance(layer, Affine):
        return _activate(affine(x, layer), layer)
    assert isinstance(layer, Convolution)
    return _convolve(x, layer.kernel, layer, (layer.stride, layer.stride), layer.padding)


def _minus_mean(image: jax.Array, mean: np.ndarray) -> jax.Array:
    """`[1, H, W, 3]` uint8 -> `[1, H W / n, 3 n]` float32, for the largest n up to `PIXELS` that divides."""
    pixels = image.size // 3
    n = max(n for n in range(1, PIXELS + 1) if pixels % n == 0)
    return image.reshape(1, pixels // n, 3 * n).astype(jnp.float32) - jnp.expand_dims(np.tile(mean, n), (0, 1))


def _pixels(x: jax.Array, conv: Convolution, image_size: Size, size: Size) -> jax.Array:
    """The first convolution as it is, `size` rows and columns of it."""
    pads = [
        (conv.padding, conv.stride * (out - 1) + k - n - conv.padding)
        for n, out, k in zip(image_size, size, conv.kernel.shape[:2], strict=True)
    ]
    x = jnp.pad(x.reshape(1, *image_size, 3), ((0, 0), *pads, (0, 0)))
    return _convolve(x, conv.kernel, conv, (conv.stride, conv.stride))


def _pixel_groups(x: jax.Array, conv: Convolution, image_size: Size, size: Size) -> jax.Array:
    """The same numbers from four images of an eighth of the width and 24 channels, each shifted by two pixels.

    The window of a column, 7 pixels and one that counts nothing, is one group in one of the four images: the n-th
    makes columns n, n + 4, n + 8, …
    """
    (h, w), (kh, kw) = image_size, conv.kernel.shape[:2]
    assert (conv.stride, kw) == (2, GROUP - 1)
    groups, rows = -(-size[1] // 4), 2 * (size[0] - 1) + kh
    bottom, right = rows - h - conv.padding, GROUP * groups + 6 - w - conv.padding
    x = jnp.pad(x.reshape(1, h, 3 * w), ((0, 0), (conv.padding, bottom), (3 * conv.padding, 3 * right)))
    width = 3 * GROUP * groups
    x = jnp.concatenate([x[:, :, 6 * n : 6 * n + width] for n in range(4)]).reshape(4, rows, groups, 3 * GROUP)
    kernel = np.pad(conv.kernel, ((0, 0), (0, 1), (0, 0), (0, 0))).reshape(kh, 1, 3 * GROUP, -1)
    x = _convolve(x, kernel, conv, (2, 1))
    return x.transpose(1, 2, 0, 3).reshape(1, size[0], 4 * groups, -1)[:, :, : size[1]]


def _convolve(x: jax.Array, kernel: np.ndarray, conv: Convolution, strides: Size, padding: int = 0) -> jax.Array:
    """With this kernel, and `conv`'s bias and ReLU."""
    pads, groups = [(padding, padding)] * 2, x.shape[-1] if conv.depthwise else 1
    x = jax.lax.conv_general_dilated(
        x, jnp.asarray(kernel), strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )
    return _activate(x + _per_channel(conv.bias), conv)


def _multiply_add(x: jax.Array, affine: Affine) -> jax.Array:
    return x * _per_channel(affine.factor) + _per_channel(affine.shift)


def _depthwise(x: jax.Array, affine: Affine) -> jax.Array:
    c = x.shape[-1]
    kernel = jnp.asarray(affine.factor).reshape(1, 1, 1, c)
    x = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=c
    )
    return x + _per_channel(affine.shift)


def _per_channel(values: np.ndarray) -> jax.Array:
    """`[c]` to `[1, 1, 1, c]`."""
    return jnp.expand_dims(values, (0, 1, 2))


def _activate(x: jax.Array, layer: Convolution | Affine) -> jax.Array:
    return nn.relu(x) if layer.relu else x
