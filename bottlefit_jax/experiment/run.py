"""Runs an experiment, from its config to its report: opens the inputs, trains the stages, evaluates the networks."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bottlefit_jax import data
from bottlefit_jax.config_check import check_config
from bottlefit_jax.evaluation.accuracy import percentages
from bottlefit_jax.experiment.images import class_names, describe_data, images_of_stage, open_source, open_training
from bottlefit_jax.experiment.inputs import (
    Networks,
    Variables,
    claim_workdir,
    create_networks,
    create_stages,
    hold_workdir,
    needs_calibration,
    stages_to_run,
)
from bottlefit_jax.experiment.measurements import Measurements
from bottlefit_jax.experiment.results import write_results
from bottlefit_jax.experiment.streams import stream_key, stream_seed
from bottlefit_jax.models import folded_norms, with_body_of, with_measured_norms, with_stem_of, with_tail_of
from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.recipe import Config, evaluates_agreement
from bottlefit_jax.training import checkpoint, loop, optimizer, sharding, step
from bottlefit_jax.training.network_meta import NetworkMeta
from bottlefit_jax.training.progress import RunLog
from bottlefit_jax.training.stages import Role, Stage


def run_experiment(
    config: Config, workdir: Path, *, command: str | None = None, stop: loop.StopRequest | None = None
) -> dict[str, Any]:
    """Train what `config` asks for, resuming where `workdir` already holds it, and write the report.

    Where it asks for no training, the networks that it names are evaluated as they are. It can be called from any
    thread, and leaves signal handlers alone.

    Args:
        config: from a file in `configs/`, locked.
        workdir: created where it does not exist.
        command: the command line, for the report.
        stop: checked after every step; another thread may request it. None: the run cannot be stopped that way.

    Returns:
        The report, as in `workdir/report.json`; {} in processes other than the first of several hosts'.

    Raises:
        UserError: an invalid value in config, data or workdir; before any compilation where that is possible.
        loop.Stopped: a stop was requested; everything is saved.
    """
    check_config(config)
    eval_source = open_source(config, "val")
    networks = create_networks(config, **class_names(config, eval_source))
    stages = create_stages(config, networks)
    train_source = open_training(config, networks, eval_source)
    mesh = sharding.create_mesh(*(config.stages[name].batch_size for name in stages_to_run(config)))
    with hold_workdir(workdir):
        claim_workdir(workdir, config)
        measure = "agreement" if evaluates_agreement(config) else "top-1"
        log = RunLog(workdir, primary=jax.process_index() == 0, measure=measure)
        log.say(sharding.describe(mesh))
        for line in describe_data(networks, eval_source, train_source):
            log.say(line)
        measured = Measurements(config, networks, train_source, eval_source, mesh, log)
        if isinstance(eval_source, data.Unlabelled):
            measured = measured.with_answers_of_teacher(workdir)
        experiment = _Experiment(
            config=config,
            workdir=workdir,
            networks=networks,
            stages=stages,
            train_source=train_source,
            eval_source=measured.eval_source,
            measured=measured,
            mesh=mesh,
            log=log,
            stop=stop or loop.StopRequest(),
        )
        try:
            return experiment.run(command)
        finally:
            log.close()


@dataclasses.dataclass(frozen=True)
class _Experiment:
    """The inputs that `run_experiment` has opened; the methods are the steps that follow."""

    config: Config
    workdir: Path
    networks: Networks
    stages: dict[str, Stage]
    train_source: Any  # a data.Source, or None where nothing needs training images
    eval_source: data.Source
    measured: Measurements
    mesh: Mesh
    log: RunLog
    stop: loop.StopRequest

    def run(self, command: str | None) -> dict[str, Any]:
        """Train, evaluate and report."""
        networks, summaries = self.networks, []
        teacher, student = networks.teacher_variables, networks.student_variables
        if networks.teacher is not None and teacher is None:
            teacher = self._initial(Role.TEACHER)
            if networks.teacher_body is not None:
                teacher = with_body_of(networks.teacher_body, teacher, networks.teacher)
            result = self._train("teacher", teacher, {})
            teacher = result.variables
            summaries.append(result.summary)
            self._save_network(Role.TEACHER, teacher, None)
        if networks.student is not None:
            if student is None:
                student = with_tail_of(teacher or {}, self._initial(Role.STUDENT))
                if self.config.student.stem == "teacher":
                    student = with_stem_of(teacher or {}, student, networks.student)
            student = self._train_student(student, teacher, summaries)
            self._save_network(Role.STUDENT, student, networks.bottleneck)
        return self._report(teacher, student, summaries, command)

    def _train_student(
        self, student: Variables, teacher: Variables | None, summaries: list[dict[str, Any]]
    ) -> Variables:
        """Return the student after its stages, its static range calibrated; append their rows to `summaries`."""
        on_mesh = {} if teacher is None else sharding.put_replicated(self.mesh, teacher)
        names = [name for name in stages_to_run(self.config) if self.stages[name].network is Role.STUDENT]
        if not names and not needs_calibration(student):
            return student
        if not self.networks.bottleneck["quantize_training"]:
            # Training does not use it, and checkpoints from before a static range was the default have none.
            student = {key: value for key, value in student.items() if key != "ranges"}
        for name in names:
            result = self._train(name, student, on_mesh)
            params = result.variables["params"]
            kept = {part: params[part] for part in params if part != "density"}  # nothing of it is shipped
            student = {**result.variables, "params": kept}
            summaries.append(result.summary)
        return self.measured.calibrated(student)

    def _initial(self, role: Role) -> Variables:
        """Return a network's random initial weights, on the host."""
        size = self.config.dataset.image_size
        key = stream_key(self.config.seed, f"{role} weights")
        return sharding.to_host(jax.jit(self.networks.module(role).init)(key, jnp.zeros((1, size, size, 3))))

    def _train(self, name: str, variables: Variables, teacher_variables: Variables) -> loop.Result:
        """Run one stage."""
        config, settings, stage = self.config, self.config.stages[name], self.stages[name]
        module, student = self.networks.training_module(stage.network), stage.network is Role.STUDENT
        measured = self.measured
        steps_per_epoch = data.steps_per_epoch(images_of_stage(config, name, self.train_source), stage.batch_size)
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
            settings.optimizer,
            schedule=schedule,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            paces=self.networks.module(stage.network).paces,
        )
        variables = self._with_training_parts(stage, self._with_norms(stage, variables))
        teacher = self.networks.teacher if stage.needs_teacher else None
        train_step = step.create_train_step(
            stage, module=module, teacher=teacher, tx=tx, mesh=self.mesh, **self.measured.pixels()
        )
        plan = loop.Plan(
            steps_per_epoch=steps_per_epoch,
            every_steps=config.checkpoint.every_steps,
            schedule=schedule,
            batches=lambda start: self._train_batches(stage, start),
            evaluate=lambda new: measured.evaluate(stage.network, measured.calibrated(new) if student else new),
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
                key=sharding.put_replicated(self.mesh, stream_key(config.seed, f"{name} steps")),
                mesh=self.mesh,
                checkpoints=checkpoints,
                log=self.log,
                stop=self.stop,
            )
        finally:
            checkpoints.close()

    def _with_norms(self, stage: Stage, variables: Variables) -> Variables:
        """Return variables in which the norms that a conversion folded into convolutions are there to be trained."""
        if not folded_norms(variables, stage.in_training):
            return variables
        limit, pixels = self.config.student.calibration_images, self.measured.pixels()
        batches = self.measured.batches(self.train_source, limit=limit, all_hosts=True)
        images = ((normalise(jnp.asarray(batch["image"]), **pixels), batch["mask"]) for batch in batches)
        return with_measured_norms(self.networks.module(stage.network), variables, images, parts=stage.in_training)

    def _with_training_parts(self, stage: Stage, variables: Variables) -> Variables:
        """Return variables with new parameters of the parts that only training has, where the stage trains them."""
        module = self.networks.training_module(stage.network)
        if not set(module.training_parts) & set(stage.trained):
            return variables
        size = self.config.dataset.image_size
        keys = {name: stream_key(self.config.seed, f"density {name}") for name in ("params", "steps")}
        new = sharding.to_host(jax.jit(module.init)(keys, jnp.zeros((1, size, size, 3))))
        added = {part: new["params"][part] for part in module.training_parts}
        return {**variables, "params": {**variables["params"], **added}}

    def _train_batches(self, stage: Stage, start: int) -> Iterator[dict[str, np.ndarray]]:
        chosen = self.config.dataset
        batches = data.train_batches(
            images_of_stage(self.config, stage.name, self.train_source),
            batch_size=stage.batch_size,
            image_size=chosen.image_size,
            seed=stream_seed(self.config.seed, f"{stage.name} data"),
            start_step=start,
            crop_scale=tuple(chosen.crop_scale),
            flip=chosen.flip,
            **self.measured.workers(),
        )
        return (self._relabelled(batch) for batch in batches)

    def _relabelled(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return a batch whose labels are columns of the logits, where those have other classes too."""
        if self.networks.train_indices is None:
            return batch
        return {**batch, "label": np.asarray(self.networks.train_indices, np.int32)[batch["label"]]}

    def _save_network(self, role: Role, variables: Variables, bottleneck: dict[str, Any] | None) -> None:
        """Write a finished network to `workdir/ROLE`, for other configs and the export."""
        networks = self.networks
        meta = NetworkMeta(
            name=networks.name,
            options=networks.options,
            num_classes=networks.num_classes,
            bottleneck=bottleneck,
            labels=networks.labels,
            image_size=self.config.dataset.image_size,
            resize=self.config.dataset.resize,
            mean=networks.mean,
            std=networks.std,
        )
        checkpoint.save_variables(self.workdir / role, variables, meta)

    def _report(
        self,
        teacher: Variables | None,
        student: Variables | None,
        summaries: list[dict[str, Any]],
        command: str | None,
    ) -> dict[str, Any]:
        accuracy: dict[str, dict[str, float]] = {}
        by_class: dict[str, Sequence[int]] = {}
        payloads = None
        if student is not None and self.networks.bottleneck["bits"]:
            payloads = self.measured.send(student, teacher)
            accuracy[Role.STUDENT] = {"top1": payloads.default.top1, "top5": payloads.default.top5}
            by_class[Role.STUDENT] = payloads.by_class
        for role, variables in ((Role.TEACHER, teacher), (Role.STUDENT, student)):
            if variables is not None and role not in accuracy:
                counts = self.measured.count_correct(role, variables)
                accuracy[role], by_class[role] = percentages(counts), counts["by_class"].tolist()
        # Without a student to compare with, eight more evaluations of the teacher would serve nothing.
        files = [] if teacher is None or student is None else self.measured.sent_as_files(teacher)
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
            by_class=by_class,
            payloads=payloads,
            files=files,
            images=self.measured.batches(self.eval_source, all_hosts=True),
            class_names=self.eval_source.class_names,
            stages=summaries,
            history=self.log.records,
            command=command,
        )
