"""State dicts of PyTorch in and out, by the names and shapes that the reference's own models have."""

import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.convert import from_torch, to_torch
from bottlefit_jax.errors import UserError

STUDENTS = {
    "custom_densenet169_3ch": ("densenet169", {"channels": 3}),
    "custom_resnet152_12ch_ver2": ("resnet152", {"channels": 12}),
}
CASES = ["densenet169", "resnet152", "resnet50", "mobilenet_v2", *STUDENTS]


@functools.cache
def keys_of(entry):
    manifest = pathlib.Path(__file__).parents[1] / "goldens" / "manifest.json"
    return json.loads(manifest.read_text())["models"][entry]["keys"]


def draw(entry):
    """(model, bottleneck, state dict) with the reference's keys and shapes and arbitrary values."""
    rng = np.random.default_rng(0)
    name, bottleneck = STUDENTS.get(entry, (entry, None))
    return name, bottleneck, {key: rng.random(shape, np.float32) for key, shape in keys_of(entry)}


def shapes_of(module):
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images)


@pytest.fixture
def small():
    """A small state dict: MobileNetV2's."""
    return draw("mobilenet_v2")[2]


@pytest.mark.parametrize("entry", CASES)
def test_round_trip_is_bit_identical(entry):
    name, bottleneck, given = draw(entry)
    variables = from_torch(name, given, bottleneck=bottleneck)
    back = to_torch(name, variables, bottleneck=bottleneck)
    assert back.keys() == given.keys()
    for key, value in given.items():
        assert back[key].tobytes() == value.tobytes()
        assert back[key].shape == value.shape
    expected = shapes_of(models.create(name, bottleneck=bottleneck))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), variables) == jax.tree.map(lambda x: (x.shape, x.dtype), expected)


@pytest.mark.parametrize(
    ("name", "bottleneck", "options"),
    [
        ("inception_v3", None, {}),
        ("inception_v3", {"channels": 4}, {}),
        ("mobilenet_v2", {"channels": 4}, {}),
        ("efficientnet_lite2", {"channels": 4}, {}),
        ("resnet18", {"channels": 2, "version": 3, "range": "static"}, {"width": 8}),
    ],
)
def test_models_beyond_the_reference_make_the_round_trip_too(name, bottleneck, options):
    rng = np.random.default_rng(0)
    abstract = shapes_of(models.create(name, num_classes=7, bottleneck=bottleneck, **options))
    variables = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), abstract)
    state_dict = to_torch(name, variables, bottleneck=bottleneck, **options)
    back = from_torch(name, state_dict, bottleneck=bottleneck, **options)
    for collection in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, back[collection], variables[collection])
    if bottleneck:
        assert all(
            re.match(
                r"bottleneck\.(en|de)coder\.\d+\.|layer|_?fc|features\.|classifier|Mixed_|_blocks\.|_conv_head|_bn1", k
            )
            for k in state_dict
        )
    if name == "resnet18":
        assert state_dict["bottleneck.decoder.2.weight"].shape == (2, 16, 2, 2)  # transposed: in before out
        assert not back["ranges"]["quantizer"]["low"].any()


def test_axes_are_transposed_by_name():
    name, bottleneck, given = draw("custom_resnet152_12ch_ver2")
    params = from_torch(name, given, bottleneck=bottleneck)["params"]
    kernel = given["bottleneck.encoder.6.weight"]
    np.testing.assert_array_equal(params["encoder"]["6"]["kernel"], kernel.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(params["fc"]["kernel"], given["fc.weight"].T)
    np.testing.assert_array_equal(params["layer3"]["0"]["downsample"]["0"]["kernel"][0, 0].T,
                                  given["layer3.0.downsample.0.weight"][:, :, 0, 0])  # fmt: skip


def test_the_transposed_convolution_is_pytorchs():
    weight = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 2, 2)  # in, out, rows, columns
    plan = {"channels": 2, "version": 3}
    module = models.create("resnet18", num_classes=3, width=8, bottleneck=plan)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes_of(module))
    state_dict = to_torch("resnet18", variables, bottleneck=plan, width=8)
    full = np.zeros_like(state_dict["bottleneck.decoder.2.weight"])
    full[:, :3] = weight
    back = from_torch("resnet18", state_dict | {"bottleneck.decoder.2.weight": full}, bottleneck=plan, width=8)
    ours = back["params"]["decoder"]["2"]["kernel_transposed"]
    for i, o, row, column in np.ndindex(weight.shape):
        assert ours[row, column, i, o] == weight[i, o, row, column]


def test_counters_old_spellings_and_wrappers_are_understood():
    name, _, given = draw("densenet169")
    older = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value for key, value in given.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    counters = {"features.norm0.num_batches_tracked": np.array(7)}
    wrapped = {f"module.{key}": value for key, value in (older | counters).items()}
    expected = from_torch(name, given)
    jax.tree.map(np.testing.assert_array_equal, from_torch(name, wrapped), expected)


def test_the_number_of_classes_follows_from_the_classifier(small):
    small["classifier.1.weight"], small["classifier.1.bias"] = np.ones((7, 1280)), np.ones(7)
    params = from_torch("mobilenet_v2", small)["params"]
    assert params["classifier"]["1"]["kernel"].shape == (1280, 7)
    assert params["classifier"]["1"]["kernel"].dtype == np.float32


def test_all_problems_are_listed_at_once(small):
    del small["features.0.0.weight"], small["features.3.conv.3.running_var"]
    small["features.0.1.bias"] = np.zeros(33)
    small["classifier.1.weight"] = np.zeros(4)
    small["head.weight"] = np.zeros(1)
    with pytest.raises(UserError) as caught:
        from_torch("mobilenet_v2", small)
    message = str(caught.value)
    assert "do not fit mobilenet_v2, 5 problems" in message
    assert "missing features.0.0.weight" in message
    assert "missing features.3.conv.3.running_var" in message
    assert "features.0.1.bias has shape (33,), expected (32,)" in message
    assert "classifier.1.weight has shape (4,), expected (1000, 1280)" in message
    assert "unknown head.weight" in message
    assert "\n" not in message


def test_all_problems_of_variables_are_listed_at_once(small):
    variables = from_torch("mobilenet_v2", small)
    del variables["params"]["features0"]["0"]
    variables["params"]["features1"]["more"] = np.zeros(2)
    variables["batch_stats"]["features18"]["1"]["var"] = np.zeros((2, 2))
    with pytest.raises(UserError) as caught:
        to_torch("mobilenet_v2", variables)
    message = str(caught.value)
    assert "missing params/features0/0/kernel" in message
    assert "unknown params/features1/more" in message
    assert "batch_stats/features18/1/var has shape (2, 2), expected (1280,)" in message


def test_an_empty_state_dict_says_what_is_missing():
    with pytest.raises(UserError, match=r"do not fit resnet18, 102 problems: (missing \S+; ){5}and 97 more$"):
        from_torch("resnet18", {})
    arrays = {f"backbone.{key}": value for key, value in draw("resnet50")[2].items()}
    with pytest.raises(UserError, match=r", \d+ problems: (missing \S+; ){3}(unknown backbone\.\S+; ){2}and \d+ more$"):
        from_torch("resnet50", arrays)
