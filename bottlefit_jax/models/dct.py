"""The discrete cosine transform of 8 × 8 pixels, as the first weights of an encoder and of its decoder.

JPEG's transform (ITU-T T.81, annex A.3.3), behind an orthonormal transform of the colours: brightness, and two
differences. Both are linear and have the same gain in every direction, so the decoder's weights are the encoder's,
transposed. A student that begins with them restores most of an image before it has learned anything.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SIDE = 8  # of a block, pixels
VALUES = 3 * SIDE * SIDE  # of a block
COLOURS = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
# In photographs a coefficient's variance falls with the square of its frequency, and that of a difference of colours is
# about a twelfth of that of the brightness.
COLOUR_COST, MEAN_COST = (1, 12, 12), 0.3


def analysis(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Return the kernel [8, 8, 3, channels] of a convolution of stride 8: the `channels` largest coefficients."""
    del key
    return jnp.asarray(basis(shape[-1]).reshape(shape[-1], SIDE, SIDE, 3).transpose(1, 2, 3, 0), dtype)


def synthesis(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Return the kernel [kh, kw, channels, 192] of a convolution that restores blocks; neighbours begin with 0."""
    del key
    kernel = np.zeros(shape)
    kernel[shape[0] // 2, shape[1] // 2] = basis(shape[2])
    return jnp.asarray(kernel, dtype)


def basis(channels: int) -> np.ndarray:
    """Return [channels, 192]: orthonormal rows over (row, column, colour), the lowest frequencies first.

    Of more channels than a block has values, the others are 0.
    """
    n = np.arange(SIDE)
    cosines = np.sqrt(2 / SIDE) * np.cos(np.pi * (n + 0.5) * n[:, None] / SIDE)
    cosines[0] /= np.sqrt(2)
    cost = (n[:, None, None] ** 2 + n[None, :, None] ** 2 + MEAN_COST) * np.array(COLOUR_COST)  # [v, u, colour]
    rows = np.einsum("vy,ux,kc->vukyxc", cosines, cosines, COLOURS).reshape(VALUES, VALUES)
    ordered = rows[np.argsort(cost.ravel(), kind="stable")][:channels]
    return np.pad(ordered, ((0, channels - len(ordered)), (0, 0)))
