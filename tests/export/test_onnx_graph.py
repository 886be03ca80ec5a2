"""Small functions through the exporter: the operators of each, and what is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

import bottlefit_jax
from bottlefit_jax.errors import UserError
from bottlefit_jax.models.layers import ConvTranspose2x2, adaptive_average, average_pool, global_average, max_pool_3x3
from export.onnx_graph import to_onnx
from tests.export.encoders import relative
from tests.export.tails import operators, run, session_of, shape_of


def export(function, shape, *, dtype=np.float32, outputs=("y",), dynamic_batch=True):
    spec = jax.ShapeDtypeStruct(shape, dtype)
    return to_onnx(function, {"x": spec}, outputs, name="test", dynamic_batch=dynamic_batch)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def compare(function, shape, allowed=1e-6):
    """Compare the model with the function for two batches; return the operators between the two Transpose."""
    model = export(function, shape)
    for batch in (1, 3):
        x = draw(batch, *shape[1:])
        assert relative(run(model, x=x)["y"], np.asarray(jax.jit(function)(x))) <= allowed
    first, *between, last = operators(model)
    assert first == last == "Transpose"
    return between


def convolve(x, kernel, stride=1, padding="VALID", groups=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [(2, 1), (0, 3)]])
def test_a_convolution_absorbs_the_affine_maps_after_it_and_the_padding_before_it(stride, padding):
    kernel, vectors = draw(3, 2, 6, 4), [draw(4, seed=1), draw(4, seed=2)]

    def function(x):
        scale, shift = (jnp.expand_dims(vector, (0, 1, 2)) for vector in vectors)
        x = jnp.pad(x, ((0, 0), (1, 0), (2, 2), (0, 0)))
        return 5.0 - (convolve(x, kernel, stride, padding) * scale + shift) / 3.0

    assert compare(function, (1, 9, 8, 6)) == ["Conv"]


@pytest.mark.parametrize("groups", [2, 6])
def test_grouped_convolution(groups):
    kernel = draw(3, 3, 6 // groups, 12)
    assert compare(lambda x: convolve(x, kernel, 1, "SAME", groups), (1, 6, 5, 6)) == ["Conv"]


def test_a_tensor_with_several_uses_keeps_its_operator():
    kernel = draw(1, 1, 6, 6)

    def function(x):
        y = convolve(x, kernel)
        return nn.relu(y * 2.0 + 1.0) + y

    assert compare(function, (1, 4, 4, 6)) == ["Conv", "BatchNormalization", "Relu", "Add"]
    both = export(lambda x: (convolve(x, kernel), convolve(x, kernel) * 2.0), (1, 4, 4, 6), outputs=("a", "b"))
    x = draw(2, 4, 4, 6)
    result = run(both, x=x)
    np.testing.assert_allclose(result["b"], 2 * result["a"], rtol=1e-6)


def test_affine_maps_that_cancel_vanish():
    assert compare(lambda x: nn.relu((x * 2.0 + 3.0 - 3.0) / 2.0), (1, 4, 4, 6)) == ["Relu"]


@pytest.mark.parametrize("size", [(7, 7), (8, 6)])
def test_padding_goes_into_a_max_pool_only_after_an_activation(size):
    assert compare(lambda x: max_pool_3x3(nn.relu(x)), (1, *size, 3)) == ["Relu", "MaxPool"]
    assert compare(lambda x: max_pool_3x3(nn.relu6(x)), (1, *size, 3)) == ["Clip", "MaxPool"]
    # Here every value is below 0, and the zeros around them win.
    kept = compare(lambda x: max_pool_3x3(x - 10.0) + 1.0, (1, *size, 3))
    assert kept == ["BatchNormalization", "Pad", "MaxPool", "BatchNormalization"]


def test_padding_that_jax_gives_a_max_pool_is_below_every_number():
    function = lambda x: nn.max_pool(x - 10.0, (3, 3), (2, 2), "SAME")  # noqa: E731
    assert compare(function, (1, 8, 7, 3)) == ["BatchNormalization", "MaxPool"]


@pytest.mark.parametrize("size", [(5, 5), (6, 7)])
def test_average_pool_counts_the_padding(size):
    function = lambda x: average_pool(jnp.pad(x, ((0, 0), (1, 1), (0, 2), (0, 0))), (3, 3), (2, 1))  # noqa: E731
    assert compare(function, (1, *size, 4)) == ["AveragePool"]
    assert compare(lambda x: average_pool(x, (5, 5), (3, 3)), (1, *size, 4)) == ["AveragePool"]


@pytest.mark.parametrize("size", [(4, 6), (3, 5), (9, 11)])
def test_adaptive_average(size):
    assert compare(lambda x: adaptive_average(x, size), (1, 7, 9, 4)) == ["MatMul", "MatMul"]


def test_transposed_convolution():
    layer = ConvTranspose2x2(5)
    variables = {"params": {"kernel_transposed": draw(2, 2, 3, 5)}}
    assert compare(lambda x: layer.apply(variables, x) * 3.0 + 1.0, (1, 4, 6, 3)) == ["ConvTranspose"]


def test_channels_that_become_a_square_of_pixels():
    def unfold(x):
        b, h, w, _ = x.shape
        return x.reshape(b, h, w, 2, 2, 3).swapaxes(2, 3).reshape(b, 2 * h, 2 * w, 3)

    assert compare(unfold, (1, 4, 5, 12)) == ["DepthToSpace"]


def test_concatenation_is_of_channels():
    function = lambda x: jnp.concatenate([x, nn.relu(x), x + 1.0], -1)  # noqa: E731
    assert compare(function, (1, 4, 5, 3)) == ["Relu", "BatchNormalization", "Concat"]


def test_average_and_linear():
    kernel, bias = draw(6, 10), draw(10, seed=1)
    function = lambda x: global_average(x) @ kernel + jnp.expand_dims(bias, 0)  # noqa: E731
    model, x = export(function, (1, 4, 5, 6)), draw(3, 4, 5, 6)
    assert operators(model) == ["Transpose", "GlobalAveragePool", "Flatten", "Gemm"]
    assert relative(run(model, x=x)["y"], np.asarray(jax.jit(function)(x))) <= 1e-6


def test_uint8_is_cast_before_anything_else():
    function = lambda x: nn.relu(x.astype(jnp.float32) - 100.0)  # noqa: E731
    model = export(function, (1, 4, 5, 3), dtype=np.uint8)
    assert operators(model)[:2] == ["Cast", "Transpose"]
    x = np.arange(240, dtype=np.uint8).reshape(4, 4, 5, 3)
    np.testing.assert_array_equal(run(model, x=x)["y"], np.maximum(x.astype(np.float32) - 100, 0))
    assert operators(export(jax.jit(function), (1, 4, 5, 3), dtype=np.uint8)) == operators(model)


def test_an_output_may_be_an_input_or_another_output():
    model = export(lambda x: (x, nn.relu(x), nn.relu(x) * 1.0), (1, 4), outputs=("same", "a", "b"))
    x = draw(2, 4)
    result = run(model, x=x)
    np.testing.assert_array_equal(result["same"], x)
    np.testing.assert_array_equal(result["a"], result["b"])
    twice = export(lambda x: [nn.relu(x)] * 2, (1, 4), outputs=("a", "b"))
    assert operators(twice) == ["Relu", "Identity"]
    np.testing.assert_array_equal(*run(twice, x=x).values())


@pytest.mark.parametrize(("dynamic", "batch"), [(True, "batch"), (False, 2)])
def test_the_file(dynamic, batch, capfd):
    kernel = draw(3, 3, 3, 4)
    function = lambda x: nn.relu(convolve(x, kernel) * 2.0)  # noqa: E731
    model = export(function, (2, 6, 7, 3), dynamic_batch=dynamic)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    assert (model.opset_import[0].version, model.ir_version, len(model.opset_import)) == (13, 8, 1)
    assert (model.producer_name, model.producer_version) == ("bottlefit_jax", bottlefit_jax.__version__)
    assert shape_of(model.graph.input[0]) == [batch, 6, 7, 3]
    assert shape_of(model.graph.output[0]) == [batch, 4, 5, 4]
    assert not model.graph.value_info
    session_of(model)
    assert capfd.readouterr() == ("", "")
    assert model.SerializeToString() == export(function, (2, 6, 7, 3), dynamic_batch=dynamic).SerializeToString()


class Odd(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="inner")(jnp.sin(x))


def test_an_unknown_primitive_is_named_with_its_place():
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.relu(Odd(name="odd")(x))

    module = Outer()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 4)))
    with pytest.raises(UserError, match=r"^ONNX export cannot translate sin at Outer/odd: there is no rule for it$"):
        export(lambda x: module.apply(variables, x), (1, 4))


@pytest.mark.parametrize(
    ("function", "shape", "message"),
    [
        (jnp.exp, (1, 4), "exp at the top level: there is no rule"),
        (jax.jit(lambda x: jnp.tanh(x)), (1, 4), "tanh at the top level: there is no rule"),
        (lambda x: x * x, (1, 4), "mul .* only supported for a tensor and a constant"),
        (lambda x: 1.0 / x, (1, 4), "div .* only supported for a tensor and a constant"),
        (lambda x: x * np.ones((1, 1, 4, 1), np.float32), (1, 4, 4, 2), r"constant of shape \(1, 1, 4, 1\)"),
        (lambda x: nn.relu(x.astype(jnp.bfloat16)), (1, 4), "only supported in float32, not bfloat16"),
        (lambda x: x.reshape(-1, 8), (1, 2, 2, 2), r"reshape .* from \(batch, 2, 2, 2\) to \(.*, 8\)"),
        (lambda x: x.sum(3), (1, 2, 2, 2), "only supported over rows and columns"),
        (
            lambda x: jnp.pad(x, ((0, 0), (1, 1), (0, 0), (1, 0))),
            (1, 2, 2, 2),
            "only supported with zeros around an image",
        ),
        (lambda x: x + jnp.ones(x.shape), (1, 4), "broadcast_in_dim .* as long as the batch"),
        (lambda x: jnp.zeros(3), (1, 4), "an output of the network is a constant"),
    ],
)
def test_an_unsupported_operation_is_refused(function, shape, message):
    with pytest.raises(UserError, match=message):
        export(function, shape)
