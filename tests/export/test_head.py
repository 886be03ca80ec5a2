import dataclasses

import jax
import numpy as np
import pytest

from bottlefit_jax.models.normalise import normalise
from export.folding import fold_encoder
from export.head import float_head, integer_head, on_grid
from tests.export.encoders import DESIGNS, MEAN, STD, random_images, relative, student

SIZES = [(224, 224), (96, 96), (97, 111), (76, 81), (299, 299)]
SMALL = [(32, 32), (33, 32), (34, 37), (31, 29)]
HEADS = [float_head, integer_head]


def fold(module, variables, size):
    return fold_encoder(module, variables, mean=MEAN, std=STD, image_size=size)


def flax(module, variables, image):
    return np.asarray(module.apply(variables, normalise(image, MEAN, STD), method="encode"))


def allowed(design, head):
    """The largest difference; the integer head of an encoder that begins with patches has a rounded kernel."""
    return 0.02 if design == "patch" and head is integer_head else 1e-5


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("design", DESIGNS)
def test_the_head_of_every_design_gives_the_latent_of_flax(design, head):
    module, variables = student(design, seed=len(design))
    for size in SIZES:
        image = random_images(1, size)
        got = jax.jit(head(fold(module, variables, size)))(image)
        assert relative(np.asarray(got), flax(module, variables, image)) < allowed(design, head)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", SMALL)
@pytest.mark.parametrize("design", ["resnet v3", "patch"])
def test_small_images_give_the_latent_of_flax(design, size, head):
    module, variables = student(design)
    image = random_images(1, size)
    got = jax.jit(head(fold(module, variables, size)))(image)
    assert relative(np.asarray(got), flax(module, variables, image)) < allowed(design, head)


@pytest.mark.parametrize("size", [(64, 64), (57, 70)])
@pytest.mark.parametrize("design", ["resnet v3", "patch"])
def test_both_heads_agree_after_every_layer(design, size):
    folded = fold(*student(design), size)
    image = random_images(1, size)
    for until in range(1, len(folded.layers) + 1):
        want = np.asarray(float_head(with_rounded_patches(folded), until=until)(image))
        got = np.asarray(integer_head(folded, until=until)(image))
        assert relative(got, want) < 1e-5
    assert got.shape == (1, *folded.latent_shape)


def with_rounded_patches(folded):
    """The encoder with the kernel of the integer head; the same encoder if it does not begin with patches."""
    first = folded.layers[0]
    rounded = dataclasses.replace(first, kernel=on_grid(first.kernel)) if folded.begins_with_patches else first
    return dataclasses.replace(folded, layers=(rounded, *folded.layers[1:]))


def test_a_kernel_is_rounded_to_255_values_in_each_channel_and_only_once():
    kernel = np.random.default_rng(0).normal(0, 1, (4, 4, 3, 5)).astype(np.float32) * np.float32(
        [1, 1e-3, 0, 50, 1e-20]
    )
    rounded = on_grid(kernel)
    most = np.abs(kernel).max((0, 1, 2))
    assert (np.abs(rounded - kernel).max((0, 1, 2)) <= most / 127 / 2 * 1.001).all()
    np.testing.assert_allclose(np.abs(rounded).max((0, 1, 2)), most, rtol=1e-6)
    np.testing.assert_array_equal(on_grid(rounded), rounded)


def test_rounding_the_kernel_does_not_change_an_image_of_the_mean_colour():
    module, variables = student("patch")
    mean = np.array([124, 116, 104]) / 255
    folded = fold_encoder(module, variables, mean=mean, std=STD, image_size=(32, 32))
    image = np.broadcast_to(np.uint8([124, 116, 104]), (1, 32, 32, 3))
    want, got = (np.asarray(head(folded, until=1)(image)) for head in HEADS)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_mean_of_zero_gives_the_latent_of_flax():
    module, variables = student()
    folded = fold_encoder(module, variables, mean=(0, 0, 0), std=(1, 1, 1), image_size=(64, 64))
    image = random_images(1, (64, 64))
    want = module.apply(variables, normalise(image, (0, 0, 0), (1, 1, 1)), method="encode")
    assert relative(np.asarray(integer_head(folded)(image)), np.asarray(want)) < 1e-5
