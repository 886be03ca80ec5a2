"""An early exit: at threshold 0 the device classifies every image, above 1 none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.compare.exits import evaluate_exits
from bottlefit_jax.compare.methods import METHODS
from bottlefit_jax.evaluation.accuracy import correct_counts, percentages
from bottlefit_jax.evaluation.networks import create_eval_step, evaluate
from bottlefit_jax.models import with_tail_of
from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.recipe import bottleneck_options
from bottlefit_jax.training import sharding


@pytest.fixture(scope="module")
def student(setting):
    """A student of SPINN with the teacher's weights and an untrained exit: module, variables, bottleneck."""
    plan = bottleneck_options(setting.student_config(METHODS["spinn"].change, seed=0, channels=None))
    module = models.create("resnet18", num_classes=10, bottleneck=plan, width=8)
    example = jnp.zeros((1, setting.image_size, setting.image_size, 3))
    new = jax.device_get(jax.jit(module.init)(jax.random.key(1, impl="unsafe_rbg"), example))
    return module, with_tail_of(setting.networks.teacher_variables, new), plan


@pytest.fixture(scope="module")
def alone(setting, student):
    """The exit's own logits for every image, and the labels."""
    module, variables, _ = student
    images = np.concatenate([batch["image"][batch["mask"]] for batch in setting.batches()])
    labels = np.concatenate([batch["label"][batch["mask"]] for batch in setting.batches()])
    _, logits = module.apply(variables, normalise(jnp.asarray(images), **setting.pixels), method="device_outputs")
    return logits, labels


@pytest.fixture(scope="module")
def exits(setting, student, alone):
    """At thresholds that send nothing, about a third, about two thirds, and everything."""
    middle = np.quantile(np.asarray(jax.nn.softmax(alone[0])).max(-1), (1 / 3, 2 / 3))
    return evaluate_exits(setting, *student, thresholds=(0.0, *middle, 1.01))


def test_above_every_confidence_the_accuracy_is_the_whole_students(setting, student, exits):
    module, variables, _ = student
    step = create_eval_step(module, mesh=setting.mesh, **setting.pixels)
    whole = evaluate(step, sharding.put_replicated(setting.mesh, variables), setting.batches(), mesh=setting.mesh)
    assert {key: exits[-1][key] for key in whole} == whole
    assert exits[-1]["sent"] == 1.0
    assert 0 < exits[-1]["bytes"]["mean"] <= 5 * 5 * 16 + 9 + 11  # zlib adds 11 bytes at most


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
