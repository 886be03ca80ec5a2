"""Our side of `benchmarks/train_step.py`: stage 1 with random weights, its compiled step, and how a step is timed."""

import argparse
import collections
import dataclasses
import time
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bottlefit_jax import models
from bottlefit_jax.models.network import Network
from bottlefit_jax.recipe import IMAGENET_MEAN, IMAGENET_STD, base_config
from bottlefit_jax.training import loop, optimizer, sharding, stages, step

BOTTLENECK = {"channels": 12, "version": 2, "bits": 8}
CLASSES = 10
LEARNING_RATE = 1e-3


@dataclasses.dataclass
class Ours:
    """Our side: networks, weights, and the compiled step as the loop compiles it."""

    teacher: Network
    student: Network
    teacher_variables: dict[str, Any]
    variables: dict[str, Any]
    stage: stages.Stage
    mesh: jax.sharding.Mesh
    train_step: Callable[..., Any]
    tx: Any
    schedule: Any
    pixels: dict[str, Any]

    @classmethod
    def create(cls, options: argparse.Namespace) -> "Ours":
        """Networks with random weights; the student's tail is the teacher's."""
        config = base_config()
        config.stages.stage1.update(batch_size=options.batch, epochs=options.epochs)
        made = {"num_classes": CLASSES, "dtype": jnp.dtype(options.dtype)}
        teacher = models.create(options.model, **made)
        student = models.create(options.model, bottleneck=BOTTLENECK | {"image_size": options.size}, **made)
        example = jnp.zeros((1, options.size, options.size, 3))
        teacher_variables = sharding.to_host(jax.jit(teacher.init)(jax.random.key(0), example))
        new = sharding.to_host(jax.jit(student.init)(jax.random.key(1), example))
        variables = models.with_tail_of(teacher_variables, new)
        stage = stages.create_stage(
            "stage1", config.stages.stage1, parts=student.parts, matched=student.matched, drift=False
        )
        mesh = sharding.create_mesh(options.batch)
        schedule = optimizer.create_schedule("constant", learning_rate=LEARNING_RATE, epochs=1, steps_per_epoch=1)
        tx = optimizer.create_optimizer("adam", schedule=schedule)
        pixels = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
        train_step = step.create_train_step(stage, module=student, teacher=teacher, tx=tx, mesh=mesh, **pixels)
        return cls(teacher, student, teacher_variables, variables, stage, mesh, train_step, tx, schedule, pixels)

    def start(self, batch: dict[str, np.ndarray]) -> "OurStep":
        """Return the compiled step on this batch, which is put on the device now."""
        state = sharding.put_replicated(self.mesh, step.initial_state(self.stage, self.variables, tx=self.tx))
        fixed = (
            sharding.put_replicated(self.mesh, self.teacher_variables),
            sharding.put_batch(self.mesh, batch),
            sharding.put_replicated(self.mesh, jax.random.key(0)),
        )
        return OurStep(self.train_step.lower(state, *fixed).compile(), state, fixed)


class OurStep:
    """The step that runs again and again on one batch, no further ahead of the device than the loop lets it."""

    def __init__(self, compiled: Callable[..., Any], state: step.TrainState, fixed: tuple[Any, ...]):
        """With all that lies on the device."""
        self._compiled, self._state, self._fixed = compiled, state, fixed
        self._in_flight: collections.deque[jax.Array] = collections.deque()

    def run(self) -> jax.Array:
        """Give one step to the device; the loss before it."""
        self._state, loss = self._compiled(self._state, *self._fixed)
        self._in_flight.append(loss)
        if len(self._in_flight) > loop.IN_FLIGHT:
            self._in_flight.popleft().block_until_ready()
        return loss

    def wait(self) -> None:
        """Until the device is at rest."""
        jax.block_until_ready(self._state)


def random_batch(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Return a batch of noise, the same on every call."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (options.batch, options.size, options.size, 3), np.uint8)
    return {"image": image, "label": rng.integers(0, CLASSES, options.batch).astype(np.int32)}


class Repeated(Protocol):
    """What is timed: `run` gives work to a device, `wait` waits until all of it is done."""

    def run(self) -> Any:
        """One piece of work."""
        ...

    def wait(self) -> None:
        """Until the device is at rest."""
        ...


def timed(side: Repeated, count: int) -> float:
    """Return the wall time of `count` runs, from a device at rest to a device at rest."""
    side.run()
    side.wait()
    start = time.perf_counter()
    for _ in range(count):
        side.run()
    side.wait()
    return time.perf_counter() - start
