"""Evaluation over batches: masks, subsets of classes, calibrated ranges, and what is sent for a few images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.evaluate import calibrate, create_eval_step, evaluate, send_and_classify
from bottlefit_jax.training import sharding
from tests.training.conftest import PIXELS, make_batches, pair  # noqa: F401


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])


def masked(batches, rows):
    return [{**batch, "mask": np.arange(len(batch["label"])) < rows} for batch in batches]


def accuracy(module, variables, batches, mesh, **options):
    step = create_eval_step(module, mesh=mesh, **PIXELS, **options)
    return evaluate(step, sharding.put_replicated(mesh, variables), batches, mesh=mesh)


def test_what_the_mask_hides_does_not_count(pair, mesh):  # noqa: F811
    batches = make_batches(2)
    image = np.concatenate([batch["image"][:5] for batch in batches])
    label = np.concatenate([batch["label"][:5] for batch in batches])
    normalised = (image / 255.0 - 0.5) / 0.25
    logits = pair.teacher.apply(pair.teacher_variables, jnp.asarray(normalised, jnp.float32))[0]
    expected = 100.0 * float((np.argmax(logits, -1) == label).mean())
    measured = accuracy(pair.teacher, pair.teacher_variables, masked(batches, 5), mesh)
    assert measured["top1"] == pytest.approx(expected)


def test_only_the_datasets_classes_compete(pair, mesh):  # noqa: F811
    batch = masked(make_batches(1), 16)[0]
    batch["label"] = np.zeros(16, np.int32)
    only = accuracy(pair.teacher, pair.teacher_variables, [batch], mesh, class_indices=(7,))
    assert only == {"top1": 100.0, "top5": 100.0}


def test_a_network_that_is_not_finite_is_told(pair, mesh):  # noqa: F811
    broken = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), pair.student_variables)
    with pytest.raises(UserError, match="output is not finite for 32 of 32 evaluation images"):
        accuracy(pair.student, broken, masked(make_batches(2), 16), mesh)


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_calibrated_range_is_that_of_the_unmasked_latents(pair, per_channel):  # noqa: F811
    batches = masked(make_batches(3), 9)
    ranges = calibrate(pair.student, pair.student_variables, batches, per_channel=per_channel, **PIXELS)
    image = np.concatenate([batch["image"][:9] for batch in batches])
    normalised = jnp.asarray((image / 255.0 - 0.5) / 0.25, jnp.float32)
    latent = np.asarray(pair.student.apply(pair.student_variables, normalised, method="encode"))
    axes = (0, 1, 2) if per_channel else None
    np.testing.assert_allclose(ranges["low"], latent.min(axes), atol=1e-5)
    np.testing.assert_allclose(ranges["high"], latent.max(axes), atol=1e-5)


@pytest.mark.parametrize(
    ("range_", "per"), [("dynamic", "image"), ("dynamic", "channel"), ("static", "image"), ("static", "channel")]
)
def test_what_is_sent_leads_to_the_students_own_answer(pair, range_, per):  # noqa: F811
    options = {"channels": 3, "version": 2, "bits": 8, "range": range_, "per": per}
    student = models.create("resnet18", num_classes=10, width=8, bottleneck=options)
    variables = dict(pair.student_variables)
    if range_ == "static":
        batches = masked(make_batches(1), 16)
        ranges = calibrate(student, variables, batches, per_channel=per == "channel", **PIXELS)
        variables["ranges"] = {"quantizer": ranges}
    image = make_batches(1)[0]["image"][:6]
    sent, predicted = send_and_classify(student, variables, image, bottleneck=options, **PIXELS)
    assert (sent.dtype, sent.shape) == (np.uint8, (6, 5, 5, 3))
    normalised = jnp.asarray((image / 255.0 - 0.5) / 0.25, jnp.float32)
    np.testing.assert_array_equal(predicted, student.apply(variables, normalised)[0].argmax(-1))
