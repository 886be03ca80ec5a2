"""How likely each value of a latent is, so that training can make latents cheap to send.

The fully factorised density of Ballé et al. (2018, "Variational image compression with a scale hyperprior", appendix
6.1): for each channel a cumulative distribution that is learned, as a small monotone network of one input and one
output. It belongs to training alone. What is shipped are the codec's tables, which are counted.
"""

import itertools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

# How many times as far as other weights an update moves the density's, under Adam. It must follow a latent that still
# changes; at the encoder's pace it stayed 12 % above the entropy in a run of 270 steps.
PACE = 10.0
TINY = 1e-9  # the smallest probability: fewer would let the gradient overflow


class FactorizedDensity(nn.Module):
    """The density of each channel.

    Attributes:
        channels: of the latent.
        widths: of the hidden layers.
        spread: of values at the beginning: the density is then about as wide.
    """

    channels: int
    widths: tuple[int, ...] = (3, 3, 3)
    spread: float = 3.0

    @nn.compact
    def __call__(self, latent: jax.Array, step: jax.Array) -> jax.Array:
        """Return the bits of each image, as a coder would need them that knows the density.

        Args:
            latent: [B, h, w, c] float32, noise of the width `step` added, or rounded to steps.
            step: [B] float32 above 0.

        Returns:
            [B] float32.
        """
        half = jnp.expand_dims(step, (1, 2, 3)) / 2
        values = jnp.moveaxis(jnp.stack([latent - half, latent + half]), -1, 0)  # [c, 2, B, h, w]
        low, high = jnp.moveaxis(self._logits(values.reshape(self.channels, 1, -1)).reshape(values.shape), 1, 0)
        sign = -jnp.sign(jax.lax.stop_gradient(low + high))  # where sigmoids are far from 1, differences are exact
        likelihood = jnp.abs(nn.sigmoid(sign * high) - nn.sigmoid(sign * low))
        return -jnp.log2(jnp.maximum(likelihood, TINY)).sum((0, 2, 3))

    def _logits(self, x: jax.Array) -> jax.Array:
        """Return the logits of the cumulative distribution of [c, 1, n] values."""
        widths = (1, *self.widths, 1)
        scale = self.spread ** (1 / (len(widths) - 1))
        for number, (before, after) in enumerate(itertools.pairwise(widths)):
            start = nn.initializers.constant(math.log(math.expm1(1 / scale / after)) / PACE)
            matrix = PACE * self.param(f"matrix{number}", start, (self.channels, after, before))
            bias = PACE * self.param(f"bias{number}", _uniform, (self.channels, after, 1))
            x = nn.softplus(matrix) @ x + bias
            if number < len(widths) - 2:
                factor = PACE * self.param(f"factor{number}", nn.initializers.zeros, (self.channels, after, 1))
                x = x + jnp.tanh(factor) * jnp.tanh(x)
        return x


def noisy(latent: jax.Array, step: jax.Array, key: jax.Array) -> jax.Array:
    """Return a latent [B, h, w, c] with noise instead of rounding: uniform, as wide as each image's step [B]."""
    return latent + jnp.expand_dims(step, (1, 2, 3)) * jax.random.uniform(key, latent.shape, minval=-0.5, maxval=0.5)


def rounded(latent: jax.Array, step: jax.Array) -> jax.Array:
    """Round a latent [B, h, w, c] to multiples of each image's step [B]; gradients pass as if it were not rounded."""
    width = jnp.expand_dims(step, (1, 2, 3))
    return latent + jax.lax.stop_gradient(jnp.round(latent / width) * width - latent)


def _uniform(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-0.5 / PACE, maxval=0.5 / PACE)
