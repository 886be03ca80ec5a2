"""Layers against PyTorch's arithmetic."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bottlefit_jax.models.layers import (
    BatchNorm,
    Conv,
    ConvTranspose2x2,
    Linear,
    Style,
    adaptive_average,
    average_pool,
    max_pool_3x3,
)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def file():
    return dict(np.load(pathlib.Path(__file__).parents[1] / "goldens" / "training.npz"))


def assert_close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-6)


class TestThreeStepsOfTheReferencesHead:
    """`net/…` of training.npz: the encoder trains, and the statistics of the frozen blocks are updated too."""

    norms = ("b1.1", "b2.0", "b3.0")

    def read(self, file, moment):
        """(params, batch_stats) under the reference's names, in our layout."""
        params, stats = {}, {}
        for name in ("b1.0", "b1.3", "b2.2"):
            params[name] = {"kernel": file[f"{moment}/{name}.weight"].transpose(2, 3, 1, 0)}
        for name in self.norms:
            params[name] = {"scale": file[f"{moment}/{name}.weight"], "bias": file[f"{moment}/{name}.bias"]}
            stats[name] = {"mean": file[f"{moment}/{name}.running_mean"], "var": file[f"{moment}/{name}.running_var"]}
        params["b2.2 bias"] = file[f"{moment}/b2.2.bias"]
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (params, stats))

    def forward(self, params, stats, x, train):
        new = {}

        def norm_relu(name, x):
            variables = {"params": params[name], "batch_stats": stats[name]}
            y, updated = BatchNorm().apply(variables, x, train, mutable=["batch_stats"])
            new[name] = updated["batch_stats"]
            return jax.nn.relu(y)

        def conv(name, x, channels, kernel, **how):
            return Conv(channels, (kernel, kernel), **how).apply({"params": params[name]}, x)

        x = norm_relu("b1.1", conv("b1.0", x, 4, 3, stride=2, padding=(1, 1)))
        f1 = conv("b1.3", x, 6, 2, padding=(1, 1))
        f2 = conv("b2.2", norm_relu("b2.0", f1), 5, 2) + params["b2.2 bias"][None, None, None]
        f3 = average_pool(norm_relu("b3.0", f2), (2, 2), (1, 1))
        return (f1, f2, f3), new

    def test_weights_statistics_and_losses_equal_the_references(self, file):
        params, stats = self.read(file, "net/init")
        x = jnp.asarray(file["net/x"].transpose(0, 1, 3, 4, 2), jnp.float32)
        targets = [jnp.asarray(file[f"net/teacher{i}"].transpose(0, 2, 3, 1), jnp.float32) for i in (1, 2, 3)]
        trained = {name: params[name] for name in ("b1.0", "b1.1", "b1.3")}
        tx = optax.adam(1e-3)
        state = tx.init(trained)

        @jax.jit
        def step(trained, stats, state, x):
            def loss_fn(trained):
                out, new = self.forward(params | trained, stats, x, True)
                return sum(jnp.square(o - t).sum() for o, t in zip(out, targets, strict=True)), new

            (loss, new), gradient = jax.value_and_grad(loss_fn, has_aux=True)(trained)
            with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer
                update, state = tx.update(gradient, state)
            return optax.apply_updates(trained, update), new, state, loss

        for k in range(3):
            trained, stats, state, loss = step(trained, stats, state, x[k])
            np.testing.assert_allclose(loss, file["net/loss_before_step"][k], rtol=1e-5)
            expected_params, expected_stats = self.read(file, f"net/step{k + 1}")
            for got, expected in ((stats, expected_stats), (params | trained, expected_params)):
                jax.tree.map(assert_close, got, expected)
        features, _ = self.forward(params | trained, stats, x[0], False)
        for i, feature in enumerate(features, 1):
            expected = file[f"net/eval_after/f{i}"].transpose(0, 2, 3, 1)
            np.testing.assert_allclose(feature, expected, rtol=1e-5, atol=2e-5)


def test_variance_survives_a_mean_a_thousand_times_larger():
    x = normal(0, 8, 5, 5, 3) + 3000
    module = BatchNorm()
    variables = module.init(jax.random.key(0), x)
    _, new = module.apply(variables, x, True, mutable=["batch_stats"])
    expected = 0.9 + 0.1 * x.astype(np.float64).var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(new["batch_stats"]["var"], expected, rtol=1e-5)


def test_statistics_are_float32_at_bfloat16():
    x = jnp.asarray(normal(0, 4, 3, 3, 2), jnp.bfloat16)
    module = BatchNorm()
    y, new = module.apply(module.init(jax.random.key(0), x), x, True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype("float32")}
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.1 * wide.mean((0, 1, 2)), rtol=1e-5, atol=1e-7)


def test_one_value_per_channel_results_in_no_nan():
    x = jnp.ones((1, 1, 1, 2))
    module = BatchNorm()
    y, new = module.apply(module.init(jax.random.key(0), x), x, True, mutable=["batch_stats"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, new)))


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (8, 8), (9, 16)])
def test_max_pool_of_positives_equals_the_one_padded_with_minus_infinity(size):
    x = np.maximum(normal(1, 2, *size, 3), 0)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    rows, columns = (size[0] - 1) // 2 + 1, (size[1] - 1) // 2 + 1
    expected = [
        [padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2)) for j in range(columns)] for i in range(rows)
    ]
    np.testing.assert_array_equal(max_pool_3x3(jnp.asarray(x)), np.array(expected).transpose(2, 0, 1, 3))


@pytest.mark.parametrize(("n", "m"), [(28, 14), (29, 28), (38, 35), (9, 9), (10, 4), (5, 8), (7, 1)])
def test_adaptive_average_has_pytorchs_windows(n, m):
    x = normal(2, 2, n, n + 1, 3)
    expected = np.zeros((2, m, 3, 3))
    for i in range(m):
        for j in range(3):
            rows = slice(i * n // m, -(-(i + 1) * n // m))
            columns = slice(j * (n + 1) // 3, -(-(j + 1) * (n + 1) // 3))
            expected[:, i, j] = x[:, rows, columns].mean((1, 2))
    np.testing.assert_allclose(adaptive_average(jnp.asarray(x), (m, 3)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("n", "m", "kernel", "stride"), [(28, 14, 2, 2), (29, 28, 2, 1), (9, 8, 2, 1), (5, 4, 2, 1)])
def test_adaptive_average_is_the_average_pool_of_the_reference(n, m, kernel, stride):
    x = jnp.asarray(normal(3, 1, n, n, 4))
    expected = average_pool(x, (kernel, kernel), (stride, stride))
    np.testing.assert_array_equal(adaptive_average(x, (m, m)), expected)


def test_transposed_convolution_spreads_each_pixel_over_four():
    x, kernel = normal(4, 2, 3, 4, 5), normal(5, 2, 2, 5, 6)
    y = ConvTranspose2x2(6).apply({"params": {"kernel_transposed": kernel}}, x)
    assert y.shape == (2, 6, 8, 6)
    for i in (0, 1):
        for j in (0, 1):
            np.testing.assert_allclose(y[:, i::2, j::2], x @ kernel[i, j], rtol=1e-4, atol=1e-5)


def test_same_padding_adds_the_odd_pixel_at_the_end():
    x, kernel = normal(6, 1, 6, 6, 1), normal(7, 3, 3, 1, 1)
    y = Style(same=True).conv(1, 3, stride=2, padding=1).apply({"params": {"kernel": kernel}}, x)
    expected = (x[0, :3, :3, 0] * kernel[:, :, 0, 0]).sum()
    np.testing.assert_allclose(y[0, 0, 0, 0], expected, rtol=1e-5)


def test_linear_computes_float32_from_bfloat16():
    module = Linear(3, jnp.bfloat16)
    x = jnp.asarray(normal(8, 2, 5), jnp.bfloat16)
    variables = module.init(jax.random.key(0), x)
    assert module.apply(variables, x).dtype == jnp.float32
    assert np.abs(variables["params"]["kernel"]).max() <= 5**-0.5
    assert np.abs(variables["params"]["bias"]).max() <= 5**-0.5
