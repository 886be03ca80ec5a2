"""Divisive normalisation against its formula, in NumPy, and the bounds of its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax.models.gdn import DivisiveNorm

OFFSET = 2.0**-18  # CompressAI's `reparam_offset`


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)


def compressai(x, beta, gamma, *, inverse):
    """GDN1 of CompressAI in float64, of parameters as it keeps them; gamma is [out, in] there, so transposed here."""
    beta = np.maximum(beta.astype(float), (1e-6 + OFFSET**2) ** 0.5) ** 2 - OFFSET**2
    gamma = np.maximum(gamma.T.astype(float), OFFSET) ** 2 - OFFSET**2
    norm = np.einsum("oi,bhwi->bhwo", gamma, np.abs(x.astype(float))) + beta
    return x * norm if inverse else x / norm


@pytest.mark.parametrize("inverse", [False, True])
def test_it_is_compressais_formula(x, inverse):
    rng = np.random.default_rng(1)
    beta, gamma = (rng.normal(0.4, 0.5, size).astype(np.float32) for size in ((4,), (4, 4)))
    assert beta.min() < 0 or gamma.min() < 0  # so that the bounds are used
    got = DivisiveNorm(inverse).apply({"params": {"beta": beta, "gamma": gamma}}, x)
    np.testing.assert_allclose(got, compressai(x, beta, gamma, inverse=inverse), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("inverse", [False, True])
def test_it_begins_with_beta_1_and_a_tenth_of_each_channel_itself(x, inverse):
    variables = DivisiveNorm(inverse).init(jax.random.key(0), x)
    norm = 1 + 0.1 * np.abs(x)
    got = DivisiveNorm(inverse).apply(variables, x)
    np.testing.assert_allclose(got, x * norm if inverse else x / norm, rtol=1e-5)
    assert jax.tree.map(jnp.shape, variables["params"]) == {"beta": (4,), "gamma": (4, 4)}


def test_below_its_bound_a_parameter_moves_up_but_not_down(x):
    low = {"beta": jnp.full(4, -1.0), "gamma": jnp.full((4, 4), 0.5)}

    def grow(params, sign):
        return sign * jnp.abs(DivisiveNorm(inverse=True).apply({"params": params}, x)).sum()

    up, down = (jax.grad(grow)(low, sign)["beta"] for sign in (-1.0, 1.0))
    assert np.all(np.asarray(up) < 0)  # descent raises beta
    assert not np.any(np.asarray(down))


def test_it_computes_in_the_type_that_it_is_given(x):
    variables = DivisiveNorm().init(jax.random.key(0), x)
    half = DivisiveNorm(dtype=jnp.bfloat16).apply(variables, x)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(half, np.float32), DivisiveNorm().apply(variables, x), rtol=0.03, atol=0.03)
