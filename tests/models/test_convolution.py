"""Our formulations of a convolution, against one convolution of XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax.models.convolution import convolve


def compare(size, kernel, stride, padding, groups=1, *, relative, absolute):
    """Compare value and both gradients of ours with those of one convolution.

    Args:
        size: of the images, pixels.
        kernel: its shape.
        stride: of both axes.
        padding: of both axes.
        groups: of channels.
        relative: tolerance.
        absolute: tolerance near 0.
    """
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, *size, kernel[2] * groups)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal(kernel), jnp.float32)
    pads = padding if isinstance(padding, str) else [padding, padding]

    def direct(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=numbers, feature_group_count=groups
        )

    def ours(x, kernel):
        return convolve(x, kernel, stride, pads, groups)

    expected = direct(x, kernel)
    np.testing.assert_allclose(ours(x, kernel), expected, rtol=relative, atol=absolute)
    weights = jnp.asarray(rng.standard_normal(expected.shape), jnp.float32)
    got, wanted = (jax.grad(lambda x, k, f=f: (f(x, k) * weights).sum(), (0, 1))(x, kernel) for f in (ours, direct))
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=relative, atol=absolute)


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(9, 1, (1, 1)), (9, 2, (1, 1)), (8, 2, "SAME"), (8, 2, (0, 0)), (8, 1, (2, 1)), (10, 3, (0, 1)), (3, 2, (0, 0))],
)
def test_a_depthwise_convolution_equals_the_grouped_one(size, stride, padding):
    """On a CPU it is a sum of products."""
    compare((size, size), (3, 3, 1, 5), stride, padding, groups=5, relative=1e-5, absolute=1e-5)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((9, 7), (1, 1, 5, 4), 1, (0, 0)),
        ((9, 7), (1, 1, 5, 4), 2, (0, 0)),  # rows that no output depends on
        ((9, 7), (2, 2, 20, 4), 1, (1, 1)),
        ((9, 8), (2, 2, 5, 4), 2, (1, 0)),
        ((15, 16), (3, 3, 20, 4), 1, (1, 1)),
        ((30, 31), (3, 3, 5, 4), 2, "SAME"),
        ((64, 65), (7, 7, 3, 4), 2, (3, 3)),
        ((64, 65), (4, 4, 3, 4), 4, (0, 0)),
        ((20, 40), (1, 7, 5, 4), 1, (0, 3)),
        ((5, 5), (3, 3, 5, 4), 1, (1, 1)),  # outputs of few pixels: XLA's own gradient
        ((2, 2), (3, 3, 5, 4), 1, (1, 1)),  # images of no more pixels than the kernel
    ],
)
def test_value_and_gradients_equal_those_of_one_convolution(size, kernel, stride, padding):
    compare(size, kernel, stride, padding, relative=1e-5, absolute=1e-4)  # sums of up to 4,000 products


def test_the_gradient_by_a_1x1_kernel_is_a_matrix_product_on_a_cpu():
    """XLA's own formulation, a convolution, takes up to thirty times as long there."""
    x, kernel = jnp.ones((2, 8, 8, 20)), jnp.ones((1, 1, 20, 4))
    gradient = jax.grad(lambda kernel: convolve(x, kernel, 1, "VALID").sum())
    cpu = jax.jit(gradient).trace(kernel).lower(lowering_platforms=("cpu",)).as_text()
    gpu = jax.jit(gradient).trace(kernel).lower(lowering_platforms=("cuda",)).as_text()
    assert "dot_general" in cpu
    assert "dot_general" not in gpu
