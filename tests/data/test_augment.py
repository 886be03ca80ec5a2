"""Crops equal torchvision's, and resized pixels are within one level of Pillow's."""

import pathlib
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.data import augment
from bottlefit_jax.errors import UserError
from tests.data.make_goldens import BOXES, DRAWS, EVALUATION, SCALE, SEEDS, SIZE, random_image

GOLDENS = np.load(pathlib.Path(__file__).with_name("torchvision.npz"))


def assert_within_one_level(ours, theirs):
    assert ours.shape == theirs.shape
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("index", range(len(EVALUATION)))
def test_evaluation_equals_torchvision(index):
    height, width, size, short_side = EVALUATION[index]
    ours = augment.resize_center_crop(random_image(height, width), size=size, short_side=short_side)
    assert_within_one_level(ours, GOLDENS[f"evaluation{index}"])


@pytest.mark.parametrize("index", range(len(BOXES)))
def test_resized_crop_equals_torchvision(index):
    top, left, height, width = BOXES[index]
    crop = random_image(97, 131)[top : top + height, left : left + width]
    assert_within_one_level(augment.resize(crop, SIZE, SIZE), GOLDENS[f"crop{index}"])


@pytest.mark.parametrize("index", range(len(DRAWS)))
def test_crops_are_those_that_torchvision_draws(index):
    height, width = DRAWS[index]
    ours = [augment.sample_crop(height, width, np.random.default_rng(seed), scale=SCALE) for seed in range(SEEDS)]
    np.testing.assert_array_equal(ours, GOLDENS[f"boxes{index}"])


def test_any_resize_is_within_one_level_of_pillow():
    rng = np.random.default_rng(0)
    for _ in range(150):
        height, width, new_height, new_width = (int(n) for n in rng.integers(1, 200, 4))
        image = rng.integers(0, 2, (height, width, 3), dtype=np.uint8) * 255  # the hardest edges there are
        theirs = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
        assert_within_one_level(augment.resize(image, new_height, new_width), np.asarray(theirs))


@pytest.mark.parametrize("shape", [(40, 60), (32, 32), (20, 32)])
def test_flip_mirrors_the_resized_image(shape):
    image = random_image(*shape)
    np.testing.assert_array_equal(augment.resize(image, 32, 32, flip=True), augment.resize(image, 32, 32)[:, ::-1])


def test_random_crop_flips_half_of_the_time_or_never():
    image = random_image(32, 32)

    def flipped(flip, seed):
        rng = np.random.default_rng(seed)
        options = {"size": 32, "scale": (1.0, 1.0), "flip": flip}
        crop = augment.random_resized_crop(image, rng, **options)
        box = augment.sample_crop(32, 32, np.random.default_rng(seed), scale=(1.0, 1.0))
        plain = augment.resize(image[box[0] : box[0] + box[2], box[1] : box[1] + box[3]], 32, 32)
        return not np.array_equal(crop, plain)

    assert 60 < sum(flipped(True, seed) for seed in range(160)) < 100
    assert not any(flipped(False, seed) for seed in range(40))


def test_the_default_resize_of_224_is_256():
    assert augment.default_resize(224) == 256
    assert augment.default_resize(32) == 37


def test_a_centre_crop_larger_than_the_resized_image_is_an_error():
    with pytest.raises(UserError, match="resize 30 is smaller than image_size 32"):
        augment.check_eval_sizes(32, 30)


@pytest.mark.parametrize("shape", [(10, 100_000), (100_000, 10), (2, 3_000_000), (5, 7)])
def test_an_enlarged_crop_needs_memory_for_the_crop_alone(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    tracemalloc.start()
    crop = augment.resize_center_crop(image, size=224, short_side=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert crop.shape == (224, 224, 3)
    assert peak < 10e6


def test_a_window_is_bit_identical_to_that_part_of_the_whole():
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width, new_height, new_width = (int(n) for n in rng.integers(2, 200, 4))
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        window = (slice(new_height // 3, new_height), slice(0, 1 + new_width // 2))
        for flip in (False, True):
            whole = augment.resize(image, new_height, new_width, flip=flip)
            part = augment.resize(image, new_height, new_width, flip=flip, window=window)
            np.testing.assert_array_equal(part, whole[window])


def test_filtering_a_large_image_in_blocks_does_not_change_it(monkeypatch):
    image = random_image(300, 200)
    whole = augment.resize(image, 64, 90)
    monkeypatch.setattr(augment, "_BLOCK", 300 * 7)
    np.testing.assert_array_equal(augment.resize(image, 64, 90), whole)
