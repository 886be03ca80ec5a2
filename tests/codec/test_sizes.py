import dataclasses

import numpy as np
import pytest

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.sizes import payload_sizes
from bottlefit_jax.errors import UserError
from tests.codec.latents import fitted_rates, smooth_latents


def lengths(latents, rate):
    return [len(wire.encode(latent, rate)) for latent in latents]


@pytest.mark.parametrize("shape", [(7, 7, 9), (29, 29, 12), (1, 1, 1), (4, 1, 3), (5, 5, 3)])
def test_a_size_is_that_of_the_payload_that_is_made(shape):
    latents = smooth_latents(5, shape, seed=2)
    random = np.random.default_rng(1)
    unusual = np.where(random.random(latents.shape) < 0.05, random.integers(0, 256, latents.shape), latents)
    noise = random.integers(0, 256, latents.shape)
    for rate in fitted_rates(shape).rates:
        for each in (latents, unusual.astype(np.uint8), noise.astype(np.uint8)):
            assert payload_sizes(each, rate).tolist() == lengths(each, rate)


@pytest.mark.parametrize("format", [1, 2])
def test_sizes_of_payloads_in_every_mode(format):
    shape = (29, 29, 12)
    rate = dataclasses.replace(fitted_rates(shape).rates[0], format=format)
    latents = smooth_latents(64, shape, seed=1)[:4]  # of those that the tables were made from
    for row, unusual in zip(latents, (0, 60, 900, latents[0].size), strict=True):
        row.flat[:unusual] = np.random.default_rng(unusual).integers(0, 256, unusual)
    modes = {wire.encode(latent, rate)[0] >> 4 & 3 for latent in latents}
    assert modes == {wire.CODED, wire.ESCAPED, wire.STORED} | ({wire.MANY} if format == 2 else set())
    assert payload_sizes(latents, rate).tolist() == lengths(latents, rate)


def test_no_latents_have_no_sizes():
    assert payload_sizes(np.zeros((0, 7, 7, 9), np.uint8), fitted_rates((7, 7, 9)).rates[0]).shape == (0,)


def test_latents_that_do_not_fit_the_rate_are_refused():
    with pytest.raises(UserError, match=r"cannot encode uint8 \[7, 7, 8\]; the rate is for uint8 \[h, w, 9\]"):
        payload_sizes(np.zeros((2, 7, 7, 8), np.uint8), fitted_rates((7, 7, 9)).rates[0])
