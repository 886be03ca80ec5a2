"""The one loop: runs any stage, resumes it at any step, stops it cleanly."""

import collections
import contextlib
import dataclasses
import itertools
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from bottlefit_jax import interrupt
from bottlefit_jax.errors import UserError
from bottlefit_jax.training.checkpoint import Saved, StageCheckpoints
from bottlefit_jax.training.progress import RunLog
from bottlefit_jax.training.sharding import put_batch, put_replicated, to_host
from bottlefit_jax.training.stages import Stage
from bottlefit_jax.training.step import TrainState, Variables, empty_tally

# Steps given to the device ahead of the one that runs: enough to keep it busy. With 32, XLA's CPU devices were seen to
# wait for each other for ever in an all-reduce.
IN_FLIGHT = 2
LOOK_SECONDS = 0.5  # between two looks at a loss that has already been computed


class Stopped(Exception):
    """The run was asked to stop by a signal, and what it had is saved."""

    def __init__(self, signum: int):
        """Remembers the signal, which makes the exit code."""
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class StopSignal:
    """SIGTERM or SIGINT asks; the loop answers after the step that runs. A second signal does not wait."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.signum = 0

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """While there is something to save; outside of it a signal ends the process at once."""
        if jax.process_count() == 1:
            return interrupt.asked(self._receive)
        return interrupt.asked(self._tell_all_hosts, signals=(signal.SIGINT,))

    def _receive(self, signum: int) -> None:
        self.signum = signum

    def _tell_all_hosts(self, signum: int) -> None:
        """jax.distributed listens to SIGTERM, and makes all hosts stop at the same step."""
        self._receive(signum)
        os.kill(os.getpid(), signal.SIGTERM)

    def reached(self, step: int) -> bool:
        """Whether to stop at `step`; all hosts agree on it."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return bool(self.signum)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long a stage runs and what it needs around its steps.

    Attributes:
        steps_per_epoch: optimiser steps in an epoch.
        every_steps: steps between checkpoints besides the epochs' ends; 0: none.
        schedule: learning rate by step, an `optax.Schedule`, for the record.
        batches: start step -> this host's batches, for ever.
        evaluate: variables -> {"top1", "top5"} in percent.
        evaluate_every: epochs from one evaluation to the next; the last epoch always has one.
        select: "last" or "best", the weights that the stage hands on.
    """

    steps_per_epoch: int
    every_steps: int
    schedule: Callable[[int], Any]
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]]
    evaluate: Callable[[Variables], dict[str, float]]
    evaluate_every: int = 1
    select: str = "last"


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished stage: its weights (NumPy) and a row of the report."""

    variables: Variables
    summary: dict[str, Any]


def run_stage(
    stage: Stage,
    plan: Plan,
    state: TrainState,
    *,
    train_step: Callable[..., tuple[TrainState, jax.Array]],
    teacher_variables: Variables,
    key: jax.Array,
    mesh: Mesh,
    checkpoints: StageCheckpoints,
    log: RunLog,
    stop: StopSignal,
) -> Result:
    """Trains a stage to its end, from its last whole checkpoint where there is one.

    Args:
        stage: what is trained.
        plan: how long, on what.
        state: the stage's beginning, on the host.
        train_step: from `create_train_step`.
        teacher_variables: of the network that the loss compares with, on the mesh; {} where it compares with none.
        key: randomness of the stage; each step folds its number in.
        mesh: of all devices.
        checkpoints: of this stage.
        log: of the run.
        stop: asked after every step.

    Raises:
        Stopped: after saving, when a signal came.
        UserError: a loss that is not finite, a full disk, an image that cannot be read.
    """
    total = stage.epochs * plan.steps_per_epoch
    saved = checkpoints.latest(state)
    if saved is not None:
        state, seconds = saved.state, saved.meta["seconds"]
    else:
        seconds = 0.0
    step = int(state.step)
    log.rewind(stage.name, step)
    if step < total:
        if saved is not None:
            log.say(f"{stage.name}: going on from step {step} of {total}")
        runner = _Runner(stage, plan, train_step, teacher_variables, key, mesh, checkpoints, log, stop, seconds)
        state = runner.run(put_replicated(mesh, state), step)
        seconds = runner.seconds
    checkpoints.wait()
    chosen = checkpoints.best(state) if plan.select == "best" else None
    variables = (chosen or Saved(total, to_host(state), {})).state.variables
    rates = [record["images_per_second"] for record in log.records if record["stage"] == stage.name]
    rate = float(np.median(rates)) if rates else 0.0
    summary = {"name": stage.name, "epochs": stage.epochs, "seconds": seconds, "images_per_second": rate}
    return Result(variables, summary)


@dataclasses.dataclass
class _Runner:
    """The moving parts of `run_stage`."""

    stage: Stage
    plan: Plan
    train_step: Callable[..., tuple[TrainState, jax.Array]]
    teacher_variables: Variables
    key: jax.Array
    mesh: Mesh
    checkpoints: StageCheckpoints
    log: RunLog
    stop: StopSignal
    seconds: float

    def run(self, state: TrainState, step: int) -> TrainState:
        """All epochs that are left, from `step`."""
        begin, before = time.monotonic(), self.seconds
        per_epoch, size = self.plan.steps_per_epoch, self.stage.batch_size
        total = self.stage.epochs * per_epoch
        batches = (put_batch(self.mesh, batch) for batch in self.plan.batches(step))
        batch = next(batches)
        compiled = self.train_step.lower(state, self.teacher_variables, batch, self.key).compile()
        batches = itertools.chain([batch], batches)
        shown = self.log.bar(self.stage.name, total=total, initial=step, batch_size=size)
        with self.stop.listening(), shown as bar:
            while step < total:
                end, first, started = (step // per_epoch + 1) * per_epoch, step, time.monotonic()
                for new in self._steps(compiled, state, itertools.islice(batches, end - step), bar):
                    state, step = new, step + 1
                    self.seconds = before + time.monotonic() - begin
                    if step < end:
                        self._between_steps(state, step)
                jax.block_until_ready(state)
                rate = (step - first) * size / (time.monotonic() - started)
                state = self._end_epoch(state, step, rate)
                self.seconds = before + time.monotonic() - begin
                if self.stop.reached(step):
                    self._leave()
            self.checkpoints.wait()
            if self.stop.signum:  # it came after the last step; the next stage shall not begin
                self._leave()
        return state

    def _steps(
        self, compiled: Callable[..., Any], state: TrainState, batches: Iterable[Any], bar: Any
    ) -> Iterator[TrainState]:
        """Give steps to the device a little ahead, and looks at a loss only where it has already been computed."""
        in_flight: collections.deque[jax.Array] = collections.deque()
        looked = time.monotonic()
        for batch in batches:
            with jax.transfer_guard("disallow"):
                state, loss = compiled(state, self.teacher_variables, batch, self.key)
            bar.update(self.stage.batch_size)
            in_flight.append(loss)
            if len(in_flight) > IN_FLIGHT:
                done = in_flight.popleft().block_until_ready()
                if time.monotonic() - looked > LOOK_SECONDS:
                    looked = time.monotonic()
                    self._look(state, done, bar)
            yield state

    def _between_steps(self, state: TrainState, step: int) -> None:
        stopping = self.stop.reached(step)
        if stopping or (self.plan.every_steps and step % self.plan.every_steps == 0):
            self._check(state)
            self.checkpoints.save(step, state, {"seconds": self.seconds})
        if stopping:
            self._leave()

    def _look(self, state: TrainState, loss: jax.Array, bar: Any) -> None:
        value = float(loss)
        bar.set_postfix_str(f"loss {value:.4g}", refresh=False)
        if not math.isfinite(value):
            self._check(state)

    def _check(self, state: TrainState) -> dict[str, Any]:
        """Read the tally; a term that was not finite at any step ends the run before anything is saved."""
        tally = to_host(state.tally)
        bad = {name.removeprefix("bad/"): int(at) for name, at in tally.items() if name.startswith("bad/") and at >= 0}
        if bad:
            raise UserError(self._divergence(*min(bad.items(), key=lambda item: item[1])))
        return tally

    def _divergence(self, term: str, step: int) -> str:
        """What a person reads where a loss term, or the gradient, was not finite at `step` for the first time."""
        what = "gradient" if term == "gradient" else f"loss term {term!r}"
        name, kept = self.stage.name, self.checkpoints.last_path()
        if step > 0:
            advice = f"the last good checkpoint is {kept}; " if kept else "no checkpoint had been written yet; "
            advice += f"try a lower stages.{name}.learning_rate"
        elif self.stage.needs_teacher:
            return (
                f"the teacher diverged when it was trained: with its weights the {what} of {name} is not finite at the "
                "first step; train it with a lower stages.teacher.learning_rate, or name other config.teacher.weights"
            )
        else:
            advice = f"no weight had moved yet, so the {self.stage.network} began with weights that cannot be trained"
        return f"{name} stopped: the {what} was not finite at step {step}; {advice}"

    def _end_epoch(self, state: TrainState, step: int, rate: float) -> TrainState:
        tally = self._check(state)
        steps = int(tally["steps"])
        terms = {name.removeprefix("sum/"): float(tally[name]) / steps for name in tally if name.startswith("sum/")}
        epoch = step // self.plan.steps_per_epoch
        due = epoch % self.plan.evaluate_every == 0 or epoch == self.stage.epochs
        accuracy = self.plan.evaluate(state.variables) if due else {}
        record = {
            "stage": self.stage.name,
            "epoch": epoch,
            "step": step,
            "train_loss": sum(terms.values()),
            "terms": terms,
            "learning_rate": float(self.plan.schedule(step - 1)),
            "images_per_second": rate,
            **accuracy,
        }
        state = state.replace(tally=put_replicated(self.mesh, empty_tally(self.stage.terms)))
        self.checkpoints.save(step, state, {"seconds": self.seconds}, top1=accuracy.get("top1"))
        self.log.epoch(record, epochs=self.stage.epochs)
        return state

    def _leave(self) -> None:
        self.checkpoints.wait()
        raise Stopped(self.stop.signum or signal.SIGTERM)
