"""One experiment, from a config to a report: prepares, runs the stages, measures what came out."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from bottlefit_jax import data
from bottlefit_jax.evaluation import alternatives
from bottlefit_jax.evaluation.evaluate import calibrate, create_eval_step, evaluate
from bottlefit_jax.experiment.inputs import (
    Networks,
    Variables,
    claim_workdir,
    create_networks,
    describe_data,
    hold_workdir,
    needs_calibration,
    open_source,
    open_training,
    stages_to_run,
)
from bottlefit_jax.experiment.results import write_results
from bottlefit_jax.models import folded_norms, with_body_of, with_measured_norms, with_stem_of, with_tail_of
from bottlefit_jax.recipe import Config, check_config
from bottlefit_jax.training import checkpoint, loop, optimizer, sharding, stages, step
from bottlefit_jax.training.progress import RunLog


def run_experiment(
    config: Config, workdir: Path, *, command: str | None = None, stop: loop.StopSignal | None = None
) -> dict[str, Any]:
    """Trains what `config` asks for, going on where `workdir` already holds it, and writes the report.

    Where it asks for no training, the networks that it names are evaluated as they are.

    Args:
        config: from a file in `configs/`, locked.
        workdir: created where it is not there.
        command: what the person typed, for the report.
        stop: asked after every step; None: one of its own.

    Returns:
        The report, as in `workdir/report.json`.

    Raises:
        UserError: anything in config, data or workdir that cannot be used; before any compilation where that is
            possible.
        loop.Stopped: a signal came; everything is saved.
    """
    check_config(config)
    eval_source = open_source(config, "val")
    networks = create_networks(config, eval_source.class_names)
    for name, declared in stages.STAGES.items():  # every mistake in a stage shows now, not when its turn comes
        if getattr(networks, declared.network) is not None:
            _stage(config, networks, name)
    train_source = open_training(config, networks, eval_source)
    mesh = sharding.create_mesh(*(config.stages[name].batch_size for name in stages_to_run(config)))
    eval_batch_size = -(-config.eval_batch_size // mesh.size) * mesh.size
    with hold_workdir(workdir):
        claim_workdir(workdir, config)
        log = RunLog(workdir, primary=jax.process_index() == 0)
        log.say(sharding.describe(mesh))
        for line in describe_data(networks, eval_source, train_source):
            log.say(line)
        experiment = _Experiment(
            config, workdir, networks, train_source, eval_source, mesh, eval_batch_size, log, stop or loop.StopSignal()
        )
        try:
            return experiment.run(command)
        finally:
            log.close()


def _stage(config: Config, networks: Networks, name: str) -> stages.Stage:
    module = getattr(networks, stages.STAGES[name].network)
    drift = config.frozen_statistics == "drift"
    return stages.create_stage(name, config.stages[name], parts=module.parts, matched=module.matched, drift=drift)


@dataclasses.dataclass
class _Experiment:
    """What `run` has opened; its methods are the steps that follow."""

    config: Config
    workdir: Path
    networks: Networks
    train_source: Any  # a data.Source, or None where nothing is trained or calibrated
    eval_source: data.Source
    mesh: Mesh
    eval_batch_size: int
    log: RunLog
    stop: loop.StopSignal
    eval_steps: dict[str, Any] = dataclasses.field(default_factory=dict)

    def run(self, command: str | None) -> dict[str, Any]:
        """Trains, evaluates, reports."""
        networks, summaries = self.networks, []
        teacher, student = networks.teacher_variables, networks.student_variables
        if networks.teacher is not None and teacher is None:
            teacher = self._initial(networks.teacher, 0)
            if networks.teacher_body is not None:
                teacher = with_body_of(networks.teacher_body, teacher, networks.teacher)
            result = self._train("teacher", teacher, {})
            teacher = result.variables
            summaries.append(result.summary)
            self._keep("teacher", teacher, None)
        if networks.student is not None:
            if student is None:
                student = with_tail_of(teacher or {}, self._initial(networks.student, 1))
                if self.config.student.stem == "teacher":
                    student = with_stem_of(teacher or {}, student, networks.student)
            student = self._finished(student, teacher, summaries)
            self._keep("student", student, networks.bottleneck)
        return self._report(teacher, student, summaries, command)

    def _finished(self, student: Variables, teacher: Variables | None, summaries: list[dict[str, Any]]) -> Variables:
        """The student after its stages, its static range measured; `summaries` grows by theirs."""
        on_mesh = {} if teacher is None else sharding.put_replicated(self.mesh, teacher)
        names = [name for name in stages_to_run(self.config) if name != "teacher"]
        for name in names:
            result = self._train(name, student, on_mesh)
            student = result.variables
            summaries.append(result.summary)
        return self._calibrated(student) if names or needs_calibration(student) else student

    def _initial(self, module: nn.Module, index: int) -> Variables:
        size = self.config.dataset.image_size
        key = jax.random.fold_in(jax.random.key(self.config.seed), index)
        return sharding.to_host(jax.jit(module.init)(key, jnp.zeros((1, size, size, 3))))

    def _train(self, name: str, variables: Variables, teacher_variables: Variables) -> loop.Result:
        config, settings = self.config, self.config.stages[name]
        stage = _stage(config, self.networks, name)
        module = getattr(self.networks, stage.network)
        steps_per_epoch = data.steps_per_epoch(self.train_source, stage.batch_size)
        schedule = optimizer.create_schedule(
            settings.schedule,
            learning_rate=settings.learning_rate,
            epochs=settings.epochs,
            steps_per_epoch=steps_per_epoch,
            milestones=settings.milestones,
            gamma=settings.gamma,
            warmup_epochs=settings.warmup_epochs,
        )
        tx = optimizer.create_optimizer(
            settings.optimizer, schedule=schedule, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        if folded_norms(variables, stage.trained):
            pixels = self._pixels()
            batches = self._eval_batches(self.train_source, limit=config.student.calibration_images, alone=True)
            images = ((step.normalise(jnp.asarray(batch["image"]), **pixels), batch["mask"]) for batch in batches)
            variables = with_measured_norms(module, variables, images, parts=stage.trained)
        teacher = self.networks.teacher if stage.needs_teacher else None
        train_step = step.create_train_step(
            stage, module=module, teacher=teacher, tx=tx, mesh=self.mesh, **self._pixels()
        )
        index = list(stages.STAGES).index(name)
        plan = loop.Plan(
            steps_per_epoch=steps_per_epoch,
            every_steps=config.checkpoint.every_steps,
            schedule=schedule,
            batches=lambda start: self._train_batches(stage.batch_size, index, start),
            evaluate=lambda new: self._evaluate(module, self._calibrated(new)),
            evaluate_every=config.evaluate_every,
            select=config.checkpoint.select,
        )
        checkpoints = checkpoint.StageCheckpoints(self.workdir / "checkpoints" / name)
        try:
            return loop.run_stage(
                stage,
                plan,
                step.initial_state(stage, variables, tx=tx),
                train_step=train_step,
                teacher_variables=teacher_variables if stage.needs_teacher else {},
                key=sharding.put_replicated(self.mesh, jax.random.key(config.seed * len(stages.STAGES) + index)),
                mesh=self.mesh,
                checkpoints=checkpoints,
                log=self.log,
                stop=self.stop,
            )
        finally:
            checkpoints.close()

    def _train_batches(self, batch_size: int, index: int, start: int) -> Iterator[dict[str, np.ndarray]]:
        chosen = self.config.dataset
        batches = data.train_batches(
            self.train_source,
            batch_size=batch_size,
            image_size=chosen.image_size,
            seed=self.config.seed * len(stages.STAGES) + index,
            start_step=start,
            crop_scale=tuple(chosen.crop_scale),
            flip=chosen.flip,
            **self._workers(),
        )
        return (self._relabelled(batch) for batch in batches)

    def _relabelled(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Labels as columns of the logits, where those have other classes too."""
        if self.networks.class_indices is None:
            return batch
        return {**batch, "label": np.asarray(self.networks.class_indices, np.int32)[batch["label"]]}

    def _workers(self) -> dict[str, Any]:
        return {
            "workers": self.config.dataset.workers,
            "worker_type": self.config.dataset.worker_type,
            "shard_index": jax.process_index(),
            "shard_count": jax.process_count(),
        }

    def _eval_batches(
        self, source: data.Source, *, limit: int | None = None, alone: bool = False
    ) -> Iterator[dict[str, np.ndarray]]:
        chosen, workers = self.config.dataset, self._workers()
        if alone:
            workers.update(shard_index=0, shard_count=1)
        return data.eval_batches(
            source,
            batch_size=self.eval_batch_size,
            image_size=chosen.image_size,
            resize=chosen.resize or None,
            limit=limit,
            **workers,
        )

    def _pixels(self) -> dict[str, Any]:
        return {"mean": self.networks.mean, "std": self.networks.std}

    def _evaluate(self, module: nn.Module, variables: Variables, batches: Any = None) -> dict[str, float]:
        """Top-1 and top-5 on `batches`, or all evaluation images; a compiled step is kept for each network."""
        name = "teacher" if module is self.networks.teacher else "student"
        if name not in self.eval_steps:
            indices = self.networks.class_indices
            self.eval_steps[name] = create_eval_step(module, mesh=self.mesh, class_indices=indices, **self._pixels())
        batches = self._eval_batches(self.eval_source) if batches is None else batches
        return evaluate(self.eval_steps[name], variables, batches, mesh=self.mesh, name=name)

    def _calibrated(self, student: Variables) -> Variables:
        """The student with the range of its latents, where its quantiser goes by a calibrated one."""
        if "ranges" not in student:
            return student
        ranges = calibrate(
            self.networks.student,
            sharding.to_host(student),
            # Every host looks at the same images, so that all come to the same range.
            self._eval_batches(self.train_source, limit=self.config.student.calibration_images, alone=True),
            per_channel=self.networks.bottleneck["per"] == "channel",
            **self._pixels(),
        )
        return {**student, "ranges": sharding.put_replicated(self.mesh, {"quantizer": ranges})}

    def _keep(self, name: str, variables: Variables, bottleneck: dict[str, Any] | None) -> None:
        """Write a finished network to `workdir/name`, from where another config, or the export, take it."""
        networks = self.networks
        meta = {
            "name": networks.name,
            "options": networks.options,
            "num_classes": networks.num_classes,
            "bottleneck": bottleneck,
            "labels": list(networks.labels),
            "image_size": self.config.dataset.image_size,
            "resize": self.config.dataset.resize,
            "mean": list(networks.mean),
            "std": list(networks.std),
        }
        checkpoint.save_variables(self.workdir / name, variables, meta)

    def _sent_as_files(self, teacher: Variables) -> list[alternatives.Alternative]:
        """What the teacher makes of images that were sent as files."""
        variables = sharding.put_replicated(self.mesh, teacher)
        limit = alternatives.image_limit(self.config.dataset.image_size)
        return alternatives.sent_as_files(
            lambda batches: self._evaluate(self.networks.teacher, variables, batches),
            self._eval_batches(self.eval_source, limit=limit),
        )

    def _report(
        self,
        teacher: Variables | None,
        student: Variables | None,
        summaries: list[dict[str, Any]],
        command: str | None,
    ) -> dict[str, Any]:
        accuracy = {
            name: self._evaluate(getattr(self.networks, name), sharding.put_replicated(self.mesh, variables))
            for name, variables in (("teacher", teacher), ("student", student))
            if variables is not None
        }
        # where there is no student to compare with, a teacher of ImageNet would be evaluated eight times for nothing
        files = [] if teacher is None or student is None else self._sent_as_files(teacher)
        for source in (self.train_source, self.eval_source):
            if source is not None and (bad := source.bad_images()):
                self.log.say(f"skipped {len(bad)} of {len(source)} images of {source.split}, first {bad[0]}")
        if jax.process_index() != 0:
            return {}
        return write_results(
            self.workdir,
            self.config,
            networks=self.networks,
            student_variables=None if student is None else sharding.to_host(student),
            accuracy=accuracy,
            files=files,
            images=self._eval_batches(self.eval_source, alone=True),
            class_names=self.eval_source.class_names,
            stages=summaries,
            history=self.log.records,
            command=command,
        )
