"""A folded Keras MobileNetV2: its layers have the right names, and the network computes the same."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from bottlefit_jax import models
from bottlefit_jax.convert import from_keras
from bottlefit_jax.convert.keras_names import LAYERS
from bottlefit_jax.errors import UserError
from bottlefit_jax.models.layers import BatchNorm

DATA = pathlib.Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real weights and images in {DATA}")
# The layers that differ from the others, by hand: name -> shape of the kernel.
SHAPES = {
    "00_stem_conv": (3, 3, 3, 32),
    "01_block01_depthwise": (3, 3, 32, 1),
    "02_block01_project": (1, 1, 32, 16),
    "03_block02_expand": (1, 1, 16, 96),
    "49_block17_depthwise": (3, 3, 960, 1),
    "50_block17_project": (1, 1, 960, 320),
    "51_head_conv": (1, 1, 320, 1280),
    "52_classifier": (1280, 11),
}


def shapes():
    """Kernel shapes of all 53 layers: each block widens sixfold, but the first."""
    widths = [16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320]
    rows, before = [("stem_conv", (3, 3, 3, 32))], 32
    for block, width in enumerate(widths, 1):
        inner = before if block == 1 else 6 * before
        if block > 1:
            rows.append((f"block{block:02d}_expand", (1, 1, before, inner)))
        rows += [(f"block{block:02d}_depthwise", (3, 3, inner, 1)), (f"block{block:02d}_project", (1, 1, inner, width))]
        before = width
    rows += [("head_conv", (1, 1, 320, 1280)), ("classifier", (1280, 11))]
    return {f"{i:02d}_{name}": shape for i, (name, shape) in enumerate(rows)}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    out = {}
    for name, shape in shapes().items():
        out[f"{name}.kernel"] = rng.standard_normal(shape).astype(np.float16)
        out[f"{name}.bias"] = rng.standard_normal(shape[-2] if name.endswith("depthwise") else shape[-1], np.float32)
    return out


def test_the_shapes_of_this_test_are_those_of_the_file():
    assert shapes().keys() == LAYERS.keys()
    assert {name: shapes()[name] for name in SHAPES} == SHAPES


def test_every_layer_is_under_its_name(arrays):
    variables, options = from_keras("mobilenet_v2", arrays)
    params = variables["params"]
    assert options == {"padding": "same"}
    np.testing.assert_array_equal(params["features0"]["0"]["kernel"], arrays["00_stem_conv.kernel"].astype(np.float32))
    np.testing.assert_array_equal(params["features0"]["1"]["bias"], arrays["00_stem_conv.bias"])
    depthwise = params["features1"]["conv"]["0"]["0"]["kernel"]
    assert depthwise.shape == (3, 3, 1, 32)
    np.testing.assert_array_equal(depthwise[:, :, 0], arrays["01_block01_depthwise.kernel"][..., 0].astype(np.float32))
    conv = params["features17"]["conv"]
    np.testing.assert_array_equal(conv["2"]["kernel"], arrays["50_block17_project.kernel"].astype(np.float32))
    np.testing.assert_array_equal(conv["1"]["1"]["bias"], arrays["49_block17_depthwise.bias"])
    np.testing.assert_array_equal(params["classifier"]["1"]["bias"], arrays["52_classifier.bias"])
    module = models.create("mobilenet_v2", num_classes=11, **options)
    wanted = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), variables) == jax.tree.map(lambda x: (x.shape, x.dtype), wanted)


def test_the_batch_norm_only_adds_the_bias(arrays):
    variables, _ = from_keras("mobilenet_v2", arrays)
    norm = {key: variables[key]["features0"]["1"] for key in variables}
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 32))
    expected = np.asarray(x) + arrays["00_stem_conv.bias"]
    np.testing.assert_array_equal(BatchNorm().apply(norm, x), expected)
    np.testing.assert_array_equal(jax.jit(BatchNorm().apply)(norm, x), expected)


def test_all_problems_are_listed_at_once(arrays):
    del arrays["00_stem_conv.kernel"], arrays["52_classifier.kernel"]
    arrays["01_block01_depthwise.kernel"] = np.zeros((3, 3, 1, 32), np.float32)
    arrays["02_block01_project.bias"] = np.zeros(16, np.int64)
    arrays["03_block02_expand.bias"] = np.full(96, np.nan, np.float32)
    arrays["53_more.bias"] = np.zeros(1)
    with pytest.raises(UserError) as caught:
        from_keras("mobilenet_v2", arrays)
    message = str(caught.value)
    assert "do not fit mobilenet_v2, 6 problems: " in message
    assert message.endswith("; and 1 more")  # five are on the line
    for part in (
        "missing 00_stem_conv.kernel",
        "01_block01_depthwise.kernel has shape (3, 3, 1, 32), expected (3, 3, 32, 1)",
        "02_block01_project.bias holds int64",
        "03_block02_expand.bias has values that are not finite",
        "unknown 53_more.bias",
    ):
        assert part in message
    arrays["00_stem_conv.kernel"] = np.zeros((3, 3, 3, 32), np.float32)
    with pytest.raises(UserError, match=r", 5 problems: .*missing 52_classifier\.kernel; unknown 53_more\.bias$"):
        from_keras("mobilenet_v2", arrays)
    with pytest.raises(UserError, match="can only be a mobilenet_v2, not a resnet18"):
        from_keras("resnet18", arrays)


def layer_by_layer(layers, arrays, x):
    """The network as mobilenet_v2_imagenet.json describes it."""
    outputs = {}
    for layer in layers:
        kernel, bias = (jnp.asarray(arrays[layer[key]], jnp.float32) for key in ("kernel", "bias"))
        if layer["op"] == "dense":
            return jnp.dot(x.mean((1, 2)), kernel, precision="highest") + jnp.expand_dims(bias, 0)
        if layer["op"] == "depthwise":
            kernel = kernel.transpose(0, 1, 3, 2)
        x = jax.lax.conv_general_dilated(
            x, kernel, (layer["stride"], layer["stride"]), layer["padding"],
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=layer["groups"])  # fmt: skip
        x = x + jnp.expand_dims(bias, (0, 1, 2))
        if layer["relu6"]:
            x = jnp.clip(x, 0, 6)
        if layer["residual"]:
            x = x + outputs[layer["residual_from"]]
        outputs[layer["name"]] = x
    raise AssertionError("the last layer is the classifier")


@real
def test_the_real_network_computes_what_its_layer_list_says():
    layers = json.loads((DATA / "mobilenet_v2_imagenet.json").read_text())["layers"]
    with np.load(DATA / "mobilenet_v2_imagenet.npz") as file:
        arrays = dict(file)
    images = sorted((DATA / "ilsvrc_val1300").glob("*.JPEG"))[:3]
    crops = [np.asarray(Image.open(path).convert("RGB").crop((1, 1, 225, 225)), np.float32) for path in images]
    x = jnp.asarray(np.stack(crops) / np.float32(127.5) - np.float32(1))
    expected = np.asarray(jax.jit(lambda x: layer_by_layer(layers, arrays, x))(x))
    variables, options = from_keras("mobilenet_v2", arrays)
    module = models.create("mobilenet_v2", num_classes=1001, **options)
    logits = np.asarray(jax.jit(lambda v, x: module.apply(v, x)[0])(variables, x))
    assert np.linalg.norm(logits - expected) / np.linalg.norm(expected) < 1e-4
    np.testing.assert_array_equal(logits.argmax(1), expected.argmax(1))
