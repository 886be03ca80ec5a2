import dataclasses

import jax
import numpy as np
import pytest

import bottlefit_jax.compare.designs  # noqa: F401  registers the designs that only the comparison uses
from bottlefit_jax import models
from bottlefit_jax.errors import UserError
from bottlefit_jax.models.bottleneck import ConvStack
from bottlefit_jax.models.normalise import normalise
from export.folding import Affine, Convolution, fold_encoder
from export.head import float_head
from tests.export.encoders import MEAN, STD, random_images, relative, student

SIZE = (40, 48)


def fold(module, variables, size=SIZE):
    return fold_encoder(module, variables, mean=MEAN, std=STD, image_size=size)


def with_norm_after_pool(variables, factor, shift):
    """The variables with these factors and shifts, repeated over the channels, in the norm after the pool."""
    norm, stats = variables["params"]["encoder"]["4"], variables["batch_stats"]["encoder"]["4"]
    stats.update(mean=np.zeros(64, np.float32), var=np.full(64, 1 - 1e-5, np.float32))
    norm.update(scale=np.resize(np.float32(factor), 64), bias=np.resize(np.float32(shift), 64))
    return variables


def difference_to_flax(module, variables, folded):
    image = random_images(1, folded.image_size)
    want = module.apply(variables, normalise(image, MEAN, STD), method="encode")
    return relative(np.asarray(jax.jit(float_head(folded))(image)), np.asarray(want))


@pytest.mark.parametrize(
    ("factor", "shift", "remains"),
    [
        ([1.3, 0.2], [-0.1, 0.0], False),
        ([-1.3, 0.0], [-0.1, 0.0], False),
        ([0.5], [0.2], True),
        ([-0.5], [0.2], True),
        ([0.0], [0.2], True),
        ([1.3, -1.3, 0.0, 2.0, -2.0, 0.0], [-0.1, -0.1, -0.1, 0.3, 0.3, 0.3], True),
    ],
    ids=["moves", "dead", "positive shift", "negative scale", "constant", "all kinds"],
)
def test_the_norm_after_the_pool_is_folded_as_far_as_algebra_allows(factor, shift, remains):
    module, variables = student()
    variables = with_norm_after_pool(variables, factor, shift)
    folded = fold(module, variables)
    assert any(isinstance(layer, Affine) for layer in folded.layers) == remains
    if remains or max(factor) > 0:
        assert difference_to_flax(module, variables, folded) < 1e-5
    else:
        assert not np.asarray(float_head(folded)(random_images(1, SIZE))).any()


def test_only_channels_that_need_an_operation_keep_it():
    module, variables = student()
    folded = fold(module, with_norm_after_pool(variables, [1.5, -1.5, 1.5, -1.5, 0], [-0.2, -0.2, 0.2, 0.2, 0.2]))
    affine = next(layer for layer in folded.layers if isinstance(layer, Affine))
    assert affine.factor[:5].tolist() == [1, 1, 1, -1, 0]
    assert np.allclose(affine.shift[:5], [0, 0, 0.2, 0.2, 0.2])


def test_layers_have_the_names_of_the_model():
    module, variables = student("resnet v3")
    folded = fold(module, variables)
    assert folded.layer_names == ("encoder/0", "encoder/3", "encoder/4", "encoder/6", "encoder/9")
    assert folded.latent_shape == (*module.latent_size(SIZE), 3)


@pytest.mark.parametrize("design", ["resnet v2", "patch"])
def test_every_array_is_float32(design):
    module, variables = student(design)
    folded = fold(module, variables)
    for layer in (folded, *folded.layers):
        arrays = [value for value in vars(layer).values() if isinstance(value, np.ndarray)]
        assert all(array.dtype == np.float32 for array in arrays)


def test_every_norm_of_a_patch_encoder_is_folded_into_a_convolution():
    module, variables = student("patch")
    folded = fold(module, variables)
    assert folded.layer_names == ("encoder/0", "encoder/3", "encoder/6", "encoder/9")
    assert folded.begins_with_patches
    assert all(isinstance(layer, Convolution) for layer in folded.layers)
    assert [(layer.relu, layer.depthwise) for layer in folded.layers] == [
        (True, False), (True, True), (True, False), (False, False),
    ]  # fmt: skip
    assert not folded.layers[3].bias.any()


def test_every_layer_of_a_patch_encoder_equals_flax():
    """Each is compared with the convolution, norm and ReLU that Flax computes one by one."""
    module, variables = student("patch", seed=3)
    folded = fold(module, variables)
    image = random_images(1, SIZE)
    x = normalise(image, MEAN, STD)
    head = module.design.encoder
    for until, layer in enumerate(folded.layers, 1):
        end = len(head) if until == len(folded.layers) else int(folded.layers[until].name.split("/")[1])
        stack = ConvStack(head[:end])
        want = stack.apply({kind: tree["encoder"] for kind, tree in variables.items()}, x)
        got = jax.jit(float_head(folded, until=until))(image)
        assert relative(np.asarray(got), np.asarray(want)) < 1e-5, layer.name


def test_a_design_with_a_layer_that_the_export_does_not_know_is_refused():
    module = models.create("resnet18", bottleneck={"design": "entropic", "channels": 24})
    message = r"design 'entropic' cannot be exported, since the export does not know its layer encoder/1 \(gdn\); those"
    with pytest.raises(UserError, match=message):
        fold_encoder(module, {}, mean=(0.5,) * 3, std=(0.5,) * 3, image_size=(64, 64))


@pytest.mark.parametrize("design", ["autoencoder", "reduction", "spinn"])
def test_a_design_that_runs_the_teachers_layers_is_refused(design):
    module = models.create("resnet18", bottleneck={"design": design, "channels": 128})
    message = f"design '{design}' cannot be exported.* those that can are 'bottlefit', 'patch' and 'dct'$"
    with pytest.raises(UserError, match=message):
        fold(module, {})


def test_a_network_without_an_encoder_is_refused():
    with pytest.raises(UserError, match="resnet18 was created without a bottleneck"):
        fold(models.create("resnet18"), {})


def test_images_that_are_too_small_for_the_network_are_refused():
    module, variables = student("inception")
    with pytest.raises(UserError, match="too small"):
        fold(module, variables, (32, 32))


def test_weights_that_are_not_finite_are_refused():
    module, variables = student()
    variables["params"]["encoder"]["6"]["kernel"][0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match="weights of encoder/6 are not finite"):
        fold(module, variables)


def test_an_unsupported_layer_is_refused(monkeypatch):
    module, variables = student()
    halves = module.design
    odd = (*halves.encoder, dataclasses.replace(halves.encoder[0], kind="average"))
    monkeypatch.setattr(type(module), "design", dataclasses.replace(halves, encoder=odd))
    with pytest.raises(UserError, match=r"encoder/7 \(average\)"):
        fold(module, variables)


def test_an_unsupported_first_layer_is_refused(monkeypatch):
    module, variables = student("patch")
    halves = module.design
    odd = (dataclasses.replace(halves.encoder[0], stride=2), *halves.encoder[1:])
    monkeypatch.setattr(type(module), "design", dataclasses.replace(halves, encoder=odd))
    with pytest.raises(UserError, match=r"begin with a convolution and a max-pool, or .* this one does neither"):
        fold(module, variables)
