"""Latents that look like an encoder's: smooth over the pixels, each channel with a spread of its own."""

import numpy as np

from bottlefit_jax.codec.fit import fit_rate
from bottlefit_jax.codec.rates import Rates, make_rates

ZERO_POINT = 120
HEAD = "ab" * 32


def smooth_latents(count: int, shape: tuple[int, int, int], *, seed: int = 0, spread: float = 30.0) -> np.ndarray:
    """Return [count, h, w, c] uint8; the first channel spreads most."""
    random = np.random.default_rng(seed)
    h, w, c = shape
    noise = random.normal(size=(count, h + 2, w + 2, c))
    field = sum(noise[:, y : y + h, x : x + w] for y in range(3) for x in range(3)) / 3
    values = ZERO_POINT + spread * field / (1 + np.arange(c)) ** 0.5
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def fitted_rates(
    shape: tuple[int, int, int], steps: tuple[int, ...] = (1, 4, 16), *, count: int = 64, head: str = HEAD
) -> Rates:
    """Return rates of uniform steps, fitted to `smooth_latents`; their ids are the steps."""
    training = smooth_latents(count, shape, seed=1)
    fitted = [fit_rate(training, (step,) * shape[2], zero_point=ZERO_POINT, id=str(step)) for step in steps]
    return make_rates(fitted, head=head, shape=shape)
