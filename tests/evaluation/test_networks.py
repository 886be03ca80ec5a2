"""Evaluation over batches: masks, subsets of classes, calibrated ranges, transfers, and what a few images send."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.networks import calibrate, create_eval_step, evaluate, send_and_classify
from bottlefit_jax.training import sharding
from tests.training.conftest import PIXELS, make_batches, make_modules, pair  # noqa: F401


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])


def masked(batches, rows):
    return [{**batch, "mask": np.arange(len(batch["label"])) < rows} for batch in batches]


def accuracy(module, variables, batches, mesh, **options):
    step = create_eval_step(module, mesh=mesh, **PIXELS, **options)
    return evaluate(step, sharding.put_replicated(mesh, variables), batches, mesh=mesh)


def test_masked_images_do_not_count(pair, mesh):  # noqa: F811
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


def test_non_finite_outputs_are_a_user_error(pair, mesh):  # noqa: F811
    broken = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), pair.student_variables)
    with pytest.raises(UserError, match="output is not finite for 32 of 32 evaluation images"):
        accuracy(pair.student, broken, masked(make_batches(2), 16), mesh)


@pytest.fixture
def puts(monkeypatch):
    """The arrays that are put onto devices explicitly, by size; implicit transfers are errors."""
    sizes, device_put = [], jax.device_put

    def count(tree, *arguments, **options):
        sizes.extend(leaf.size for leaf in jax.tree.leaves(tree) if isinstance(leaf, np.ndarray))
        return device_put(tree, *arguments, **options)

    monkeypatch.setattr(jax, "device_put", count)
    with jax.transfer_guard("disallow"):
        yield sizes


def test_an_evaluation_puts_the_network_onto_the_devices_once(pair, mesh, puts):  # noqa: F811
    variables, batches = pair.teacher_variables, masked(make_batches(3), 16)
    step = create_eval_step(pair.teacher, mesh=mesh, **PIXELS)
    evaluate(step, variables, batches, mesh=mesh)
    network = [np.size(leaf) for leaf in jax.tree.leaves(variables)]
    images = [leaf.size for batch in batches for leaf in batch.values()]
    assert sorted(puts) == sorted(network + images)
    on_mesh = sharding.put_replicated(mesh, variables)
    puts.clear()
    evaluate(step, on_mesh, batches, mesh=mesh)
    assert sorted(puts) == sorted(images)


def test_a_calibration_puts_the_network_onto_the_device_once(pair, puts):  # noqa: F811
    batches = masked(make_batches(3), 16)
    calibrate(pair.student, pair.student_variables, batches, per_channel=False, **PIXELS)
    network = [np.size(leaf) for leaf in jax.tree.leaves(pair.student_variables)]
    assert sorted(puts) == sorted(network + [batch[key].size for batch in batches for key in ("image", "mask")])


def test_a_step_of_equal_arguments_is_kept(pair, mesh):  # noqa: F811
    step = create_eval_step(pair.teacher, mesh=mesh, class_indices=[1, 2], **PIXELS)
    assert create_eval_step(make_modules()[0], mesh=mesh, class_indices=(1, 2), **PIXELS) is step
    assert create_eval_step(pair.teacher, mesh=mesh, **PIXELS) is not step


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
def test_the_classes_predicted_from_what_is_sent_are_the_students(pair, range_, per):  # noqa: F811
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
