"""The folded encoder as JAX functions that LiteRT runs fast: raw image in, latent out.

The two functions are equivalent formulations. If a max-pool follows the first convolution, both subtract the mean from
rows of 16 pixels, since XNNPACK's loop over 3 channels is slow. Both let the convolution make an odd number of rows and
columns, since the pool then needs no padding operator of its own (`SAME` pads an odd image on both sides, as the model
does); a surplus row or column is cut off after the pool, where it is small. A first convolution of patches has no
padding, so the mean goes into its bias.

`float_head` must give the same bits on every machine. An affine layer is a multiplication and an addition, and a latent
of fewer than 8 channels is cut out of one with 8, because ARM kernels sum narrower convolutions in another order.

`integer_head` is for int8 kernels, which process channels in eights or fours: 3 would waste most of the work. Before a
pool, the first convolution reads groups of 8 pixels as 24 channels. A convolution of patches reads each row of a patch
as one pixel, of 12 channels if patches are 4 × 4. An affine layer is a depthwise 1 × 1 convolution, which rounds once
instead of twice.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bottlefit_jax.models.designs import Size
from export.folding import Affine, Convolution, Folded, Layer

Head = Callable[[jax.Array], jax.Array]
FirstConvolution = Callable[[jax.Array, Convolution, Size, Size], jax.Array]
PIXELS = 16  # in a row of the subtraction; longer rows are hardly faster, and the file holds the mean once per pixel
GROUP = 8  # pixels, together 24 channels
MIN_CHANNELS = 8  # of a float convolution


def float_head(folded: Folded, *, until: int | None = None) -> Head:
    """Make the head to export as float32 or float16.

    Args:
        folded: from `folding.fold_encoder`.
        until: how many of `folded.layers` to run, from 1 up; None: all. A failed export uses it to find the first layer
            that diverges.

    Returns:
        `[1, H, W, 3]` uint8 -> `[1, h, w, c]` float32.
    """
    layers = list(folded.layers)
    last = max(number for number, layer in enumerate(layers) if isinstance(layer, Convolution))
    layers[last] = _widen(layers[last])
    folded = dataclasses.replace(folded, layers=tuple(layers))
    begin = (
        _begin_with_patches(folded) if folded.begins_with_patches else _begin_with_pool(folded, until, _convolve_pixels)
    )
    head = _head(folded, until, begin, _multiply_add)
    if until is not None and until <= last:
        return head
    return lambda image: head(image)[..., : folded.latent_shape[-1]]


def integer_head(folded: Folded, *, until: int | None = None) -> Head:
    """Make the head to export as int8; arguments and result (still float32) are those of `float_head`.

    A kernel of patches is rounded here as int8 rounds it. The mean's share of the bias then belongs to the kernel that
    is used, so the rounding only affects how an image differs from the mean.
    """
    begin = (
        _begin_with_patch_rows(folded)
        if folded.begins_with_patches
        else _begin_with_pool(folded, until, _convolve_pixel_groups)
    )
    return _head(folded, until, begin, _affine_as_depthwise)


def on_grid(kernel: np.ndarray) -> np.ndarray:
    """Round a kernel `[kh, kw, c, channels]` to the values that int8 has, with one step for each channel."""
    step = np.maximum(np.abs(kernel).max((0, 1, 2)), np.finfo(np.float32).tiny) / 127
    return (np.rint(kernel / step) * step).astype(np.float32)


def _head(folded: Folded, until: int | None, begin: Head, affine: Callable[[jax.Array, Affine], jax.Array]) -> Head:
    """Run `begin`, which replaces the first convolution and a max-pool after it, and then the other layers."""

    def head(image: jax.Array) -> jax.Array:
        x = begin(image)
        for layer in folded.layers[1 if folded.begins_with_patches else 2 : until]:
            x = _apply(x, layer, affine)
        return x

    return head


def _begin_with_patches(folded: Folded) -> Head:
    """Make the first convolution, on the image as it is."""
    conv = _with_mean(folded.layers[0], folded.mean)
    return lambda image: _convolve(image.astype(jnp.float32), conv.kernel, conv, (conv.stride, conv.stride))


def _begin_with_patch_rows(folded: Folded) -> Head:
    """Make the same with each row of a patch in one channel axis; columns that do not fill a patch are left out."""
    assert isinstance(folded.layers[0], Convolution)
    rounded = dataclasses.replace(folded.layers[0], kernel=on_grid(folded.layers[0].kernel))
    conv, side = _with_mean(rounded, folded.mean), rounded.stride
    (h, w), kernel = folded.image_size, conv.kernel.reshape(side, 1, 3 * side, -1)

    def begin(image: jax.Array) -> jax.Array:
        x = image.astype(jnp.float32)[:, :, : w // side * side]
        return _convolve(x.reshape(1, h, w // side, 3 * side), kernel, conv, (side, 1))

    return begin


def _with_mean(conv: Layer, mean: np.ndarray) -> Convolution:
    """Return the convolution, which has no padding, for pixels from which the mean was not subtracted."""
    assert isinstance(conv, Convolution)
    share = np.einsum("hwco,c->o", conv.kernel.astype(np.float64), mean.astype(np.float64))
    return dataclasses.replace(conv, bias=(conv.bias - share).astype(np.float32))


def _begin_with_pool(folded: Folded, until: int | None, first: FirstConvolution) -> Head:
    """Make the subtraction of the mean, the first convolution and, unless `until` is 1, the max-pool."""
    conv = folded.layers[0]
    assert isinstance(conv, Convolution)
    h, w = (
        (n + 2 * conv.padding - k) // conv.stride + 1
        for n, k in zip(folded.image_size, conv.kernel.shape[:2], strict=True)
    )
    odd = (h + (h % 2 == 0), w + (w % 2 == 0))

    def begin(image: jax.Array) -> jax.Array:
        x = first(_subtract_mean(image, folded.mean), conv, folded.image_size, odd)
        if until == 1:
            return x[:, :h, :w]
        return nn.max_pool(x, (3, 3), (2, 2), "SAME")[:, : (h + 1) // 2, : (w + 1) // 2]

    return begin


def _widen(conv: Layer) -> Layer:
    """Append channels of zeros, so that the convolution has at least `MIN_CHANNELS`."""
    assert isinstance(conv, Convolution)
    spare = (0, max(0, MIN_CHANNELS - conv.bias.size))
    return dataclasses.replace(
        conv, kernel=np.pad(conv.kernel, ((0, 0), (0, 0), (0, 0), spare)), bias=np.pad(conv.bias, spare)
    )


def _apply(x: jax.Array, layer: Layer, affine: Callable[[jax.Array, Affine], jax.Array]) -> jax.Array:
    if isinstance(layer, Affine):
        return _activate(affine(x, layer), layer)
    assert isinstance(layer, Convolution)
    return _convolve(x, layer.kernel, layer, (layer.stride, layer.stride), layer.padding)


def _subtract_mean(image: jax.Array, mean: np.ndarray) -> jax.Array:
    """Turn `[1, H, W, 3]` uint8 into `[1, H W / n, 3 n]` float32, for the largest n up to `PIXELS` that divides H W."""
    pixels = image.size // 3
    n = max(n for n in range(1, PIXELS + 1) if pixels % n == 0)
    return image.reshape(1, pixels // n, 3 * n).astype(jnp.float32) - jnp.expand_dims(np.tile(mean, n), (0, 1))


def _convolve_pixels(x: jax.Array, conv: Convolution, image_size: Size, size: Size) -> jax.Array:
    """Compute `size` rows and columns of the first convolution."""
    pads = [
        (conv.padding, conv.stride * (out - 1) + k - n - conv.padding)
        for n, out, k in zip(image_size, size, conv.kernel.shape[:2], strict=True)
    ]
    x = jnp.pad(x.reshape(1, *image_size, 3), ((0, 0), *pads, (0, 0)))
    return _convolve(x, conv.kernel, conv, (conv.stride, conv.stride))


def _convolve_pixel_groups(x: jax.Array, conv: Convolution, image_size: Size, size: Size) -> jax.Array:
    """Compute the same numbers from four images of an eighth of the width and 24 channels, each shifted by two pixels.

    The window of a column is 7 pixels wide. With one more of weight 0 it is one group in one of the four images; the
    n-th image gives columns n, n + 4, n + 8, …
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
    """Convolve with this kernel, and with the bias and ReLU of `conv`."""
    pads, groups = [(padding, padding)] * 2, x.shape[-1] if conv.depthwise else 1
    x = jax.lax.conv_general_dilated(
        x, jnp.asarray(kernel), strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )
    return _activate(x + _per_channel(conv.bias), conv)


def _multiply_add(x: jax.Array, affine: Affine) -> jax.Array:
    return x * _per_channel(affine.factor) + _per_channel(affine.shift)


def _affine_as_depthwise(x: jax.Array, affine: Affine) -> jax.Array:
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
