"""The losses against torchdistill's own numbers (tests/goldens, `kd/…` and `ghnd/…`)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bottlefit_jax.compare.designs  # noqa: F401  registers the designs that only the comparison uses
from bottlefit_jax import models
from bottlefit_jax.training.losses import cross_entropy, distillation, feature_matching

GOLDEN = dict(np.load(Path(__file__).parents[1] / "goldens" / "training.npz"))


def f32(name):
    return jnp.asarray(GOLDEN[name], jnp.float32)


@pytest.mark.parametrize(("case", "temperature", "alpha"), [("T1_a0.5", 1.0, 0.5), ("T4_a0.9", 4.0, 0.9)])
def test_distillation_and_its_gradient_are_torchdistills(case, temperature, alpha):
    label = jnp.asarray(GOLDEN["kd/targets"], jnp.int32)

    def loss(logits):
        outputs, teacher = (logits, {}), (f32("kd/teacher"), {})
        return sum(distillation(outputs, teacher, label, alpha=alpha, temperature=temperature).values())

    value, gradient = jax.value_and_grad(loss)(f32("kd/student"))
    np.testing.assert_allclose(value, GOLDEN[f"kd/{case}/loss"], rtol=1e-6)
    np.testing.assert_allclose(gradient, GOLDEN[f"kd/{case}/grad_student"], atol=1e-6)


def test_no_labels_leave_the_divergence_with_its_factor():
    outputs, teacher = (f32("kd/student"), {}), (f32("kd/teacher"), {})
    terms = distillation(outputs, teacher, jnp.zeros(8, jnp.int32), alpha=0.0, temperature=4.0)
    assert terms["cross_entropy"] == 0.0
    # torchdistill drops T² = 16 here, by what looks like an oversight; ours keeps it.
    np.testing.assert_allclose(terms["distillation"], 16 * GOLDEN["kd/T4_a0/loss"], rtol=1e-6)


def test_feature_matching_sums_over_elements_and_batch():
    def nhwc(name):
        return jnp.moveaxis(f32(name), 1, -1)

    names = ("1", "2", "3")
    teacher = {name: nhwc(f"ghnd/teacher{name}") for name in names}

    def loss(features):
        terms = feature_matching((jnp.zeros(()), features), (jnp.zeros(()), teacher), jnp.zeros(()), features=names)
        return sum(terms.values()), terms

    student = {name: nhwc(f"ghnd/student{name}") for name in names}
    (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(student)
    np.testing.assert_allclose(value, GOLDEN["ghnd/stage1/loss"], rtol=1e-6)
    np.testing.assert_allclose([terms[name] for name in names], GOLDEN["ghnd/terms"], rtol=1e-6)
    for name in names:
        expected = np.moveaxis(GOLDEN[f"ghnd/stage1/grad_student{name}"], 1, -1)
        np.testing.assert_allclose(gradient[name], expected, atol=1e-5)


def test_auxiliary_classifier_adds_its_own_term():
    logits, label = f32("kd/student"), jnp.asarray(GOLDEN["kd/targets"], jnp.int32)
    terms = cross_entropy((logits, {"aux_logits": logits}), None, label)
    np.testing.assert_allclose(terms["auxiliary"], 0.4 * terms["cross_entropy"], rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_early_exit_weighs_as_much_as_the_last_classifier(smoothing):
    logits, label = f32("kd/student"), jnp.asarray(GOLDEN["kd/targets"], jnp.int32)
    features = {"exit_logits": f32("kd/teacher")}
    terms = cross_entropy((logits, features), None, label, label_smoothing=smoothing)
    assert sorted(terms) == ["cross_entropy", "exit"]
    alone = cross_entropy((f32("kd/teacher"), {}), None, label, label_smoothing=smoothing)
    np.testing.assert_allclose(terms["exit"], alone["cross_entropy"], rtol=1e-6)
    assert "exit" not in alone


def test_a_spinn_student_has_the_exits_term():
    module = models.create("resnet18", num_classes=5, width=4, bottleneck={"design": "spinn", "channels": 8})
    images, label = jnp.ones((2, 32, 32, 3)), jnp.array([1, 3], jnp.int32)
    outputs, variables = jax.jit(module.init_with_output)(jax.random.key(0, impl="unsafe_rbg"), images)
    terms = cross_entropy(outputs, None, label)
    assert sorted(terms) == ["cross_entropy", "exit"]

    def loss(params):
        outputs = module.apply({**variables, "params": params}, images)
        return cross_entropy(outputs, None, label)["exit"]  # pyright: ignore

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    assert np.abs(gradient["exit"]["1"]["kernel"]).max() > 0
    assert not np.abs(gradient["fc"]["kernel"]).any()


def test_label_smoothing_spreads_the_target():
    logits, label = jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0], jnp.int32)
    log_p = jax.nn.log_softmax(logits)[0]
    expected = -(0.7 + 0.1) * log_p[0] - 0.1 * log_p[1] - 0.1 * log_p[2]
    terms = cross_entropy((logits, {}), None, label, label_smoothing=0.3)
    np.testing.assert_allclose(terms["cross_entropy"], expected, rtol=1e-6)
