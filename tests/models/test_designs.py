"""The bottlenecks that are not the reference's: `patch`, and those that BottleFit is compared with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.cost import macs
from bottlefit_jax.models.inheritance import with_tail_of
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


AFTER_CUT = {"autoencoder": -4, "reduction": 0, "spinn": 0}  # rows that the latent has more than the feature
SENT = {"resnet18": 128, "densenet121": 256, "mobilenet_v2": 32, "inception_v3": 288}


@pytest.mark.parametrize("size", [(96, 96), (101, 160)])
@pytest.mark.parametrize("design", ["patch", *AFTER_CUT])
@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenet_v2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("densenet121", "inception_v3"))],
)
def test_every_design_restores_the_cut(name, design, size):
    channels = SENT[name] if design == "spinn" else 5
    module = models.create(name, bottleneck={"channels": channels, "design": design, "image_size": size})
    variables, (logits, features) = shapes(module, size)
    rows = module.feature_size(size)
    if design in AFTER_CUT:
        assert features["latent"].shape == (1, *(n + AFTER_CUT[design] for n in rows), channels)
    assert features["latent"].shape[1:3] == module.latent_size(size)
    assert features["decoded"].shape == (1, *rows, SENT[name])
    assert ("exit_logits" in features) == (design == "spinn")
    _, decoded = jax.eval_shape(lambda v, z: module.apply(v, z, method="decode"), variables, features["latent"])
    assert decoded["decoded"] == features["decoded"]
    assert logits.shape == (1, 1000)


@pytest.mark.parametrize("design", AFTER_CUT)
def test_the_device_runs_the_teachers_own_parts(design, draw_variables):
    teacher = models.create("resnet18", num_classes=5, width=8)
    channels = 16 if design == "spinn" else 3
    module = models.create("resnet18", num_classes=5, width=8, bottleneck={"channels": channels, "design": design})
    images = np.random.default_rng(1).standard_normal((2, 64, 64, 3)).astype(np.float32)
    given = jax.tree.map(lambda x: x + 0.01, draw_variables(teacher, 64))
    variables = with_tail_of(given, draw_variables(module, 64))
    front = ("conv1", "bn1", "layer1", "layer2")
    assert module.device_parts[:6] == ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2")
    for collection in given:
        for part in set(front) & set(given[collection]):
            jax.tree.map(np.testing.assert_array_equal, variables[collection][part], given[collection][part])
    _, expected = jax.jit(teacher.apply)(given, images)
    reached = expected["layer2"]
    if design == "spinn":
        encode = jax.jit(lambda v, x: module.apply(v, x, method="encode"))
        np.testing.assert_allclose(encode(variables, images), reached, rtol=1e-5, atol=1e-6)
        _, features = jax.jit(module.apply)(variables, images)
        early = module.apply(variables, features["latent"], method="exit_early")
        assert early.shape == (2, 5)
        np.testing.assert_allclose(early, features["exit_logits"], rtol=1e-4, atol=1e-5)
    else:
        halves = module.bind(variables)
        np.testing.assert_allclose(halves.encode(images), halves.encoder(reached), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("plan", [{}, {"design": "patch"}, {"design": "reduction"}])
def test_only_a_spinn_answers_early(draw_variables, plan):
    module = models.create("resnet18", num_classes=5, width=8, bottleneck={"channels": 3, **plan})
    variables = draw_variables(module, 32)
    with pytest.raises(UserError, match="this bottleneck of resnet18 has no early exit; design='spinn' has one"):
        module.apply(variables, jnp.zeros((1, 4, 4, 3)), method="exit_early")


def test_a_image_too_small_for_an_autoencoder_is_one_line():
    said = r"^images of 32 × 32 are too small for this bottleneck of resnet18: nothing is left of the latent"
    with pytest.raises(UserError, match=said):
        models.create("resnet18", bottleneck={"design": "autoencoder", "image_size": 32})
    with pytest.raises(UserError, match=said):
        shapes(models.create("resnet18", bottleneck={"design": "autoencoder"}), (32, 32))
    assert models.create("resnet18", bottleneck={"design": "autoencoder", "image_size": 40}).latent_size((40, 40)) == (
        1,
        1,
    )


def test_a_wider_decoder_costs_the_device_nothing():
    networks = [models.create("resnet18", bottleneck={"channels": 3, "hidden": hidden}) for hidden in (None, 128, 192)]
    assert networks[0].design == networks[1].design  # layer2 has 128 channels
    assert networks[2].design.encoder == networks[0].design.encoder
    variables, (_, features) = shapes(networks[2], (64, 64))
    layers = sorted(variables["params"]["decoder"].items(), key=lambda item: int(item[0]))
    assert [tree["kernel"].shape[-1] for _, tree in layers if "kernel" in tree] == [192, 192, 192, 128]
    assert features["decoded"].shape[-1] == 128
