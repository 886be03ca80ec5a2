"""Multiply-adds and parameters, against counts by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.cost import count_params, macs


def spec(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def layer_macs(layer, *shape):
    variables = jax.eval_shape(layer.init, jax.random.key(0), spec(*shape))
    return macs(layer.apply, variables, spec(*shape))


def test_the_first_convolution_of_a_resnet():
    layer = nn.Conv(64, (7, 7), strides=2, padding=3, use_bias=False)
    assert layer_macs(layer, 1, 224, 224, 3) == 118_013_952


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Dense(10), (1, 2048), 20480),
        (nn.Dense(10), (4, 3, 8), 4 * 3 * 8 * 10),
        (nn.Conv(16, (3, 3)), (2, 8, 8, 4), 2 * 64 * 16 * 4 * 9),
        (nn.Conv(8, (3, 3), feature_group_count=8), (1, 8, 8, 8), 64 * 8 * 9),
        (nn.Conv(8, (3, 3), feature_group_count=2), (1, 8, 8, 8), 64 * 8 * 4 * 9),
        (nn.Conv(8, (3, 3), kernel_dilation=2), (1, 8, 8, 8), 64 * 8 * 8 * 9),
        (nn.Conv(5, (3,), padding="VALID"), (1, 8, 2), 6 * 5 * 2 * 3),
        (nn.ConvTranspose(6, (2, 2), strides=(2, 2)), (1, 15, 15, 12), 15 * 15 * 12 * 6 * 4),
        (nn.ConvTranspose(6, (4, 2), strides=(2, 1), padding="SAME"), (1, 5, 7, 3), 5 * 7 * 3 * 6 * 8),
        (nn.BatchNorm(use_running_average=True), (1, 8, 8, 4), 0),
    ],
)
def test_layers_cost_what_is_known_of_them(layer, shape, expected):
    assert layer_macs(layer, *shape) == expected


def test_functions_inside_functions_are_counted():
    def product(x):
        return x @ x

    x = spec(4, 4)
    assert macs(jax.jit(product), x) == 64
    assert macs(jax.checkpoint(product), x) == 64
    assert macs(lambda x: lax.scan(lambda c, _: (product(c), None), x, length=5)[0], x) == 5 * 64
    assert macs(lambda x: lax.fori_loop(0, 3, lambda _, c: product(c), x), x) == 3 * 64
    assert macs(lambda x: lax.cond(x[0, 0] > 0, lambda x: product(product(x)), product, x), x) == 2 * 64
    assert macs(jax.vmap(product), spec(3, 4, 4)) == 3 * 64

    @jax.custom_jvp
    def marked(x):
        return product(x)

    marked.defjvps(lambda t, _out, x: t @ x + x @ t)
    assert macs(marked, x) == 64
    assert macs(jax.grad(lambda x: product(x).sum()), x) == 2 * 64


def test_a_loop_of_unknown_length_is_an_error_only_if_it_multiplies():
    x = spec(4, 4)
    assert macs(lambda x: lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c + 1, x), x) == 0
    with pytest.raises(UserError, match="unknown number of times"):
        macs(lambda x: lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c @ c, x), x)


def test_operations_without_influence_on_the_result_are_not_counted():
    def two(x):
        return {"latent": x @ x, "logits": x @ x @ x}

    assert macs(lambda x: two(x)["latent"], spec(4, 4)) == 64
    assert macs(two, spec(4, 4)) == 3 * 64
    assert macs(lambda x: 1.0, spec(4, 4)) == 0


def test_parameters_are_counted_without_being_made():
    layer = nn.Conv(64, (7, 7), use_bias=False)
    variables = jax.eval_shape(layer.init, jax.random.key(0), spec(1, 224, 224, 3))
    assert count_params(variables["params"]) == 64 * 3 * 49
    assert count_params({"a": jnp.zeros(()), "b": [jnp.zeros((2, 3))]}) == 7
    assert count_params({}) == 0
