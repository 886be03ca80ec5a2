"""Students behind payloads: what is counted is what is sent, and what is classified is what arrives."""

import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rate import values_of
from bottlefit_jax.evaluation import payloads
from bottlefit_jax.evaluation.networks import calibrate, create_eval_step, evaluate
from bottlefit_jax.evaluation.split_student import SplitStudent
from tests.evaluation.test_networks import masked, mesh  # noqa: F401
from tests.training.conftest import PIXELS, make_batches, pair  # noqa: F401

RANGES = [("static", "channel", 0), ("dynamic", "image", 9)]


def split(pair, mesh, range_="static", per="image", **changes):  # noqa: F811
    """A student in two halves, and the whole one: module and variables."""
    options = {"channels": 3, "version": 2, "bits": 8, "range": range_, "per": per}
    module = models.create("resnet18", num_classes=10, width=8, bottleneck=options)
    variables = {**pair.student_variables, **changes}
    if range_ == "static":
        found = calibrate(module, variables, masked(make_batches(1), 16), per_channel=per == "channel", **PIXELS)
        variables["ranges"] = {"quantizer": found}
    return SplitStudent(module, variables, bottleneck=options, mesh=mesh, **PIXELS), module, variables


@pytest.fixture(scope="module")
def candidates(pair, mesh):  # noqa: F811
    """A fine and a coarse rate of a static student, out of a ladder."""
    ladder = payloads.fit_ladder(split(pair, mesh)[0], masked(make_batches(4), 13))
    assert set(ladder[0].steps) == {1}
    return [ladder[0], ladder[len(ladder) // 2], ladder[-1]]


@pytest.mark.parametrize(("range_", "per", "range_bytes"), RANGES)
def test_raw_is_the_whole_student_and_every_range_is_paid_for(pair, mesh, candidates, range_, per, range_bytes):  # noqa: F811
    student, module, variables = split(pair, mesh, range_, per)
    batches = masked(make_batches(2, seed=1), 11)
    rates = payloads.make_rates(candidates[:1], head="", shape=(5, 5, 3))
    found = payloads.measure_payloads(student, rates, batches)
    raw = next(rate for rate in found.rates if rate.id == payloads.RAW)
    whole = evaluate(create_eval_step(module, mesh=mesh, **PIXELS), variables, batches, mesh=mesh)
    assert {"top1": raw.top1, "top5": raw.top5} == whole
    assert sum(found.by_class) == pytest.approx(found.default.top1 * 22 / 100)
    assert (raw.bytes_mean, raw.bytes_p95, raw.steps) == (75 + range_bytes, 75 + range_bytes, None)
    assert found.range_bytes == range_bytes
    lossless = next(rate for rate in found.rates if rate.id == "lossless")
    assert (lossless.top1, lossless.top5) == (raw.top1, raw.top5)


def test_bytes_are_those_of_real_payloads_and_accuracy_that_of_what_arrives(pair, mesh, candidates):  # noqa: F811
    student, _, _ = split(pair, mesh)
    batches = masked(make_batches(2, seed=1), 11)
    rates = payloads.make_rates(candidates, head="", shape=(5, 5, 3))
    coarse = rates.rates[-1]
    sizes, correct = [], 0
    for batch in batches:
        sent = student.send(batch).latents[:11]
        blobs = [wire.encode(latent, coarse) for latent in sent]
        sizes += map(len, blobs)
        received = np.stack([wire.decode(blob, rates) for blob in blobs])
        correct += int((student.logits(received, student.static_affine()).argmax(1) == batch["label"][:11]).sum())
    found = payloads.measure_payloads(student, rates, batches).rates[-1]
    assert (found.id, found.steps) == (coarse.id, coarse.steps)
    assert found.bytes_mean == pytest.approx(np.mean(sizes))
    assert found.bytes_p95 == pytest.approx(np.percentile(sizes, 95))
    assert found.top1 == pytest.approx(100 * correct / 22)


def test_rounding_without_payloads_is_what_arrives_of_them(candidates):
    rates = payloads.make_rates(candidates, head="", shape=(5, 5, 3))
    latents = np.random.default_rng(0).integers(0, 256, (9, 5, 5, 3), np.uint8)
    for rate in rates.rates:
        arrived = np.stack([wire.decode(wire.encode(latent, rate), rates) for latent in latents])
        np.testing.assert_array_equal(payloads._Rounding(rate)(latents), arrived)
        assert set(np.unique(arrived[..., 0])) <= set(values_of(rate.steps[0], rate.zero_point).tolist())


def test_rates_are_chosen_from_the_candidates_and_the_default_is_near_the_float_student(pair, mesh, candidates):  # noqa: F811
    student, _, _ = split(pair, mesh)
    batches = masked(make_batches(2, seed=1), 16)
    rates = payloads.choose_rates(student, candidates, batches, teacher_top1=None)
    assert {rate.steps for rate in rates.rates} == {rate.steps for rate in candidates}  # fewer than five: all stay
    found = payloads.measure_payloads(student, rates, batches)
    sizes = [rate.bytes_mean for rate in found.rates]
    assert sizes == sorted(sizes, reverse=True)
    near = [rate for rate in found.rates if rate.top1 >= found.float_top1 - 0.3]
    best = min(near, key=lambda rate: rate.bytes_mean) if near else max(found.rates, key=lambda rate: rate.top1)
    assert found.default == best


@pytest.mark.parametrize(("size", "images"), [(32, 4000), (64, 4000), (96, 1777), (224, 1000)])
def test_rates_are_chosen_on_fewer_images_where_they_are_large(size, images):
    assert payloads.tried_limit(size) == images
