"""Batch norms that were folded into kernels: with measured statistics the network computes the same."""

import jax
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.models.norms import FOLDED_VARIANCE


@pytest.fixture
def folded(draw_variables):
    """A network as a Keras file has it: norms that only add a bias."""
    network = models.create("resnet18", num_classes=5, width=8)
    rng = np.random.default_rng(0)
    drawn = draw_variables(network, 64)

    def fold(path, leaf):
        name = path[-1].key
        if name == "var":
            return np.full(leaf.shape, FOLDED_VARIANCE)
        if name == "bias" and path[1].key != "fc":
            return rng.normal(size=leaf.shape).astype(np.float32)
        return np.full(leaf.shape, 0.0 if name == "mean" else 1.0, np.float32) if leaf.ndim == 1 else np.asarray(leaf)

    return network, jax.tree_util.tree_map_with_path(fold, drawn)


def test_measured_norms_compute_the_same_in_evaluation_and_nearly_the_same_in_training(folded):
    network, variables = folded
    images = np.random.default_rng(1).standard_normal((12, 64, 64, 3)).astype(np.float32)
    assert len(models.folded_norms(variables, network.parts)) == 20
    batches = [(images[:8], np.ones(8, bool)), (np.concatenate([images[8:], images[:4] + 9]), np.arange(8) < 4)]
    measured = models.with_measured_norms(network, variables, batches, parts=network.parts)
    assert models.folded_norms(measured, network.parts) == []
    before, after = (np.asarray(network.apply(given, images)[0]) for given in (variables, measured))
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3 * np.abs(before).max())

    def in_training(given):
        (logits, _), updates = network.apply(given, images, train=True, mutable=["batch_stats"])
        return np.asarray(logits), updates["batch_stats"]

    scale = np.abs(before).max()
    far, near = (np.abs(in_training(given)[0] - before).max() / scale for given in (variables, measured))
    assert near < 1e-2
    assert far > 0.3
    moved = in_training(measured)[1]  # the statistics are those of these images already
    for key, tolerance in (("mean", 1e-3), ("var", 1e-2)):
        np.testing.assert_allclose(moved["bn1"][key], measured["batch_stats"]["bn1"][key], rtol=tolerance, atol=1e-3)


def test_norms_with_statistics_stay_the_same(folded):
    network, variables = folded
    variables["batch_stats"]["bn1"]["mean"] = variables["batch_stats"]["bn1"]["mean"] + 0.1
    assert ("bn1",) not in models.folded_norms(variables, network.parts)
    assert models.folded_norms(variables, ("conv1", "bn1", "fc")) == []
    images = np.zeros((2, 64, 64, 3), np.float32)
    measured = models.with_measured_norms(network, variables, [(images, np.ones(2, bool))], parts=("layer4",))
    for part in ("bn1", "layer1"):
        jax.tree.map(np.testing.assert_array_equal, measured["batch_stats"][part], variables["batch_stats"][part])


def test_norms_of_a_student_are_measured_before_its_static_range_is(folded):
    _, given = folded
    student = models.create("resnet18", num_classes=5, width=8, bottleneck={"channels": 3})
    images = np.random.default_rng(1).standard_normal((4, 64, 64, 3)).astype(np.float32)
    variables = models.with_tail_of(given, jax.jit(student.init)(jax.random.key(0), images))
    variables = {key: value for key, value in variables.items() if key != "ranges"}
    measured = models.with_measured_norms(student, variables, [(images, np.ones(4, bool))], parts=("layer3", "layer4"))
    assert models.folded_norms(variables, student.parts)
    assert models.folded_norms(measured, ("layer3", "layer4")) == []
