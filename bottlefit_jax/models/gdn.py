"""Divisive normalisation, which learned image compression uses in place of batch norm and ReLU."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bottlefit_jax.models.convolution import convolve

PEDESTAL = 2.0**-36  # added under the roots, so that a parameter at its bound still has a gradient
LEAST_BETA = 1e-6
FIRST_GAMMA = 0.1
NO_PADDING = ((0, 0), (0, 0))


class DivisiveNorm(nn.Module):
    """The simplified generalised divisive normalisation, or its inverse: `[B, h, w, c] -> [B, h, w, c]`.

    y[i] = x[i] / (beta[i] + sum over j of gamma[j, i] |x[j]|); the inverse multiplies (Johnston et al. 2019,
    "Computationally efficient neural image compression", as CompressAI's `GDN1`). Beta and gamma stay positive because
    their roots are the parameters, bounded below (CompressAI's `NonNegativeParametrizer`). Gamma is `[c, c]`, in × out.
    """

    inverse: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise `x`; same shape, in the layer's type."""
        channels = x.shape[-1]
        beta = self.param("beta", lambda _: jnp.sqrt(jnp.full(channels, 1.0 + PEDESTAL, jnp.float32)))
        gamma = self.param("gamma", lambda _: jnp.sqrt(FIRST_GAMMA * jnp.eye(channels, dtype=jnp.float32) + PEDESTAL))
        x = x.astype(self.dtype)
        kernel = jnp.expand_dims(_squared(gamma, 0.0), (0, 1)).astype(self.dtype)  # [1, 1, c, c]
        norm = convolve(jnp.abs(x), kernel, 1, NO_PADDING).astype(jnp.float32)
        norm = norm + jnp.expand_dims(_squared(beta, LEAST_BETA), (0, 1, 2))
        wide = x.astype(jnp.float32)
        return (wide * norm if self.inverse else wide / norm).astype(self.dtype)


def _squared(root: jax.Array, least: float) -> jax.Array:
    """Return the value of a parameter that is kept as a root, at least `least`."""
    return jnp.square(_at_least(root, (least + PEDESTAL) ** 0.5)) - PEDESTAL


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _at_least(x: jax.Array, bound: float) -> jax.Array:
    """Return the larger of `x` and a bound; below the bound, a gradient passes if descending it raises `x`."""
    return jnp.maximum(x, bound)


def _forward(x: jax.Array, bound: float) -> tuple[jax.Array, jax.Array]:
    return jnp.maximum(x, bound), x


def _backward(bound: float, x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where((x >= bound) | (gradient < 0), gradient, 0.0),)


_at_least.defvjp(_forward, _backward)
