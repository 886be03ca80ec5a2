"""What a server knows of how long its batches take."""

import random

import pytest

from bottlefit_jax.serve.batch_cost import BatchCost


def test_nothing_is_known_at_first():
    assert BatchCost(8).seconds(20) == 0.0


def test_one_size_of_batch_says_what_an_image_takes():
    cost = BatchCost(8)
    for _ in range(3):
        cost.learn(0.02, 2)
    assert [cost.seconds(images) for images in (1, 2, 8, 16)] == pytest.approx([0.01, 0.02, 0.08, 0.16])


def test_batches_of_several_sizes_say_what_a_further_image_takes():
    cost, chance = BatchCost(8), random.Random(0)
    for _ in range(100):
        images = chance.randint(1, 8)
        cost.learn(0.045 + 0.015 * images, images)
    assert cost.seconds(1) == pytest.approx(0.060)
    assert cost.seconds(8) == pytest.approx(0.165)
    assert cost.seconds(12) == pytest.approx(2 * 0.045 + 12 * 0.015)  # in two batches


def test_a_further_image_takes_no_less_than_nothing_and_no_more_than_its_share():
    falling, steep = BatchCost(8), BatchCost(8)
    for images in (1, 8, 1, 8):
        falling.learn(0.1 / images, images)
        steep.learn(0.01 * images**2, images)
    assert 0 < falling.seconds(8) == falling.seconds(1)
    assert steep.seconds(8) == pytest.approx(8 * steep.seconds(1))
    assert steep.seconds(1) > 0


def test_later_batches_weigh_more():
    cost = BatchCost(8)
    for seconds in [0.1] * 20 + [0.01] * 40:
        cost.learn(seconds, 1)
    assert 0.01 < cost.seconds(1) < 0.013
