import jax
import numpy as np
import pytest

from bottlefit_jax.training.step import normalise
from export.folding import fold_encoder
from export.head import float_head, integer_head
from tests.export.encoders import DESIGNS, MEAN, STD, pictures, relative, student

SIZES = [(224, 224), (96, 96), (97, 111), (76, 81), (299, 299)]
HEADS = [float_head, integer_head]


def fold(module, variables, size):
    return fold_encoder(module, variables, mean=MEAN, std=STD, image_size=size)


def flax(module, variables, image):
    return np.asarray(module.apply(variables, normalise(image, MEAN, STD), method="encode"))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_gives_flaxs_latent(design, head):
    module, variables = student(design, seed=len(design))
    for size in SIZES:
        image = pictures(1, size)
        got = jax.jit(head(fold(module, variables, size)))(image)
        assert relative(np.asarray(got), flax(module, variables, image)) < 1e-5


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [(32, 32), (33, 32), (34, 37), (31, 29)])
def test_small_pictures_give_flaxs_latent(size, head):
    module, variables = student("resnet v3")
    image = pictures(1, size)
    got = jax.jit(head(fold(module, variables, size)))(image)
    assert relative(np.asarray(got), flax(module, variables, image)) < 1e-5


@pytest.mark.parametrize("size", [(64, 64), (57, 70)])
def test_both_heads_agree_after_every_layer(size):
    module, variables = student("resnet v3")
    folded = fold(module, variables, size)
    image = pictures(1, size)
    for until in range(1, len(folded.layers) + 1):
        want, got = (np.asarray(head(folded, until=until)(image)) for head in HEADS)
        assert relative(got, want) < 1e-5
    assert got.shape == (1, *folded.latent_shape)


def test_a_mean_of_zero_is_no_special_case():
    module, variables = student()
    folded = fold_encoder(module, variables, mean=(0, 0, 0), std=(1, 1, 1), image_size=(64, 64))
    image = pictures(1, (64, 64))
    want = module.apply(variables, normalise(image, (0, 0, 0), (1, 1, 1)), method="encode")
    assert relative(np.asarray(integer_head(folded)(image)), np.asarray(want)) < 1e-5
