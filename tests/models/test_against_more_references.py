"""Models and options beyond the larger fixtures equal PyTorch's too (made by `make_*_goldens.py`)."""

import functools
import json

import jax
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.convert import from_torch, to_torch
from tests.models.conftest import FOLDER, draw_images, draw_weights

FAST_CASES = (
    "resnet18_s64", "resnet18_s97", "resnet34_s64", "mobilenet_v2_s97",
    "inception_v3_transform_s139", "inception_v3_without_s75", "custom_resnet152_12ch_ver3_s64",
    "efficientnet_lite0_s64",
)  # fmt: skip
FAST_CONVERSIONS = (
    "resnet18", "densenet121", "mobilenet_v2", "inception_v3", "custom_resnet152_12ch_ver3", "efficientnet_lite0",
)  # fmt: skip
FILES = ("more.npz", "efficientnet.npz")


@functools.cache
def read_manifest():
    """The manifests of all files as one."""
    manifests = []
    for name in FILES:
        with np.load(FOLDER / name) as file:
            manifests.append(json.loads(file["manifest"].tobytes()))
        for case in manifests[-1]["cases"].values():
            case["file"] = name
    assert len({manifest["channels"] for manifest in manifests}) == 1
    return {
        "channels": manifests[0]["channels"],
        **{key: {name: value for one in manifests for name, value in one[key].items()} for key in ("models", "cases")},
    }


@functools.lru_cache(maxsize=1)
def weights_of(model):
    return draw_weights(read_manifest()["models"][model])


def parametrize(argument, names, fast):
    """Parametrize a test; the names that are not in `fast` are slow tests."""
    unknown = set(fast) - set(names)
    assert not unknown, unknown
    marked = [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]
    return pytest.mark.parametrize(argument, marked)


@parametrize("case", read_manifest()["cases"], FAST_CASES)
def test_logits_and_every_feature_equal_the_reference(case):
    entry = read_manifest()["cases"][case]
    create = read_manifest()["models"][entry["model"]]["create"]
    with np.load(FOLDER / entry["file"]) as file:
        expected = {key.removeprefix(f"{case}/"): file[key] for key in file.files if key.startswith(f"{case}/")}
    module = models.create(**create)
    variables = from_torch(**create, state_dict=weights_of(entry["model"]))
    train = ("AuxLogits",) if "aux_logits" in expected else False
    apply = jax.jit(functools.partial(module.apply, train=train, mutable=["batch_stats"]))
    (logits, features), _ = apply(variables, draw_images(entry))
    if module.cut:
        np.testing.assert_array_equal(features.pop(module.cut), features["decoded"])

    check = functools.partial(_check, case, entry["errors"])
    check("logits", logits, expected["logits"])
    if train:
        check("aux_logits", features.pop("aux_logits"), expected["aux_logits"])
    assert set(features) == set(entry["features"])
    means = iter(expected["channel_mean"])
    for (name, shape), stats, proj in zip(entry["features"].items(), expected["stats"], expected["proj"], strict=True):
        f = np.ascontiguousarray(np.asarray(features[name]).transpose(0, 3, 1, 2), np.float64)
        assert f.shape == tuple(shape)
        check(name, [f.mean(), f.std(), f.min(), f.max(), np.abs(f).max()], stats)
        if shape[1] <= read_manifest()["channels"]:
            check(name, f.mean((0, 2, 3)), [next(means) for _ in range(shape[1])])
        v = np.random.Generator(np.random.PCG64(entry["proj_seed"])).standard_normal((4, f.size))
        check(name, v @ f.reshape(-1) / np.sqrt(f.size), proj, error=2)
    assert not list(means)


def _check(case, errors, name, got, expected, error=1):
    """Assert the tolerance of tests/goldens/README.md, section 4."""
    allowed = max(20 * errors[name][error], 2e-5 * errors[name][0])
    off = np.abs(np.asarray(got, np.float64) - expected).max()
    assert off <= allowed, f"{case} {name}: off by {off:.3g}, allowed {allowed:.3g}"


@parametrize("model", read_manifest()["models"], FAST_CONVERSIONS)
def test_conversion_keeps_every_key_shape_and_bit(model):
    entry = read_manifest()["models"][model]
    weights = weights_of(model)
    back = to_torch(**entry["create"], variables=from_torch(**entry["create"], state_dict=weights))
    assert {key: list(value.shape) for key, value in back.items()} == dict(entry["keys"])
    for key, value in weights.items():
        np.testing.assert_array_equal(back[key].view(np.uint32), value.view(np.uint32), key)
