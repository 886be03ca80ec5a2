"""Convolution, rewritten where XLA's CPU backend has no fast code for it or for one of its gradients.

Everything is NHWC. On other devices the forward pass and the gradients are XLA's own.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

Pads = tuple[tuple[int, int], tuple[int, int]]
Arrays = tuple[jax.Array, jax.Array]


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int, padding: str | Sequence[tuple[int, int]], groups: int = 1
) -> jax.Array:
    """Apply a convolution, `[B, h, w, c] -> [B, h', w', channels]`, which is differentiable in reverse mode.

    Where a kernel has more pixels than its image, XLA swaps the two, and for the result the CPU backend has only a
    plain loop, a hundred times slower. Gradients are such convolutions too: in that of the kernel, the output's
    gradient acts as the kernel, in that of the input it acts as the image. Hence these equivalent formulations. Padding
    that makes the output larger than the input is a separate operation. Images of no more pixels than the kernel become
    one matrix product. A depthwise convolution becomes, on a CPU, one multiplication for each pixel of the kernel,
    which is three times faster.

    Args:
        x: `[B, h, w, c]`.
        kernel: `[kh, kw, c / groups, channels]`.
        stride: of both axes.
        padding: `SAME` or ((top, bottom), (left, right)).
        groups: of channels.
    """
    (h, w), (kh, kw) = x.shape[1:3], kernel.shape[:2]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads((h, w), (kh, kw), (stride, stride), padding)
    (top, bottom), (left, right) = padding
    pads = (top, bottom), (left, right)
    rows, columns = ((n + sum(pad) - k) // stride + 1 for n, pad, k in zip((h, w), pads, (kh, kw), strict=True))
    small = groups == 1 and min(rows, columns) > 0 and kh * kw >= min(h * w, rows * columns)
    if small or rows * columns > h * w:
        x, pads = jnp.pad(x, ((0, 0), *pads, (0, 0))), ((0, 0), (0, 0))
    if small:
        return jnp.concatenate(_taps(x, (kh, kw), stride), -1) @ kernel.reshape(-1, kernel.shape[-1])
    if groups == x.shape[-1] == kernel.shape[-1] > 1:
        by_taps = functools.partial(_depthwise_by_taps, stride=stride, pads=pads)
        direct = functools.partial(_direct, stride=stride, pads=pads, groups=groups)
        return jax.lax.platform_dependent(x, kernel, cpu=by_taps, default=direct)
    if groups == 1 and (kh * kw <= 4 or rows * columns > 16 * kh * kw):
        return _with_gradient_by_taps(x, kernel, stride, pads)
    return _direct(x, kernel, stride, pads, groups)


def _direct(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _with_gradient_by_taps(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Apply a convolution whose kernel gradient, on a CPU, is one matrix product for each pixel of the kernel.

    XLA computes this gradient as one convolution, with the output's gradient as its kernel. Its CPU backend takes up to
    30 times as long for it as for the forward pass with kernels 1×1, 10 times with 2×2, and 2 to 8 times with 3×3 and
    outputs of 16×16 pixels and more; for smaller outputs there is no gain (docs/results.md).
    """
    return _direct(x, kernel, stride, pads)


def _forward(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> tuple[jax.Array, Arrays]:
    return _direct(x, kernel, stride, pads), (x, kernel)


def _backward(stride: int, pads: Pads, given: Arrays, gradient: jax.Array) -> Arrays:
    x, kernel = given

    def by_taps(x: jax.Array, gradient: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        _, kw, channels, outputs = kernel.shape
        taps, gradient = _taps(x, kernel.shape[:2], stride), gradient.reshape(-1, outputs)
        at_once = kw if channels < 16 else 1  # matrices of three columns are slow: take a row of the kernel at once
        rows = [jnp.concatenate(taps[i : i + at_once], -1) for i in range(0, len(taps), at_once)]
        return jnp.stack([row.reshape(-1, row.shape[-1]).T @ gradient for row in rows]).reshape(kernel.shape)

    def direct(x: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: _direct(x, kernel, stride, pads), kernel)[1](gradient)[0]

    by_input = jax.vjp(lambda x: _direct(x, kernel, stride, pads), x)[1](gradient)[0]
    return by_input, jax.lax.platform_dependent(x, gradient, cpu=by_taps, default=direct)


_with_gradient_by_taps.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise_by_taps(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Apply a depthwise convolution as a sum over the kernel's pixels, each times a shifted image.

    The gradient of the image is such a sum too. JAX's own would be a sum of images padded to full size, each recomputed
    from the operations before it, and MobileNetV2's backward pass would take nearly twice as long.
    """
    return _sum_over_taps(x, kernel, stride, pads)


def _depthwise_forward(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> tuple[jax.Array, Arrays]:
    return _sum_over_taps(x, kernel, stride, pads), (x, kernel)


def _depthwise_backward(stride: int, pads: Pads, given: Arrays, gradient: jax.Array) -> Arrays:
    x, kernel = given
    config = [(0, 0, 0)]
    for n, m, k, (before, _) in zip(x.shape[1:3], gradient.shape[1:3], kernel.shape[:2], pads, strict=True):
        config.append((k - 1 - before, n + before - stride * (m - 1) - 1, stride - 1))
    spread = jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), [*config, (0, 0, 0)])
    by_input = _sum_over_taps(spread, kernel[::-1, ::-1], 1, ((0, 0), (0, 0)))
    taps = _taps(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel.shape[:2], stride)
    by_kernel = jnp.stack([(tap * gradient).sum((0, 1, 2)) for tap in taps]).reshape(kernel.shape)
    return by_input, by_kernel


_depthwise_by_taps.defvjp(_depthwise_forward, _depthwise_backward)


def _sum_over_taps(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Return `[B, h', w', c]` from an image `[B, h, w, c]` and a kernel `[kh, kw, 1, c]`."""
    kh, kw = kernel.shape[:2]
    taps = _taps(jnp.pad(x, ((0, 0), *pads, (0, 0))), (kh, kw), stride)
    weights = [jnp.expand_dims(kernel[i, j, 0], (0, 1, 2)) for i in range(kh) for j in range(kw)]
    products = (tap * weight for tap, weight in zip(taps[1:], weights[1:], strict=True))
    return sum(products, start=taps[0] * weights[0])


def _taps(x: jax.Array, kernel: tuple[int, ...], stride: int) -> list[jax.Array]:
    """Return the pixels of a padded image that each pixel of a kernel meets: `kh · kw` times `[B, h', w', c]`."""
    kh, kw = kernel
    bottom, right = ((n - k) // stride * stride + 1 for n, k in zip(x.shape[1:3], (kh, kw), strict=True))
    return [x[:, i : i + bottom : stride, j : j + right : stride] for i in range(kh) for j in range(kw)]
