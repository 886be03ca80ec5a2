"""The layers of all backbones, with PyTorch's arithmetic.

Everything is NHWC. Parameters and batch statistics are float32 whatever the compute type is. `convert.torch_names`
depends on the names of the leaves: `kernel` (HWIO, or in × out), `kernel_transposed`, `scale`, `bias`, `mean`, `var`.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bottlefit_jax.models.convolution import convolve

# torchvision's initialisations, by PyTorch's names.
KAIMING_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
KAIMING_FAN_IN = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
TORCH_DEFAULT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # U(±1/√fan_in)
TORCH_DEFAULT_TRANSPOSED = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")


class BatchNorm(nn.Module):
    """Batch normalisation as PyTorch does it.

    Training normalises with the biased variance of the batch and moves the running variance towards the
    unbiased one (`torch.nn.BatchNorm2d`; most JAX libraries use the biased one for both). The variance is
    taken about the mean, never as a difference of squares.

    Args of a call:
        x: `[B, h, w, c]`, any float type; the statistics are float32.
        train: use and record the statistics of this batch.
    """

    eps: float = 1e-5
    momentum: float = 0.1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Normalise `x`; same shape, same type."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        wide = x.astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))  # all but the channels
        if not train:
            factor = scale * jax.lax.rsqrt(running_var.value + self.eps)
            shift = bias - running_mean.value * factor
            return (wide * jnp.expand_dims(factor, axes) + jnp.expand_dims(shift, axes)).astype(x.dtype)
        mean = wide.mean(axes)
        centred = wide - jnp.expand_dims(mean, axes)
        var = jnp.square(centred).mean(axes)
        if not self.is_initializing():
            count = x.size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            running_mean.value = (1 - self.momentum) * running_mean.value + self.momentum * mean
            running_var.value = (1 - self.momentum) * running_var.value + self.momentum * unbiased
        factor = scale * jax.lax.rsqrt(var + self.eps)
        return (centred * jnp.expand_dims(factor, axes) + jnp.expand_dims(bias, axes)).astype(x.dtype)


class Conv(nn.Module):
    """Convolution without a bias: `[B, h, w, c] -> [B, h', w', channels]`; `padding` is `SAME` or (rows, columns)."""

    channels: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: str | tuple[int, int] = (0, 0)
    groups: int = 1
    dtype: Any = jnp.float32
    init: Any = KAIMING_FAN_OUT

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the convolution."""
        shape = (*self.kernel, x.shape[-1] // self.groups, self.channels)
        kernel = self.param("kernel", self.init, shape, jnp.float32)
        pads = self.padding if isinstance(self.padding, str) else [(p, p) for p in self.padding]
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, pads, self.groups)


@dataclasses.dataclass(frozen=True)
class Style:
    """The settings that all convolutions and batch norms of one network share.

    Args:
        dtype: the type that it computes in.
        init: the initialisation of convolution kernels.
        eps: of the batch norms.
        same: pad as TensorFlow's `SAME` where PyTorch would pad both sides alike.
    """

    dtype: Any = jnp.float32
    init: Any = KAIMING_FAN_OUT
    eps: float = 1e-5
    same: bool = False

    def conv(
        self,
        channels: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
        name: str | None = None,
    ) -> Conv:
        """Create a convolution; `padding` is PyTorch's, on both sides."""
        pads = "SAME" if self.same and padding != 0 else _pair(padding)
        return Conv(channels, _pair(kernel), stride, pads, groups, self.dtype, self.init, name=name)

    def norm(self, *, name: str | None = None) -> BatchNorm:
        """Create a batch norm."""
        return BatchNorm(self.eps, name=name)


class ConvNorm(nn.Module):
    """Convolution, batch norm, and an activation unless it is None: `[B, h, w, c] -> [B, h', w', channels]`."""

    style: Style
    channels: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: int | tuple[int, int] = 0
    groups: int = 1
    activation: Any = None
    names: tuple[str, str] = ("0", "1")

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the layers."""
        x = self.style.conv(
            self.channels, self.kernel, stride=self.stride, padding=self.padding, groups=self.groups, name=self.names[0]
        )(x)
        x = self.style.norm(name=self.names[1])(x, train)
        return x if self.activation is None else self.activation(x)


class ConvTranspose2x2(nn.Module):
    """Transposed convolution 2×2, stride 2, no bias: `[B, h, w, c] -> [B, 2h, 2w, channels]`.

    Windows do not overlap, so it is one matrix product and a rearrangement. Every converter supports these two
    operations, and XLA's CPU backend is slow at dilated convolutions.
    """

    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the transposed convolution."""
        b, h, w, c = x.shape
        kernel = self.param("kernel_transposed", TORCH_DEFAULT_TRANSPOSED, (2, 2, c, self.channels), jnp.float32)
        x = jnp.einsum("bhwc,ijco->bhiwjo", x.astype(self.dtype), kernel.astype(self.dtype))  # [B, h, 2, w, 2, o]
        return x.reshape(b, 2 * h, 2 * w, self.channels)


class Linear(nn.Module):
    """A fully connected layer with float32 results: `[B, c] -> [B, classes]`.

    Args:
        classes: how many outputs.
        dtype: the type of the factors.
        kernel_init: of the weights.
        zero_bias: begin with bias 0; otherwise PyTorch's default, uniform in ±1/√c.
    """

    classes: int
    dtype: Any = jnp.float32
    kernel_init: Any = TORCH_DEFAULT
    zero_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the layer."""
        bound = 0.0 if self.zero_bias else x.shape[-1] ** -0.5

        def draw(key: jax.Array) -> jax.Array:
            return jax.random.uniform(key, (self.classes,), jnp.float32, -bound, bound)

        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.classes), jnp.float32)
        bias = self.param("bias", draw)
        product = jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype), preferred_element_type=jnp.float32)
        return product + jnp.expand_dims(bias, tuple(range(product.ndim - 1)))


@jax.custom_jvp
def max_pool_3x3(x: jax.Array) -> jax.Array:
    """Apply a max-pool 3×3, stride 2, padding 1, to non-negative values: `[B, h, w, c] -> [B, ⌈h/2⌉, ⌈w/2⌉, c]`.

    After a ReLU, zero padding has the result of PyTorch's −∞ padding, and every converter keeps it. The gradient is
    that of a maximum of slices, because XLA's own scatters one value at a time. Equal positive values share the
    gradient; at zeros the ReLU before blocks it.
    """
    return nn.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (2, 2))


@max_pool_3x3.defjvp
def _max_pool_3x3_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    def of_slices(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        h, w = x.shape[1] - 2, x.shape[2] - 2
        x = functools.reduce(jnp.maximum, [x[:, i : i + h : 2] for i in range(3)])
        return functools.reduce(jnp.maximum, [x[:, :, j : j + w : 2] for j in range(3)])

    return jax.jvp(of_slices, primals, tangents)


def average_pool(x: jax.Array, kernel: tuple[int, int], stride: tuple[int, int]) -> jax.Array:
    """Apply an average-pool without padding: `[B, h, w, c] -> [B, (h - kernel) / stride + 1, …, c]`."""
    return nn.pool(x, 0.0, jax.lax.add, kernel, stride, "VALID") / float(kernel[0] * kernel[1])


def global_average(x: jax.Array) -> jax.Array:
    """Return the mean over the image: `[B, h, w, c] -> [B, c]`."""
    return x.mean((1, 2))


def adaptive_average(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Average windows of `x` so that `size` of them remain: `[B, h, w, c] -> [B, *size, c]`.

    The windows are those of `torch.nn.AdaptiveAvgPool2d`. Where an ordinary average-pool has the same windows (2/1 and
    2/2 in the reference's decoders) it is used; otherwise a matrix for each axis.
    """
    (h, w), (rows, columns) = x.shape[1:3], size
    if (h, w) == size:
        return x
    window = tuple(_ordinary_window(n, m) for n, m in ((h, rows), (w, columns)))
    if all(window):
        kernel, stride = zip(*window, strict=True)
        return average_pool(x, kernel, stride)
    down = jnp.asarray(_averaging(h, rows), x.dtype)
    across = jnp.asarray(_averaging(w, columns), x.dtype)
    return jnp.einsum("ph,bhwc,qw->bpqc", down, x, across)


def _ordinary_window(n: int, m: int) -> tuple[int, int] | None:
    """Return kernel and stride of the average-pool that equals the adaptive pool from n to m; None if there is none."""
    if n % m == 0:
        return n // m, n // m
    return (2, 1) if n == m + 1 else None


def _averaging(n: int, m: int) -> np.ndarray:
    """Return the `[m, n]` matrix of adaptive average pooling: row i averages ⌊in/m⌋ … ⌈(i+1)n/m⌉."""
    matrix = np.zeros((m, n), np.float32)
    for i in range(m):
        start, stop = i * n // m, -(-(i + 1) * n // m)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
