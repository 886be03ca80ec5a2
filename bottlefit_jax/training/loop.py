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
from bottlefit_jax.training.step import TrainState, Variables, empty_metrics

# Steps dispatched ahead of the one that runs: enough to keep the device busy. With 32, XLA's CPU devices sometimes
# deadlocked in an all-reduce.
IN_FLIGHT = 2
SHOW_SECONDS = 0.5  # between two reads of a loss that has already been computed


class Stopped(Exception):
    """The run was asked to stop, and its state is saved.

    Attributes:
        signum: the signal that asked, which decides a command's exit code.
    """

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class StopRequest:
    """A request to stop after the step that runs, with everything saved. Any thread may make it.

    Attributes:
        signum: the signal that a stopped command would have received; 0 while nothing was requested.
    """

    def __init__(self) -> None:
        self.signum = 0

    def request(self, signum: int = signal.SIGTERM) -> None:
        """Ask the run to stop."""
        self.signum = signum

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which the loop runs its steps."""
        return contextlib.nullcontext()

    def reached(self, step: int) -> bool:
        """Return whether to stop at `step`; all hosts agree on it."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return bool(self.signum)


class StopSignal(StopRequest):
    """A stop request that SIGTERM or SIGINT makes, for a command. A second signal ends the process at once.

    Signals are handled while the loop runs its steps; at other times there is nothing to save.
    """

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the first signal requests a stop."""
        if jax.process_count() == 1:
            return interrupt.asked(self.request)
        return interrupt.asked(self._request_on_all_hosts, signals=(signal.SIGINT,))

    def _request_on_all_hosts(self, signum: int) -> None:
        """Send SIGTERM to this process: jax.distributed handles it, and makes all hosts stop at the same step."""
        self.request(signum)
        os.kill(os.getpid(), signal.SIGTERM)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long a stage runs, and what the loop calls around its steps.

    Attributes:
        steps_per_epoch: optimiser steps in an epoch.
        every_steps: steps between checkpoints within an epoch, whose end always has one; 0: no others.
        schedule: learning rate by step, an `optax.Schedule`, for the log.
        batches: start step -> this host's batches, without end.
        evaluate: variables -> {"top1", "top5"} in percent.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
        select: "last" or "best": which weights are the stage's result.
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
    """A finished stage: its weights (NumPy) and its row of the report."""

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
    stop: StopRequest,
) -> Result:
    """Train a stage to its end, from its last intact checkpoint where there is one.

    Args:
        stage: what is trained.
        plan: how long, and on which batches.
        state: the stage's initial state, on the host.
        train_step: from `create_train_step`.
        teacher_variables: of the network that the loss compares with, on the mesh; {} where it compares with none.
        key: random key of the stage; each step folds its number in.
        mesh: of all devices.
        checkpoints: of this stage.
        log: of the run.
        stop: checked after every step.

    Raises:
        Stopped: a stop was requested; the state is saved.
        UserError: a non-finite loss, a full disk, an image that cannot be read.
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
            log.say(f"{stage.name}: resuming from step {step} of {total}")
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
    """The arguments of `run_stage`, and the seconds that the stage has taken so far."""

    stage: Stage
    plan: Plan
    train_step: Callable[..., tuple[TrainState, jax.Array]]
    teacher_variables: Variables
    key: jax.Array
    mesh: Mesh
    checkpoints: StageCheckpoints
    log: RunLog
    stop: StopRequest
    seconds: float

    def run(self, state: TrainState, step: int) -> TrainState:
        """Run the remaining epochs, from `step`."""
        begin, before = time.monotonic(), self.seconds
        per_epoch, size = self.plan.steps_per_epoch, self.stage.batch_size
        total = self.stage.epochs * per_epoch
        batches = (put_batch(self.mesh, batch) for batch in self.plan.batches(step))
        batch = next(batches)
        compiled = self.train_step.lower(state, self.teacher_variables, batch, self.key).compile()
        batches = itertools.chain([batch], batches)
        progress = self.log.bar(self.stage.name, total=total, initial=step, batch_size=size)
        with self.stop.listening(), progress as bar:
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
                    self._raise_stopped()
            self.checkpoints.wait()
            if self.stop.signum:  # it came after the last step, and the next stage must not begin
                self._raise_stopped()
        return state

    def _steps(
        self, compiled: Callable[..., Any], state: TrainState, batches: Iterable[Any], bar: Any
    ) -> Iterator[TrainState]:
        """Dispatch steps a little ahead of the device, and read only losses that have already been computed."""
        in_flight: collections.deque[jax.Array] = collections.deque()
        shown = time.monotonic()
        for batch in batches:
            with jax.transfer_guard("disallow"):
                state, loss = compiled(state, self.teacher_variables, batch, self.key)
            bar.update(self.stage.batch_size)
            in_flight.append(loss)
            if len(in_flight) > IN_FLIGHT:
                done = in_flight.popleft().block_until_ready()
                if time.monotonic() - shown > SHOW_SECONDS:
                    shown = time.monotonic()
                    self._show_loss(state, done, bar)
            yield state

    def _between_steps(self, state: TrainState, step: int) -> None:
        stopping = self.stop.reached(step)
        if stopping or (self.plan.every_steps and step % self.plan.every_steps == 0):
            self._check(state)
            self.checkpoints.save(step, state, {"seconds": self.seconds})
        if stopping:
            self._raise_stopped()

    def _show_loss(self, state: TrainState, loss: jax.Array, bar: Any) -> None:
        value = float(loss)
        bar.set_postfix_str(f"loss {value:.4g}", refresh=False)
        if not math.isfinite(value):
            self._check(state)

    def _check(self, state: TrainState) -> dict[str, Any]:
        """Return the metrics on the host; a non-finite term at any step ends the run before anything is saved."""
        metrics = to_host(state.metrics)
        first = {name.removeprefix("bad/"): int(step) for name, step in metrics.items() if name.startswith("bad/")}
        bad = {term: step for term, step in first.items() if step >= 0}
        if bad:
            raise UserError(self._divergence(*min(bad.items(), key=lambda item: item[1])))
        return metrics

    def _divergence(self, term: str, step: int) -> str:
        """Return the message for a loss term, or the gradient, that was not finite at `step` for the first time."""
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
            advice = f"no weight had changed yet, so the {self.stage.network}'s initial weights are the cause"
        return f"{name} stopped: the {what} was not finite at step {step}; {advice}"

    def _end_epoch(self, state: TrainState, step: int, rate: float) -> TrainState:
        metrics = self._check(state)
        steps = int(metrics["steps"])
        terms = {name.removeprefix("sum/"): float(metrics[name]) / steps for name in metrics if name.startswith("sum/")}
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
        state = state.replace(metrics=put_replicated(self.mesh, empty_metrics(self.stage.terms)))
        self.checkpoints.save(step, state, {"seconds": self.seconds}, top1=accuracy.get("top1"))
        self.log.epoch(record, epochs=self.stage.epochs)
        return state

    def _raise_stopped(self) -> None:
        self.checkpoints.wait()
        raise Stopped(self.stop.signum or signal.SIGTERM)
