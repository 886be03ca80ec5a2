"""Optimisers and schedules against PyTorch's numbers (tests/goldens, `optim/…`)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bottlefit_jax.config_check import CHOICES
from bottlefit_jax.errors import UserError
from bottlefit_jax.training.optimizer import OPTIMIZERS, SCHEDULES, create_optimizer, create_schedule
from bottlefit_jax.training.stages import STAGES


@pytest.fixture(autouse=True)
def _standard_promotion():
    """Optax mixes integer steps with floats, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


GOLDEN = dict(np.load(Path(__file__).parents[1] / "goldens" / "training.npz"))


@pytest.mark.parametrize(
    ("case", "name", "learning_rate", "weight_decay", "milestones"),
    [
        ("sgd", "sgd", 0.01, 5e-4, ()),
        ("sgd_multistep", "sgd", 0.01, 5e-4, (2, 4)),
        ("sgd_large_decay_multistep", "sgd", 0.01, 0.1, (2, 4)),
        ("adam", "adam", 1e-3, 0.0, ()),
        ("adam_multistep", "adam", 1e-3, 0.0, (2, 4)),
    ],
)
def test_five_steps_are_pytorchs(case, name, learning_rate, weight_decay, milestones):
    schedule = create_schedule(
        "multistep", learning_rate=learning_rate, epochs=5, steps_per_epoch=1, milestones=milestones
    )
    tx = create_optimizer(name, schedule=schedule, weight_decay=weight_decay)
    a, b = jnp.asarray(GOLDEN["optim/A"], jnp.float32), jnp.asarray(GOLDEN["optim/b"], jnp.float32)
    w = jnp.asarray(GOLDEN["optim/w0"], jnp.float32)
    state = tx.init(w)
    for step in range(5):
        gradient = jax.grad(lambda w: 0.5 * jnp.sum((a @ w - b) ** 2))(w)
        updates, state = tx.update(gradient, state, w)
        w = jnp.asarray(optax.apply_updates(w, updates))
        np.testing.assert_allclose(schedule(step), GOLDEN[f"optim/{case}/lr"][step], rtol=1e-6)
        np.testing.assert_allclose(w, GOLDEN[f"optim/{case}/w"][step], atol=2e-6)


def test_warmup_rises_to_the_rate_and_the_milestones_count_epochs_from_the_start():
    schedule = create_schedule(
        "multistep", learning_rate=1.0, epochs=6, steps_per_epoch=10, milestones=(4,), warmup_epochs=2
    )
    np.testing.assert_allclose([schedule(step) for step in (0, 10, 20, 39, 40)], [0, 0.5, 1, 1, 0.1], rtol=1e-6)


def test_cosine_ends_at_zero():
    schedule = create_schedule("cosine", learning_rate=1.0, epochs=3, steps_per_epoch=10, warmup_epochs=1)
    np.testing.assert_allclose([schedule(step) for step in (10, 20, 30)], [1, 0.5, 0], atol=1e-6)


def test_the_configs_checks_have_every_name():
    assert {CHOICES[f"stages.{stage}.optimizer"] for stage in STAGES} == {OPTIMIZERS}
    assert {CHOICES[f"stages.{stage}.schedule"] for stage in STAGES} == {SCHEDULES}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_with_a_pace_moves_by_so_much_of_the_rate(name):
    params = {"encoder": {"0": {"kernel": jnp.ones(3)}, "1": {"kernel": jnp.ones(3)}}, "fc": {"bias": jnp.ones(3)}}
    gradient = jax.tree.map(lambda leaf: 0.5 * leaf, params)
    moved = []
    for paces in ({}, {"encoder/1/kernel": 0.25}):
        tx = create_optimizer(name, schedule=0.1, paces=paces)
        moved.append(tx.update(gradient, tx.init(params), params)[0])
    even, paced = moved
    np.testing.assert_allclose(paced["encoder"]["1"]["kernel"], 0.25 * even["encoder"]["1"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(paced["encoder"]["0"]["kernel"], even["encoder"]["0"]["kernel"])
    np.testing.assert_array_equal(paced["fc"]["bias"], even["fc"]["bias"])
    assert np.abs(even["encoder"]["1"]["kernel"]).min() > 0


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="unknown optimizer 'lion'; there are adam, sgd"):
        create_optimizer("lion", schedule=1e-3)
    with pytest.raises(UserError, match="unknown schedule 'step'; there are multistep"):
        create_schedule("step", learning_rate=1.0, epochs=1, steps_per_epoch=1)
