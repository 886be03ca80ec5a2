import dataclasses
import itertools

import numpy as np
import pytest

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rates import make_rates
from bottlefit_jax.evaluation import rates
from bottlefit_jax.evaluation.rates import RatePoint, choose, default_rate, fit_candidates, measure
from tests.codec.latents import ZERO_POINT, fitted_rates, smooth_latents

SHAPE = (5, 5, 3)
WEIGHTS = np.random.default_rng(0).normal(size=(75, 4)) * np.repeat([[1.0, 0.2, 0.0]], 25, 0).reshape(75, 1)


def logits(latents):
    """Depend most on the first channel, and not at all on the third."""
    return (latents.reshape(len(latents), -1).astype(float) - ZERO_POINT) @ WEIGHTS / 30


def labels_of(latents):
    return logits(latents).argmax(1)


def point(size, top1, id="candidate"):
    rate = dataclasses.replace(fitted_rates(SHAPE, (1,), count=4).rates[0], id=id)
    return RatePoint(rate, float(size), float(size), float(top1), 100.0)


def test_an_error_costs_most_in_the_channel_that_the_prediction_depends_on():
    costs = rates.channel_costs(smooth_latents(100, SHAPE), logits, zero_point=ZERO_POINT)
    assert costs[0] > 5 * costs[1] > 0
    assert costs[2] == 0


def test_candidates_get_fewer_bytes_and_spare_the_channel_that_matters():
    candidates = fit_candidates(smooth_latents(100, SHAPE), logits, zero_point=ZERO_POINT)
    sent = smooth_latents(20, SHAPE, seed=3)
    sizes = [np.mean([len(wire.encode(latent, rate)) for latent in sent]) for rate in candidates]
    assert candidates[0].id == "lossless"
    assert candidates[0].steps == (1, 1, 1)
    assert len(candidates) > 8
    assert all(later < 1.15 * earlier for earlier, later in itertools.pairwise(sizes))  # ordered by entropies
    assert sizes[-1] < 0.25 * sizes[0]
    assert all(steps[0] <= steps[1] <= steps[2] for steps in (rate.steps for rate in candidates))
    assert any(rate.steps[0] < rate.steps[1] for rate in candidates)


def test_candidates_have_the_steps_that_are_the_same_for_all_channels():
    candidates = {rate.steps for rate in fit_candidates(smooth_latents(100, SHAPE), logits, zero_point=ZERO_POINT)}
    assert {(step,) * 3 for step in (2, 4, 8, 16)} <= candidates
    assert (128,) * 3 not in candidates  # nothing would be left


def test_latents_that_are_always_the_same_have_one_candidate():
    latents = np.full((10, *SHAPE), ZERO_POINT, np.uint8)
    assert [rate.steps for rate in fit_candidates(latents, logits, zero_point=ZERO_POINT)] == [(1, 1, 1)]


def test_a_rate_is_measured_by_what_arrives():
    sent = smooth_latents(70, SHAPE, seed=3)
    rate = fitted_rates(SHAPE, (24,)).rates[0]
    measured = measure(rate, sent, labels_of(sent), logits)
    ours = make_rates([rate], head="", shape=SHAPE)
    payloads = [wire.encode(latent, ours.rates[0]) for latent in sent]
    received = np.stack([wire.decode(payload, ours) for payload in payloads])
    assert measured.bytes_mean == np.mean([len(payload) for payload in payloads])
    assert measured.bytes_p95 == np.percentile([len(payload) for payload in payloads], 95)
    assert measured.top1 == pytest.approx(100 * np.mean(labels_of(received) == labels_of(sent)))
    assert measured.top1 < 100


def test_lossless_is_measured_as_the_network_without_a_rate():
    sent = smooth_latents(40, SHAPE, seed=3)
    assert measure(fitted_rates(SHAPE, (1,)).rates[0], sent, labels_of(sent), logits).top1 == 100


def test_the_cheapest_rate_within_each_target_is_kept():
    points = [
        point(*values) for values in ((100, 90), (80, 90.05), (60, 89.8), (50, 89.5), (40, 88.6), (30, 87.1), (20, 60))
    ]
    chosen = choose(points, float_top1=90.0, teacher_top1=None)
    assert [(each.rate.id, each.bytes_mean) for each in chosen] == [
        ("lossless", 100),
        ("within-0.1", 80),
        ("within-0.3", 60),
        ("within-0.6", 50),
        ("within-1.5", 40),
        ("within-3", 30),
    ]


def test_points_are_counted_from_the_teacher_where_the_student_is_better():
    points = [point(100, 92), point(80, 91), point(60, 90), point(40, 80), point(30, 70)]
    assert choose(points, float_top1=92.0, teacher_top1=90.0)[-1].bytes_mean <= 60
    assert [
        each.bytes_mean
        for each in choose(points, float_top1=92.0, teacher_top1=95.0)
        if each.rate.id.startswith("within")
    ] == [
        80,
        60,
    ]


def test_a_rate_is_kept_once_and_others_join_until_there_are_five():
    points = [point(size, 90) for size in (100, 80, 64, 51, 41, 33)]
    chosen = choose(points, float_top1=90.0, teacher_top1=None)
    assert len(chosen) == 5
    assert {"lossless", "within-0.1"} <= {each.rate.id for each in chosen}
    assert len({each.rate.id for each in chosen}) == 5
    assert [each.bytes_mean for each in chosen] == sorted((each.bytes_mean for each in chosen), reverse=True)


def test_two_candidates_make_two_rates():
    assert len(choose([point(100, 90), point(50, 10)], float_top1=90.0, teacher_top1=None)) == 2


def test_the_default_is_the_cheapest_within_0_3_points_of_the_student_without_a_quantiser():
    points = [point(100, 90), point(80, 89.75), point(60, 89.6)]
    assert default_rate(points, float_top1=90.0).bytes_mean == 80
    assert default_rate(points, float_top1=95.0).bytes_mean == 100
    assert default_rate([point(120, 90), *points], float_top1=95.0).bytes_mean == 100  # of equals the smaller


def test_the_best_default_is_kept_where_the_rates_near_the_teacher_are_too_coarse():
    points = [point(100, 95), point(80, 94.8), point(60, 90.0), point(40, 89.8), point(30, 89.5), point(20, 88.6)]
    chosen = {each.rate.id: each.bytes_mean for each in choose(points, float_top1=95.0, teacher_top1=90.0)}
    assert chosen["within-0.3-of-student"] == 80
    assert default_rate(points, float_top1=95.0).bytes_mean == 80


@pytest.mark.parametrize(
    ("shape", "images"), [((5, 5, 3), 2000), ((14, 14, 12), 765), ((29, 29, 12), 200), ((500, 500, 256), 1)]
)
def test_large_latents_need_fewer_training_images(shape, images, monkeypatch):
    monkeypatch.setattr(rates, "MOST_IMAGES", 2000)  # conftest lowers it
    assert rates.training_images(shape) == images
