"""What the loop says where a loss is not finite: whose fault it can be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import base_config
from bottlefit_jax.training import loop, sharding, stages, step
from bottlefit_jax.training.checkpoint import StageCheckpoints
from bottlefit_jax.training.progress import RunLog


def diverging(term, at):
    """A training step in the place of a real one, whose `term` is not finite from step `at` on."""

    def train_step(state, teacher_variables, batch, key):
        del teacher_variables, batch, key
        first = state.tally[f"bad/{term}"]
        now = jnp.where((first < 0) & (state.step >= at), state.step, first)
        tally = {**state.tally, f"bad/{term}": now, "steps": state.tally["steps"] + 1}
        return state.replace(step=state.step + 1, tally=tally), jnp.float32(1)

    return jax.jit(train_step)


def message(tmp_path, name, term, at):
    """What the run of stage `name` ends with."""
    settings = base_config().stages[name]
    settings.epochs = 1
    stage = stages.create_stage(name, settings, parts=("encoder", "decoder", "layer3", "fc"), matched=("layer3",))
    mesh = jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    batch = {"image": np.zeros((1, 2, 2, 3), np.uint8), "label": np.zeros(1, np.int32)}
    plan = loop.Plan(3, 0, lambda step: 0.1, lambda start: iter([batch] * 4), lambda variables: {})
    state = step.TrainState(np.int32(0), {"params": {}, "batch_stats": {}}, {}, step.empty_tally(stage.terms))
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
                stop=loop.StopSignal(),
            )
    finally:
        checkpoints.close()
        log.close()
    return str(caught.value)


@pytest.mark.parametrize(("name", "term"), [("stage1", "layer3"), ("stage1", "gradient"), ("stage2", "distillation")])
def test_a_loss_that_is_not_finite_before_a_weight_moved_is_the_teachers(tmp_path, name, term):
    answer = message(tmp_path, name, term, at=0)
    assert answer.startswith("the teacher diverged when it was trained: with its weights the ")
    assert f"{term!r} of {name}" in answer or f"{term} of {name}" in answer
    assert "stages.teacher.learning_rate" in answer
    assert f"stages.{name}.learning_rate" not in answer


def test_one_that_comes_later_is_the_stages_own(tmp_path):
    answer = message(tmp_path, "stage1", "layer3", at=2)
    assert answer.startswith("stage1 stopped: the loss term 'layer3' was not finite at step 2; no checkpoint")
    assert answer.endswith("try a lower stages.stage1.learning_rate")


def test_a_teacher_cannot_blame_a_teacher(tmp_path):
    answer = message(tmp_path, "teacher", "cross_entropy", at=0)
    assert answer.startswith("teacher stopped: the loss term 'cross_entropy' was not finite at step 0; no weight had")
