"""An early exit: at threshold 0 the device classifies every image, above 1 none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.codec.fit import fit_rate
from bottlefit_jax.codec.rates import make_rates
from bottlefit_jax.compare.exits import evaluate_exits
from bottlefit_jax.compare.methods import METHODS
from bottlefit_jax.evaluation.accuracy import correct_counts, percentages
from bottlefit_jax.evaluation.networks import calibrate, create_eval_step, evaluate
from bottlefit_jax.evaluation.split_student import SplitStudent
from bottlefit_jax.models import with_tail_of
from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.recipe import bottleneck_options
from bottlefit_jax.training import sharding


@pytest.fixture(scope="module")
def student(setting):
    """A student of SPINN with the teacher's weights and an untrained exit: module, variables, bottleneck."""
    plan = bottleneck_options(setting.student_config(METHODS["spinn"], seed=0, channels=None))
    module = models.create("resnet18", num_classes=10, bottleneck=plan, width=8)
    example = jnp.zeros((1, setting.image_size, setting.image_size, 3))
    new = jax.device_get(jax.jit(module.init)(jax.random.key(1, impl="unsafe_rbg"), example))
    variables = with_tail_of(setting.networks.teacher_variables, new)
    ranges = calibrate(module, variables, setting.batches(limit=50), per_channel=False, **setting.pixels)
    return module, {**variables, "ranges": {"quantizer": ranges}}, plan


@pytest.fixture(scope="module")
def rates(setting, student):
    """A lossless rate, and one that is not, of the feature that is sent."""
    module, variables, plan = student
    halves = SplitStudent(module, variables, bottleneck=plan, mesh=setting.mesh, **setting.pixels)
    latents, affine = halves.training_latents(setting.batches(limit=100))
    zero_point = int(affine.zero_point)
    made = [fit_rate(latents, (step,) * 16, zero_point=zero_point, id=f"step-{step}") for step in (1, 40)]
    return make_rates(made, head="", shape=latents.shape[1:])


@pytest.fixture(scope="module")
def alone(setting, student):
    """The exit's own logits for every image, and the labels."""
    module, variables, _ = student
    images = np.concatenate([batch["image"][batch["mask"]] for batch in setting.batches()])
    labels = np.concatenate([batch["label"][batch["mask"]] for batch in setting.batches()])
    _, logits = module.apply(variables, normalise(jnp.asarray(images), **setting.pixels), method="device_outputs")
    return logits, labels


@pytest.fixture(scope="module")
def exits(setting, student, alone, rates):
    """At thresholds that send nothing, about a third, about two thirds, and everything."""
    middle = np.quantile(np.asarray(jax.nn.softmax(alone[0])).max(-1), (1 / 3, 2 / 3))
    return evaluate_exits(setting, *student, thresholds=(0.0, *middle, 1.01), rates=rates, rate="step-1")


def test_above_every_confidence_the_accuracy_is_the_whole_students(setting, student, exits):
    module, variables, _ = student
    step = create_eval_step(module, mesh=setting.mesh, **setting.pixels)
    whole = evaluate(step, sharding.put_replicated(setting.mesh, variables), setting.batches(), mesh=setting.mesh)
    assert {key: exits[-1][key] for key in whole} == whole
    assert exits[-1]["sent"] == 1.0
    assert 0 < exits[-1]["bytes"]["mean"] <= 5 * 5 * 16 + 4  # what a payload adds at most


def test_at_threshold_0_nothing_is_sent(alone, exits):
    logits, labels = alone
    expected = percentages(correct_counts(logits, labels, np.ones(len(labels), bool)))
    assert {key: exits[0][key] for key in expected} == expected
    assert (exits[0]["sent"], exits[0]["bytes"]) == (0.0, {"mean": 0.0, "p95": 0.0})


def test_a_higher_threshold_sends_more(exits):
    assert [each["sent"] for each in exits] == sorted(each["sent"] for each in exits)
    assert [each["bytes"]["mean"] for each in exits] == sorted(each["bytes"]["mean"] for each in exits)
    assert exits[1]["sent"] == pytest.approx(1 / 3, abs=0.02)
    assert exits[2]["sent"] == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize(("range_", "rate", "extra"), [("static", "step-40", 0), ("dynamic", "raw", 9)])
def test_bytes_are_those_of_the_rate_and_of_the_range(setting, student, exits, rates, range_, rate, extra):
    module, variables, plan = student
    plan = {**plan, "range": range_}
    if range_ == "dynamic":
        module = models.create("resnet18", num_classes=10, bottleneck=plan, width=8)
    (found,) = evaluate_exits(setting, module, variables, plan, (1.01,), rates=rates, rate=rate)
    if rate == "raw":
        assert found["bytes"] == {"mean": 5 * 5 * 16 + extra, "p95": 5 * 5 * 16 + extra}
    else:
        assert found["bytes"]["mean"] < exits[-1]["bytes"]["mean"]
