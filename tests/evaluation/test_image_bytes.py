"""Sizes of images as files."""

import io

import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.image_bytes import jpeg_bytes, saving_percent


def test_sizes_are_those_of_pillows_files(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3)).astype(np.uint8)
    images[1] = 7
    sizes = jpeg_bytes(images)
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "x.jpg", quality=95)
        assert sizes[index] == (tmp_path / "x.jpg").stat().st_size
    assert sizes.dtype == np.int64
    assert sizes[1] < sizes[0]


def test_a_lower_quality_is_smaller():
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    assert jpeg_bytes(images, quality=50) < jpeg_bytes(images)
    buffer = io.BytesIO()
    Image.fromarray(images[0]).save(buffer, "JPEG", quality=50)
    assert jpeg_bytes(images, quality=50) == len(buffer.getvalue())


def test_no_images_have_no_sizes():
    assert jpeg_bytes(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0,)


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 1), np.uint8)]
)
def test_other_arrays_are_refused(wrong):
    with pytest.raises(UserError, match=r"uint8 \[N, H, W, 3\]"):
        jpeg_bytes(wrong)
    with pytest.raises(UserError, match="quality is 100"):
        jpeg_bytes(np.zeros((1, 8, 8, 3), np.uint8), quality=100)


def test_saving_is_in_percent_of_the_jpeg():
    assert saving_percent(250, 1000) == 75
    assert saving_percent(1500, 1000) == -50
    with pytest.raises(UserError, match="has 0 bytes"):
        saving_percent(1, 0)
