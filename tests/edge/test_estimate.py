"""Quantities that drift: what is expected of them after what was observed."""

import math
import random

import pytest

from bottlefit_jax.edge.estimate import Drifting, LogNormal, Moments, probability_below

QUANTITY = {"unsure": 1.0, "walk": 0.1, "noise": 0.1}


def test_observations_move_the_guess_and_narrow_it():
    rate = Drifting(1.0, **QUANTITY)
    assert not rate.known
    before = rate.expected(0.0)
    for second in range(20):
        rate.observe(4.0, float(second))
    after = rate.expected(19.0)
    assert rate.known
    assert after.median == pytest.approx(4.0, rel=0.01)
    assert after.variance < before.variance / 10


def test_what_was_not_observed_for_long_is_uncertain():
    rate = Drifting(1.0, **QUANTITY)
    rate.observe(1.0, 0.0)
    assert rate.expected(100.0).variance > 10 * rate.expected(0.0).variance
    assert rate.expected(1e9).variance <= 4.0
    assert rate.expected(100.0).mean == rate.expected(0.0).mean


def test_errors_that_were_not_expected_widen_what_is_expected():
    steady, jumping = Drifting(1.0, **QUANTITY), Drifting(1.0, **QUANTITY)
    for number in range(40):
        steady.observe(1.0, 0.1 * number)
        jumping.observe(3.0 if number % 2 else 0.3, 0.1 * number)
    assert jumping.expected(4.0).variance > 10 * steady.expected(4.0).variance


def test_an_observation_of_0_is_a_small_one():
    rate = Drifting(1.0, **QUANTITY)
    rate.observe(0.0, 0.0)
    assert 0 < rate.expected(0.0).median < 1


def test_stated_probabilities_come_true():
    chance, rate, below = random.Random(0), Drifting(1.0, **QUANTITY), 0
    value = 0.0
    for number in range(4000):
        now = 0.1 * number
        value += chance.gauss(0, 0.1 * math.sqrt(0.1))
        observed = math.exp(value + chance.gauss(0, 0.1))
        below += observed <= rate.expected(now).quantile(1.645)
        rate.observe(observed, now)
    assert below / 4000 == pytest.approx(0.95, abs=0.02)


def test_a_sum_has_the_mean_and_the_variance_of_its_parts():
    chance, parts = random.Random(0), (LogNormal(0.0, 0.2), LogNormal(-1.0, 0.5), LogNormal(1.0, 0.01))
    draws = [sum(math.exp(chance.gauss(p.mean, math.sqrt(p.variance))) for p in parts) for _ in range(40_000)]
    found = Moments.of(parts[0]).plus(parts[1]).sum_with(parts[2])
    for probability in (0.5, 0.9, 0.95):
        value = sorted(draws)[int(probability * len(draws))]
        assert probability_below(value, found) == pytest.approx(probability, abs=0.03)


def test_a_multiple_has_the_factor_and_its_variance():
    twice = LogNormal(0.0, 0.1).times(2.0, 0.2)
    assert (twice.median, twice.variance) == (pytest.approx(2.0), pytest.approx(0.3))
    assert probability_below(2.0, twice) == pytest.approx(0.5)
    assert probability_below(0.0, twice) == probability_below(-1.0, twice) == 0.0
    assert probability_below(1.99, LogNormal(math.log(2), 0.0)) == pytest.approx(0.0, abs=1e-12)


def test_the_median_does_not_depend_on_the_time():
    rate = Drifting(3.0, **QUANTITY)
    assert rate.median == rate.expected(0.0).median == pytest.approx(3.0)
    for second in range(4):
        rate.observe(2.0 + second, float(second))
        assert rate.median == rate.expected(float(second)).median == rate.expected(60.0).median
