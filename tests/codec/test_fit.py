import numpy as np
import pytest

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.fit import fit_rate
from bottlefit_jax.codec.rates import make_rates
from bottlefit_jax.errors import UserError
from tests.codec.latents import ZERO_POINT, smooth_latents


def test_equal_latents_give_equal_tables():
    training = smooth_latents(20, (5, 5, 3))
    first, second = (
        make_rates([fit_rate(training.copy(), (4, 4, 4), zero_point=ZERO_POINT, id="a")], head="", shape=(5, 5, 3))
        for _ in range(2)
    )
    assert first.key == second.key


def test_channels_of_little_entropy_are_coded_together():
    training = smooth_latents(100, (9, 9, 6))
    fine, coarse = (fit_rate(training, (step,) * 6, zero_point=ZERO_POINT, id="a") for step in (1, 40))
    assert len(fine.groups) == 6
    assert len(coarse.groups) < 6
    assert sorted(channel for group in coarse.groups for channel in group.channels) == list(range(6))


def test_pixels_that_do_not_depend_on_their_neighbours_cost_no_more_for_having_contexts():
    random = np.random.default_rng(0)
    training, sent = (random.integers(100, 116, (count, 9, 9, 1), dtype=np.uint8) for count in (200, 50))
    rate = fit_rate(training, (1,), zero_point=100, id="a")
    entropy = 9 * 9 * 4 / 8
    assert np.mean([len(wire.encode(latent, rate)) for latent in sent]) <= 1.03 * entropy + wire.HEADER


def test_a_channel_that_never_changes_costs_almost_nothing():
    training = smooth_latents(100, (9, 9, 2))
    training[..., 1] = ZERO_POINT
    alone = fit_rate(training[..., :1], (16,), zero_point=ZERO_POINT, id="a")
    both = fit_rate(training, (16, 16), zero_point=ZERO_POINT, id="a")
    sent = smooth_latents(20, (9, 9, 2), seed=2)
    sent[..., 1] = ZERO_POINT
    sizes = [
        np.mean([len(wire.encode(each, rate)) for each in x]) for x, rate in ((sent[..., :1], alone), (sent, both))
    ]
    assert sizes[1] <= sizes[0] + 1


def test_one_image_is_enough_for_codes():
    latent = smooth_latents(1, (3, 3, 2))
    rates = make_rates([fit_rate(latent, (1, 2), zero_point=ZERO_POINT, id="a")], head="", shape=(3, 3, 2))
    assert (wire.decode(wire.encode(latent[0], rates.rates[0]), rates)[..., 0] == latent[0, ..., 0]).all()


@pytest.mark.parametrize(
    ("latents", "steps", "message"),
    [
        (np.zeros((0, 5, 5, 3), np.uint8), (1, 1, 1), r"from latents uint8 \[0, 5, 5, 3\]"),
        (np.zeros((2, 5, 5, 3), np.float32), (1, 1, 1), "from latents float32"),
        (np.zeros((2, 5, 5, 3), np.uint8), (1, 1), "give one of 1 to 255 for each of 3 channels"),
        (np.zeros((2, 5, 5, 3), np.uint8), (1, 1, 0), "give one of 1 to 255"),
    ],
)
def test_latents_and_steps_that_do_not_fit_are_refused(latents, steps, message):
    with pytest.raises(UserError, match=message):
        fit_rate(latents, steps, zero_point=0, id="a")
