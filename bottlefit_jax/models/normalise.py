"""The input of a network: pixels minus their mean, divided by their standard deviation."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def normalise(image: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Normalise images for a network.

    Args:
        image: `[B, H, W, 3]` uint8.
        mean: of each channel, of images scaled to 0..1.
        std: likewise.

    Returns:
        `[B, H, W, 3]` float32.
    """
    scale = jnp.asarray([1.0 / (255.0 * s) for s in std], jnp.float32)
    shift = jnp.asarray([m / s for m, s in zip(mean, std, strict=True)], jnp.float32)
    axes = tuple(range(image.ndim - 1))
    return image.astype(jnp.float32) * jnp.expand_dims(scale, axes) - jnp.expand_dims(shift, axes)
