"""What one compiled step changes and what it must not, on any number of devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.training.checkpoint import digest
from tests.training.conftest import make_batches, make_modules, run_steps


def parts_that_changed(before, after):
    return {part for part in before if digest(before[part]) != digest(after[part])}


@pytest.mark.parametrize(
    ("name", "changes", "moved"),
    [
        ("stage1", {}, {"encoder", "decoder"}),
        ("stage2", {"loss": "distillation"}, {"decoder", "layer3", "layer4", "fc"}),
        ("stage2", {"loss": "cross_entropy"}, {"decoder", "layer3", "layer4", "fc"}),
        ("stage2", {"freeze_encoder": False}, {"encoder", "decoder", "layer3", "layer4", "fc"}),
    ],
)
def test_frozen_parts_keep_their_hash_and_trained_parts_change(pair, name, changes, moved):
    state = run_steps(pair, name, batches=make_batches(2), **changes)
    before, after = pair.student_variables, state.variables
    assert parts_that_changed(before["params"], after["params"]) == moved
    assert parts_that_changed(before["batch_stats"], after["batch_stats"]) == moved - {"fc"}  # fc has no statistics


def test_frozen_parts_with_updating_batch_statistics_keep_their_parameters(pair):
    state = run_steps(pair, "stage1", batches=make_batches(2), update_statistics=True)
    moved = parts_that_changed(pair.student_variables["batch_stats"], state.variables["batch_stats"])
    assert moved == {"encoder", "decoder", "layer3", "layer4"}
    assert parts_that_changed(pair.student_variables["params"], state.variables["params"]) == {"encoder", "decoder"}


def test_fixed_norms_leave_the_tails_statistics_and_not_the_decoders(pair):
    state = run_steps(pair, "stage2", batches=make_batches(2), fixed_norms=True)
    before, after = pair.student_variables, state.variables
    assert parts_that_changed(before["batch_stats"], after["batch_stats"]) == {"decoder"}
    assert parts_that_changed(before["params"], after["params"]) == {"decoder", "layer3", "layer4", "fc"}


def test_the_teacher_stage_trains_every_part_with_parameters(pair):
    state = run_steps(pair, "teacher", batches=make_batches(1))
    assert parts_that_changed(pair.teacher_variables["params"], state.variables["params"]) == set(
        pair.teacher_variables["params"]
    )


@pytest.mark.parametrize("name", [pytest.param("stage1", marks=pytest.mark.slow), "stage2"])
def test_a_step_on_one_device_and_on_eight_agree(pair, name):
    tx = optax.sgd(1e-4)
    one, eight = (run_steps(pair, name, batches=make_batches(1), devices=n, tx=tx) for n in (1, 8))
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(one.variables))
    for path, leaf in jax.tree_util.tree_leaves_with_path(one.variables):
        other = eight.variables
        for key in path:
            other = other[key.key]
        np.testing.assert_allclose(other, leaf, atol=1e-5 * max(1.0, largest), rtol=1e-5, err_msg=str(path))


def test_computing_in_bfloat16_keeps_float32_parameters_and_statistics(pair):
    teacher, student = make_modules(dtype=jnp.bfloat16)
    low = dataclasses.replace(pair, teacher=teacher, student=student)
    state = run_steps(low, "stage1", batches=make_batches(1))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.variables)} == {np.dtype("float32")}
    assert np.isfinite(state.metrics["sum/layer2"])


def test_the_metrics_have_the_first_step_at_which_a_term_was_not_finite(pair):
    state = run_steps(pair, "stage1", batches=make_batches(4), tx=optax.sgd(1e30))
    first = {name: int(at) for name, at in state.metrics.items() if name.startswith("bad/")}
    assert set(first) == {"bad/layer2", "bad/layer3", "bad/layer4", "bad/gradient"}
    assert 1 <= min(first.values()) < 4
    assert int(state.metrics["steps"]) == 4


def test_normalise_is_torchvisions():
    image = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (image / 255.0 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(normalise(jnp.asarray(image), mean, std), expected, atol=1e-6)
