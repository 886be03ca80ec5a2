"""The losses against torchdistill's numbers (tests/goldens, `kd/…` and `ghnd/…`)."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bottlefit_jax.compare.designs  # noqa: F401  registers the designs that only the comparison uses
from bottlefit_jax import models
from bottlefit_jax.errors import UserError
from bottlefit_jax.models.network import AuxiliaryHead
from bottlefit_jax.training.losses import cross_entropy, distillation, feature_matching
from bottlefit_jax.training.stages import StageSettings, create_stage

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


def test_alpha_0_keeps_the_factor_of_the_divergence():
    outputs, teacher = (f32("kd/student"), {}), (f32("kd/teacher"), {})
    terms = distillation(outputs, teacher, jnp.zeros(8, jnp.int32), alpha=0.0, temperature=4.0)
    assert terms["cross_entropy"] == 0.0
    # torchdistill drops T² = 16 here, which looks like an oversight; we keep it.
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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_auxiliary_head_adds_its_weighted_cross_entropy(smoothing):
    logits, label = f32("kd/student"), jnp.asarray(GOLDEN["kd/targets"], jnp.int32)
    heads = (AuxiliaryHead("side", "side_logits", 0.4), AuxiliaryHead("exit", "exit_logits", 1.0))
    features = {"side_logits": f32("kd/teacher"), "exit_logits": f32("kd/teacher"), "other": logits}
    terms = cross_entropy((logits, features), None, label, label_smoothing=smoothing, heads=heads)
    assert list(terms) == ["cross_entropy", "side", "exit"]
    alone = cross_entropy((f32("kd/teacher"), features), None, label, label_smoothing=smoothing)
    assert list(alone) == ["cross_entropy"]
    np.testing.assert_allclose(terms["exit"], alone["cross_entropy"], rtol=1e-6)
    np.testing.assert_allclose(terms["side"], 0.4 * alone["cross_entropy"], rtol=1e-6)


def test_heads_learn_from_labels_in_distillation_too():
    logits, label = f32("kd/student"), jnp.asarray(GOLDEN["kd/targets"], jnp.int32)
    outputs, teacher = (logits, {"exit_logits": logits}), (f32("kd/teacher"), {})
    heads = (AuxiliaryHead("exit", "exit_logits", 1.0),)
    terms = distillation(outputs, teacher, label, alpha=0.5, temperature=1.0, heads=heads)
    assert list(terms) == ["cross_entropy", "distillation", "exit"]
    np.testing.assert_allclose(terms["exit"], 2 * terms["cross_entropy"], rtol=1e-6)


def test_an_early_exits_term_trains_the_exit_and_not_the_last_classifier():
    module = models.create("resnet18", num_classes=5, width=4, bottleneck={"design": "spinn", "channels": 8})
    images, label = jnp.ones((2, 32, 32, 3)), jnp.array([1, 3], jnp.int32)
    variables = jax.jit(module.init)(jax.random.key(0, impl="unsafe_rbg"), images)

    def loss(params):
        outputs: Any = module.apply({**variables, "params": params}, images)
        return cross_entropy(outputs, None, label, heads=module.auxiliary_heads)["exit"]

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    assert np.abs(gradient["exit"]["1"]["kernel"]).max() > 0
    assert not np.abs(gradient["fc"]["kernel"]).any()


def test_feature_matching_in_stage_2_has_no_rate_term_and_refuses_a_student_whose_exit_needs_labels():
    def stage(name, **bottleneck):
        network = models.create("resnet18", num_classes=5, width=4, bottleneck=bottleneck).clone(steps=(1.0,))
        settings = StageSettings(1, 4, loss="feature_matching", loss_options={"rate_weight": 0.5})
        return create_stage(name, settings, network)

    assert stage("stage1", channels=3).terms == ("layer2", "layer3", "layer4", "rate")
    assert stage("stage2", channels=3).terms == ("layer2", "layer3", "layer4")
    with pytest.raises(UserError, match=r"stages.stage2.loss is 'feature_matching', from which the classifier 'exit'"):
        stage("stage2", channels=8, design="spinn")


def test_label_smoothing_spreads_the_target():
    logits, label = jnp.array([[2.0, 0.0, 0.0]]), jnp.array([0], jnp.int32)
    log_p = jax.nn.log_softmax(logits)[0]
    expected = -(0.7 + 0.1) * log_p[0] - 0.1 * log_p[1] - 0.1 * log_p[2]
    terms = cross_entropy((logits, {}), None, label, label_smoothing=0.3)
    np.testing.assert_allclose(terms["cross_entropy"], expected, rtol=1e-6)
