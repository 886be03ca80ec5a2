"""The message for a non-finite loss names the network whose weights or learning rate can be the cause."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.errors import UserError
from bottlefit_jax.experiment.inputs import stage_settings
from bottlefit_jax.recipe import base_config
from bottlefit_jax.training import loop, sharding, stages, step
from bottlefit_jax.training.checkpoint import StageCheckpoints
from bottlefit_jax.training.progress import RunLog


def diverging(term, at):
    """Make a training step whose `term` is not finite from step `at` on."""

    def train_step(state, teacher_variables, batch, key):
        del teacher_variables, batch, key
        first = state.metrics[f"bad/{term}"]
        now = jnp.where((first < 0) & (state.step >= at), state.step, first)
        metrics = {**state.metrics, f"bad/{term}": now, "steps": state.metrics["steps"] + 1}
        return state.replace(step=state.step + 1, metrics=metrics), jnp.float32(1)

    return jax.jit(train_step)


def message(tmp_path, name, term, at):
    """Return the message that ends a run of stage `name`."""
    bottleneck = None if name == "teacher" else {"channels": 3}
    network = models.create("resnet18", num_classes=10, width=8, bottleneck=bottleneck)
    settings = dataclasses.replace(stage_settings(base_config(), name), epochs=1)
    stage = stages.create_stage(name, settings, network)
    mesh = jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    batch = {"image": np.zeros((1, 2, 2, 3), np.uint8), "label": np.zeros(1, np.int32)}
    plan = loop.Plan(3, 0, lambda step: 0.1, lambda start: iter([batch] * 4), lambda variables: {})
    state = step.TrainState(np.int32(0), {"params": {}, "batch_stats": {}}, {}, step.empty_metrics(stage.terms))
    checkpoints, log = StageCheckpoints(tmp_path / name), RunLog(tmp_path, primary=False)
    try:
        with pytest.raises(UserError) as caught:
            loop.run_stage(
                stage,
                plan,
                state,
                train_step=diverging(term, at),
                teacher_variables={},
                key=sharding.put_replicated(mesh, jax.random.key(0)),
                mesh=mesh,
                checkpoints=checkpoints,
                log=log,
                stop=loop.StopRequest(),
            )
    finally:
        checkpoints.close()
        log.close()
    return str(caught.value)


@pytest.mark.parametrize(("name", "term"), [("stage1", "layer3"), ("stage1", "gradient"), ("stage2", "distillation")])
def test_a_loss_that_is_not_finite_before_any_update_is_due_to_the_teacher(tmp_path, name, term):
    text = message(tmp_path, name, term, at=0)
    assert text.startswith("the teacher diverged when it was trained: with its weights the ")
    assert f"{term!r} of {name}" in text or f"{term} of {name}" in text
    assert "stages.teacher.learning_rate" in text
    assert f"stages.{name}.learning_rate" not in text


def test_a_loss_that_is_not_finite_later_is_due_to_the_learning_rate(tmp_path):
    text = message(tmp_path, "stage1", "layer3", at=2)
    assert text.startswith("stage1 stopped: the loss term 'layer3' was not finite at step 2; no checkpoint")
    assert text.endswith("try a lower stages.stage1.learning_rate")


def test_a_teacher_that_cannot_be_trained_is_due_to_its_initial_weights(tmp_path):
    text = message(tmp_path, "teacher", "cross_entropy", at=0)
    assert text.startswith("teacher stopped: the loss term 'cross_entropy' was not finite at step 0; no weight had")
