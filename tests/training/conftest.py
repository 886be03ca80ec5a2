"""A small teacher and student on images of noise, and one stage of theirs made ready."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bottlefit_jax import models
from bottlefit_jax.recipe import base_config
from bottlefit_jax.training import sharding, stages, step

PIXELS = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
BATCH = 16


@dataclasses.dataclass(frozen=True)
class Pair:
    """Modules, and variables in host memory; the student's tail is the teacher's."""

    teacher: Any
    student: Any
    teacher_variables: Any
    student_variables: Any


def make_modules(**options):
    settings = {"num_classes": 10, "width": 8, **options}
    bottleneck = {"channels": 3, "version": 2, "bits": 8}
    return models.create("resnet18", **settings), models.create("resnet18", bottleneck=bottleneck, **settings)


def make_pair():
    teacher, student = make_modules()
    zeros = jnp.zeros((1, 32, 32, 3))
    key = jax.random.key(0, impl="unsafe_rbg")  # compiles in a third of the time
    teacher_variables = sharding.to_host(jax.jit(teacher.init)(key, zeros))
    variables = sharding.to_host(jax.jit(student.init)(key, zeros))
    variables = models.with_tail_of(teacher_variables, variables)
    return Pair(teacher, student, teacher_variables, variables)


@pytest.fixture(scope="session")
def pair():
    return make_pair()


def make_batches(count, *, size=BATCH, seed=0):
    rng = np.random.default_rng(seed)
    shape = (size, 32, 32, 3)
    return [
        {"image": rng.integers(0, 256, shape, np.uint8), "label": rng.integers(0, 10, size).astype(np.int32)}
        for _ in range(count)
    ]


def run_steps(pair, name, *, batches, devices=2, drift=False, tx=None, **changes):
    """Runs one stage for a few steps; the state comes back in host memory."""
    settings = base_config().stages[name]
    settings.update(changes)
    module = pair.teacher if stages.STAGES[name].network == "teacher" else pair.student
    variables = pair.teacher_variables if module is pair.teacher else pair.student_variables
    stage = stages.create_stage(name, settings, parts=module.parts, matched=module.matched, drift=drift)
    mesh = jax.make_mesh((devices,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices])
    tx = tx or optax.sgd(1e-2)
    train_step = step.create_train_step(stage, module=module, teacher=pair.teacher, tx=tx, mesh=mesh, **PIXELS)
    state = sharding.put_replicated(mesh, step.initial_state(stage, variables, tx=tx))
    teacher_variables = sharding.put_replicated(mesh, pair.teacher_variables)
    key = sharding.put_replicated(mesh, jax.random.key(3))
    for batch in batches:
        state, _ = train_step(state, teacher_variables, sharding.put_batch(mesh, batch), key)
    return sharding.to_host(state)
