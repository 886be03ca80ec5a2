"""Designs that are not the reference's: `patch`, a wider decoder, and those that other rooms register."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.evaluation.cost import device_cost, macs
from bottlefit_jax.models import designs
from tests.models.test_bottleneck import shapes


def patch_encoder(params, stats, x):
    """The encoder of design `patch`, layer by layer."""

    def conv(x, number, stride, pad, groups=1):
        kernel, pads = params[number]["kernel"], [(pad, pad)] * 2
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    def active(x, number):
        of = jax.tree.map(lambda leaf: leaf[None, None, None], {**stats[number], **params[number]})
        normed = (x - of["mean"]) / jnp.sqrt(of["var"] + 1e-5) * of["scale"] + of["bias"]
        return jnp.maximum(normed, 0)

    x = active(conv(x, "0", 4, 0), "1")
    x = active(conv(x, "3", 1, 1, groups=48), "4")
    x = active(conv(x, "6", 1, 0), "7")
    return conv(x, "9", 2, 1)


@pytest.mark.parametrize(("size", "latent"), [((32, 32), (5, 5)), ((33, 47), (5, 6)), ((61, 35), (8, 5))])
def test_patch_encoder_is_its_layers(size, latent):
    module = models.create("resnet18", num_classes=5, width=8, bottleneck={"channels": 3, "design": "patch"})
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        return np.float32(rng.normal(path[-1].key in ("scale", "var"), 0.2, leaf.shape))

    variables = jax.tree_util.tree_map_with_path(draw, shapes(module, size)[0])
    shape = {
        number: layer["kernel"].shape for number, layer in variables["params"]["encoder"].items() if "kernel" in layer
    }
    assert shape == {"0": (4, 4, 3, 48), "3": (3, 3, 1, 48), "6": (1, 1, 48, 48), "9": (2, 2, 48, 3)}
    images = rng.standard_normal((2, *size, 3)).astype(np.float32)
    want = patch_encoder(variables["params"]["encoder"], variables["batch_stats"]["encoder"], images)
    got = module.apply(variables, images, method="encode")
    assert got.shape == (2, *latent, 3)
    assert module.latent_size(size) == latent
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("design", "millions"), [("bottlefit", 120.6), ("patch", 17.7)])
def test_the_encoders_multiply_adds(design, millions):
    module = models.create("resnet152", bottleneck={"channels": 12, "design": design})
    variables, (_, features) = shapes(module, (224, 224))
    assert features["latent"].shape == (1, 29, 29, 12)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    counted = macs(lambda v, x: module.apply(v, x, method="encode"), variables, images)
    assert counted / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("size", [(96, 96), (101, 160)])
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", 128),
        ("mobilenet_v2", 32),
        *(pytest.param(*row, marks=pytest.mark.slow) for row in (("densenet121", 256), ("inception_v3", 288))),
    ],
)
def test_a_patch_student_restores_the_cut(name, channels, size):
    module = models.create(name, bottleneck={"channels": 5, "design": "patch", "image_size": size})
    variables, (logits, features) = shapes(module, size)
    assert features["latent"].shape[1:3] == module.latent_size(size)
    assert features["decoded"].shape == (1, *module.feature_size(size), channels)
    assert "exit_logits" not in features
    _, decoded = jax.eval_shape(lambda v, z: module.apply(v, z, method="decode"), variables, features["latent"])
    assert decoded["decoded"] == features["decoded"]
    assert logits.shape == (1, 1000)


class Answer(nn.Module):
    """An early exit for the test: the mean of the latent, and a dense layer."""

    classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.classes, dtype=self.dtype, name="0")(x.mean((1, 2)))


@pytest.fixture
def own_design(monkeypatch):
    """A design with an early exit, registered under "own" for one test."""
    monkeypatch.setattr(designs, "_registered", dict(designs._registered))
    encoder = (designs.conv("latent", 4, 4),)
    design = designs.Design(encoder, (designs.conv("cut"), designs.RESIZE), early_exit=Answer)
    designs.register("own", design)
    return design


def test_a_registered_design_is_built_from_its_row(own_design):
    module = models.create("resnet18", num_classes=5, width=8, bottleneck={"channels": 3, "design": "own"})
    variables, (_, features) = shapes(module, (64, 64))
    assert module.device_parts == ("encoder", "exit")
    assert module.parts[:3] == ("encoder", "exit", "decoder")
    assert variables["params"]["encoder"]["0"]["kernel"].shape == (4, 4, 3, 3)
    assert variables["params"]["exit"]["0"]["kernel"].shape == (3, 5)
    assert features["exit_logits"].shape == (1, 5)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    outputs = jax.eval_shape(lambda v, x: module.apply(v, x, method="device_outputs"), variables, images)
    assert outputs == (features["latent"], features["exit_logits"])
    assert device_cost(module, variables, 64) == {"params": 3 * 4 * 4 * 3 + 3 * 5 + 5, "macs": 16 * 16 * 144 + 3 * 5}


def test_a_name_is_taken_once(own_design):
    designs.register("own", own_design)  # the same again is the same
    for name in ("own", "bottlefit", "patch"):
        with pytest.raises(ValueError, match=f"there is a design '{name}' already"):
            designs.register(name, designs.Design((), ()))


def test_a_wider_decoder_costs_the_device_nothing():
    networks = [models.create("resnet18", bottleneck={"channels": 3, "hidden": hidden}) for hidden in (None, 128, 192)]
    assert networks[0].design == networks[1].design  # layer2 has 128 channels
    assert networks[2].design.encoder == networks[0].design.encoder
    variables, (_, features) = shapes(networks[2], (64, 64))
    layers = sorted(variables["params"]["decoder"].items(), key=lambda item: int(item[0]))
    assert [tree["kernel"].shape[-1] for _, tree in layers if "kernel" in tree] == [192, 192, 192, 128]
    assert features["decoded"].shape[-1] == 128
