"""Tails as ONNX and StableHLO, against Flax."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from export.tail import tail_function, tail_onnx, tail_stablehlo
from export.tensorrt_operators import check_operators
from tests.export.encoders import relative
from tests.export.tails import (
    SCALE,
    ZERO_POINT,
    operators,
    random_latents,
    random_student,
    random_tail,
    run,
    session_of,
    shape_of,
)

TRANSPOSES = 4
FAST = {
    "resnet18 at 32 px": ("resnet18", 32, {"width": 16}),
    "resnet18 at 64 px": ("resnet18", 64, {"width": 16}),
    "resnet18 at 224 px": ("resnet18", 224, {"width": 8, "channels": 12}),
    "resnet v1": ("resnet18", 96, {"width": 8, "version": 1}),
    "resnet v3": ("resnet50", 96, {"width": 8, "version": 3}),
    "resnet v3, odd": ("resnet18", 100, {"width": 8, "version": 3}),
    "patch": ("resnet18", 97, {"width": 8, "design": "patch"}),
    "densenet121": ("densenet121", 32, {"channels": 3}),
    "mobilenet_v2": ("mobilenet_v2", 96, {}),
    "mobilenet_v2, same": ("mobilenet_v2", 97, {"padding": "same"}),
}
SLOW = {
    "densenet121 at 224 px": ("densenet121", 224, {}),
    "densenet169 at 224 px": ("densenet169", 224, {"channels": 3}),
    "inception_v3 at 107 px": ("inception_v3", 107, {}),
    "inception_v3 at 299 px": ("inception_v3", 299, {}),
    "efficientnet_lite0 at 97 px": ("efficientnet_lite0", 97, {}),
    "efficientnet_lite0 at 224 px": ("efficientnet_lite0", 224, {"channels": 12}),
    "mobilenet_v2 at 224 px": ("mobilenet_v2", 224, {"padding": "same"}),
    "resnet152 at 224 px": ("resnet152", 224, {"channels": 12}),
    "resnet152 v1 at 224 px": ("resnet152", 224, {"channels": 12, "version": 1}),
    "resnet152 v3 at 224 px": ("resnet152", 224, {"channels": 12, "version": 3}),
}


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [*FAST.values(), *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW.values())],
    ids=[*FAST, *SLOW],
)
def test_onnx_tail_equals_flax(name, size, options, capfd):
    function, shape = random_tail(name, size, **options)
    model = tail_onnx(function, shape)
    check_operators(model)
    onnx.checker.check_model(model, full_check=True)
    assert operators(model).count("Transpose") <= TRANSPOSES
    assert not model.graph.value_info
    assert shape_of(model.graph.input[0]) == ["batch", *shape]
    assert shape_of(model.graph.output[0]) == ["batch", 10]
    latents, session = random_latents(5, shape), session_of(model)
    want = np.asarray(jax.jit(function)(latents))
    for batch in (1, 5):
        (got,) = session.run(["logits"], {"latent": latents[:batch]})
        assert relative(got, want[:batch]) <= 1e-5
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def small():
    return random_tail("resnet18", 64, width=8)


def test_images_may_be_rectangular():
    module, variables = random_student("resnet18", 64, width=8)
    function = tail_function(module, variables, SCALE, ZERO_POINT, (64, 99))
    latent = random_latents(2, (*module.latent_size((64, 99)), 6))
    got = run(tail_onnx(function, latent.shape[1:]), latent=latent)["logits"]
    assert relative(got, np.asarray(jax.jit(function)(latent))) <= 1e-5


def test_the_graph_dequantises_the_latent(small):
    module, variables = random_student("resnet18", 64, width=8)
    function, shape = small
    latent = random_latents(2, shape)
    received = jnp.asarray(SCALE * (latent.astype(np.float32) - ZERO_POINT))
    decode = jax.jit(lambda received: module.apply(variables, received, method="decode", image_size=(64, 64))[0])
    logits = decode(received)
    assert relative(run(tail_onnx(function, shape), latent=latent)["logits"], np.asarray(logits)) <= 1e-5


def test_the_tail_for_tensorrt_8_takes_a_float32_latent(small):
    function, shape = small
    whole, model = tail_onnx(function, shape), tail_onnx(function, shape, latent_dtype="float32")
    latent = random_latents(3, shape)
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert operators(model) == operators(whole)[1:]
    assert operators(whole)[0] == "Cast"
    got = run(model, latent=latent.astype(np.float32))["logits"]
    np.testing.assert_array_equal(got, run(whole, latent=latent)["logits"])


def test_the_probabilities_are_the_softmax_of_the_logits(small):
    function, shape = small
    got = run(tail_onnx(function, shape), latent=random_latents(4, shape))
    assert list(got) == ["logits", "probabilities"]
    np.testing.assert_allclose(got["probabilities"], jax.nn.softmax(jnp.asarray(got["logits"])), atol=1e-6)
    np.testing.assert_allclose(np.sum(got["probabilities"], axis=1), 1, atol=1e-5)
    assert list(run(tail_onnx(function, shape, outputs=["logits"]), latent=random_latents(1, shape))) == ["logits"]


def test_features_can_be_outputs(small):
    _, shape = small
    function, _ = random_tail("resnet18", 64, width=8, with_features=True)
    names = ["decoded", "layer2", "layer3", "layer4", "logits"]
    latent = random_latents(2, shape)
    got = run(tail_onnx(function, shape, outputs=names), latent=latent)
    logits, features = function(latent)
    assert list(got) == [*features, "logits"]
    for name, want in {**features, "logits": logits}.items():
        assert relative(got[name], np.asarray(want)) <= 1e-5, name


def test_the_same_student_gives_the_same_bytes(small):
    function, shape = small
    again, _ = random_tail("resnet18", 64, width=8)
    assert tail_onnx(function, shape).SerializeToString() == tail_onnx(again, shape).SerializeToString()


def test_stablehlo_has_no_path_and_the_same_bytes_from_anywhere(small):
    function, shape = small

    def from_elsewhere():
        return tail_stablehlo(function, shape)

    blob = tail_stablehlo(function, shape)
    assert not re.search(rb"[\w./-]{4,}\.py", blob)
    assert from_elsewhere() == blob
    assert b".py" in jax.export.export(jax.jit(function))(random_latents(1, shape)).mlir_module_serialized


def test_stablehlo_tail_has_the_bits_of_the_compiled_function(small):
    function, shape = small
    exported = jax.export.deserialize(bytearray(tail_stablehlo(function, shape)))
    assert exported.platforms == ("cpu", "cuda")
    for batch in (1, 5):
        latent = random_latents(batch, shape)
        np.testing.assert_array_equal(exported.call(latent), jax.jit(function)(latent))
