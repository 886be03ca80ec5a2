import dataclasses

import numpy as np

from export.images import ImageSet
from export.latent_range import latent_range
from export.student import Student

STUDENT = Student(None, {}, {}, {}, 1)


def calibration(values):
    """Images of one pixel and channel each."""
    images = np.asarray(values, np.uint8).reshape(-1, 1, 1, 1)
    return ImageSet(images, np.zeros(len(images), np.int32), [""] * len(images), ("",))


def encode(images):
    return np.concatenate([images - np.float32(10), images * np.float32(0.5)], axis=-1)


def test_the_range_holds_the_extremes_of_95_percent_of_the_images():
    low, high = latent_range(STUDENT, encode, calibration(range(101)))
    assert (low, high) == (-5.0, 85.0)  # of -10 .. 50 and of 0 .. 90


def test_zero_is_always_in_the_range():
    assert latent_range(STUDENT, lambda images: images + np.float32(1), calibration([4, 4]))[0] == 0
    assert latent_range(STUDENT, lambda images: images - np.float32(9), calibration([4, 4]))[1] == 0


def test_a_trained_static_range_is_kept():
    ranges = {"quantizer": {"low": np.float32(-2), "high": np.float32(3)}}
    student = dataclasses.replace(STUDENT, variables={"ranges": ranges})
    assert latent_range(student, encode, calibration([0])) == (-2.0, 3.0)


def test_a_range_per_channel_or_one_that_was_never_measured_is_not_kept():
    for low, high in ((np.zeros(2), np.ones(2)), (np.float32(0), np.float32(0))):
        student = dataclasses.replace(STUDENT, variables={"ranges": {"quantizer": {"low": low, "high": high}}})
        assert latent_range(student, encode, calibration([20])) == (0.0, 10.0)
