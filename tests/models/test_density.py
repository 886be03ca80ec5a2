import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bottlefit_jax import models
from bottlefit_jax.models.density import FactorizedDensity, noisy, rounded

STEPS = jnp.asarray([1.0, 2.0])


@pytest.fixture(scope="module")
def latent():
    spread = np.array([1.0, 6.0], np.float32)
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 2)).astype(np.float32) * spread)


def fitted(latent, step, *, steps=400):
    """Return the parameters of a density that has learned these latents with noise."""
    density, tx = FactorizedDensity(latent.shape[-1]), optax.adam(0.002)
    params = density.init(jax.random.key(0), latent, step)

    @jax.jit
    def update(params, state, key):
        loss, grads = jax.value_and_grad(lambda p: density.apply(p, noisy(latent, step, key), step).sum())(params)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    state = tx.init(params)
    with jax.numpy_dtype_promotion("standard"):  # Adam divides by powers of an integer
        for number in range(steps):
            params, state, _ = update(params, state, jax.random.key(number))
    return density, params


def test_bits_of_what_was_learned_are_near_the_entropy(latent):
    step = jnp.ones(2)
    density, params = fitted(latent, step)
    symbols = np.asarray(rounded(latent, step)).reshape(-1, 2).T
    entropy = 0.0
    for channel in symbols:
        shares = np.unique(channel, return_counts=True)[1] / channel.size
        entropy -= (shares * np.log2(shares)).sum() * channel.size
    bits = float(density.apply(params, rounded(latent, step), step).sum())
    assert bits == pytest.approx(entropy, rel=0.06)


def test_a_coarser_step_has_fewer_bits_and_each_image_its_own(latent):
    density = FactorizedDensity(2)
    params = density.init(jax.random.key(0), latent, STEPS)
    both = density.apply(params, jnp.stack([latent[0], latent[0]]), STEPS)
    assert both.shape == (2,)
    assert both[1] < both[0]


def test_the_probabilities_of_all_steps_sum_to_one(latent):
    density = FactorizedDensity(1)
    grid = jnp.arange(-400.0, 401.0).reshape(-1, 1, 1, 1)
    params = density.init(jax.random.key(1), grid, jnp.ones(len(grid)))
    bits = density.apply(params, grid, jnp.ones(len(grid)))
    assert float(jnp.exp2(-bits).sum()) == pytest.approx(1, abs=1e-3)


def test_noise_is_as_wide_as_the_step_and_rounding_lets_gradients_pass(latent):
    away = np.abs(np.asarray(noisy(latent, STEPS, jax.random.key(0)) - latent)).max((1, 2, 3))
    assert 0.45 < away[0] <= 0.5 < 0.9 < away[1] <= 1.0
    assert (np.asarray(rounded(latent, STEPS))[1] % 2 == 0).all()
    np.testing.assert_array_equal(jax.grad(lambda x: rounded(x, STEPS).sum())(latent), np.ones_like(latent))


def test_a_student_without_steps_has_no_density_and_with_steps_shows_its_bits_while_it_learns():
    plain = models.create("resnet18", num_classes=4, width=8, bottleneck={"channels": 3})
    student = plain.clone(steps=(1.0, 2.0))
    images, keys = jnp.zeros((2, 32, 32, 3)), {"params": jax.random.key(0), "steps": jax.random.key(1)}
    variables = jax.eval_shape(student.init, keys, images)
    assert set(variables["params"]) - set(jax.eval_shape(plain.init, keys, images)["params"]) == {"density"}
    values = student.init(keys, images)
    (_, features), _ = student.apply(
        values, images, train=("encoder", "decoder", "density"), mutable=["batch_stats"], rngs={"steps": keys["steps"]}
    )
    assert features["bits"].shape == features["step"].shape == (2,)
    assert set(np.asarray(features["step"]).tolist()) <= {1.0, 2.0}
    _, features = student.apply(values, images)
    assert "bits" not in features
