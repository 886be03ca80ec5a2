"""What a run measures of its networks, with its images: accuracy, static ranges, payloads, images sent as files."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bottlefit_jax import data
from bottlefit_jax.evaluation import alternatives, payloads
from bottlefit_jax.evaluation.accuracy import percentages
from bottlefit_jax.evaluation.networks import calibrate, count_correct, create_eval_step, predict
from bottlefit_jax.evaluation.rates import training_images
from bottlefit_jax.evaluation.split_student import SplitStudent
from bottlefit_jax.experiment.inputs import Networks, Variables
from bottlefit_jax.files import write_text
from bottlefit_jax.recipe import Config
from bottlefit_jax.training import sharding
from bottlefit_jax.training.progress import RunLog
from bottlefit_jax.training.stages import Role

ANSWERS = "teacher_answers.json"  # the teacher's class of each evaluation image, where these have no labels


@dataclasses.dataclass(frozen=True)
class Measurements:
    """The networks and images of a run.

    Attributes:
        config: of the run.
        networks: a teacher, a student or both.
        train_source: None where nothing needs training images.
        eval_source: the evaluation images.
        mesh: of all devices; evaluation batches are split over it.
        log: of the run.
    """

    config: Config
    networks: Networks
    train_source: data.Source | None
    eval_source: data.Source
    mesh: Mesh
    log: RunLog

    def workers(self) -> dict[str, Any]:
        """Return how images are read, and this host's share of them, for `data`."""
        return {
            "workers": self.config.dataset.workers,
            "worker_type": self.config.dataset.worker_type,
            "shard_index": jax.process_index(),
            "shard_count": jax.process_count(),
        }

    def batches(
        self, source: data.Source, *, limit: int | None = None, all_hosts: bool = False
    ) -> Iterator[dict[str, np.ndarray]]:
        """Return this host's share of evenly spread images, or all hosts' images."""
        chosen, workers = self.config.dataset, self.workers()
        if all_hosts:
            workers.update(shard_index=0, shard_count=1)
        return data.eval_batches(
            source,
            batch_size=-(-self.config.eval_batch_size // self.mesh.size) * self.mesh.size,
            image_size=chosen.image_size,
            resize=chosen.resize or None,
            limit=limit,
            **workers,
        )

    def pixels(self) -> dict[str, Any]:
        """Return the keyword arguments of `normalise`."""
        return {"mean": self.networks.mean, "std": self.networks.std}

    def evaluate(self, role: Role, variables: Variables, batches: Any = None) -> dict[str, float]:
        """Return top-1 and top-5 on `batches`, or on all evaluation images."""
        return percentages(self.count_correct(role, variables, batches))

    def count_correct(self, role: Role, variables: Variables, batches: Any = None) -> dict[str, Any]:
        """Return the correct images among `batches`, or all evaluation images, as `networks.count_correct` does."""
        module, indices = self.networks.module(role), self.networks.class_indices
        eval_step = create_eval_step(module, mesh=self.mesh, class_indices=indices, **self.pixels())
        batches = self.batches(self.eval_source) if batches is None else batches
        return count_correct(eval_step, variables, batches, mesh=self.mesh, name=role)

    def calibrated(self, student: Variables) -> Variables:
        """Return the student with the measured range of its latents, where its quantiser has a static one."""
        bottleneck = self.networks.bottleneck
        if bottleneck["range"] != "static" or not bottleneck["bits"]:
            return student
        assert self.train_source is not None  # `open_training` opened it
        ranges = calibrate(
            self.networks.student,
            student,
            # Every host reads the same images, so that all measure the same range.
            self.batches(self.train_source, limit=self.config.student.calibration_images, all_hosts=True),
            per_channel=bottleneck["per"] == "channel",
            **self.pixels(),
        )
        return {**student, "ranges": sharding.put_replicated(self.mesh, {"quantizer": ranges})}

    def with_answers_of_teacher(self, workdir: Path) -> "Measurements":
        """Return the same with the teacher's answers as labels of the evaluation images, which have none of their own.

        Args:
            workdir: gets the answers as a file, for the export.
        """
        networks, source = self.networks, self.eval_source
        assert isinstance(source, data.Unlabelled)
        answers = predict(
            networks.teacher, networks.teacher_variables, self.batches(source), mesh=self.mesh, **self.pixels()
        )[: len(source)]
        if jax.process_index() == 0:
            write_text(workdir / ANSWERS, json.dumps(answers.tolist()) + "\n")
        named = [names[min(1, len(names) - 1)] for names in networks.labels]  # after a WordNet id, if there is one
        classes = named or [f"class {index}" for index in range(networks.num_classes)]
        return dataclasses.replace(self, eval_source=source.with_labels(answers, classes))

    def sent_as_files(self, teacher: Variables) -> list[alternatives.Alternative]:
        """Evaluate the teacher on images that were sent as files."""
        variables = sharding.put_replicated(self.mesh, teacher)
        limit = alternatives.image_limit(self.config.dataset.image_size)
        return alternatives.sent_as_files(
            lambda batches: self.evaluate(Role.TEACHER, variables, batches),
            self.batches(self.eval_source, limit=limit),
        )

    def send(self, student: Variables, teacher: Variables | None) -> payloads.PayloadResult:
        """Make rates from training images, and measure those that are worth having on all evaluation images.

        Args:
            student: with a quantiser.
            teacher: the rates lose so many points of its top-1; None where there is none.
        """
        networks, size = self.networks, self.config.dataset.image_size
        halves = SplitStudent(
            networks.student,
            student,
            bottleneck=networks.bottleneck,
            mesh=self.mesh,
            class_indices=networks.class_indices,
            **self.pixels(),
        )
        height, width = networks.student.latent_size((size, size))
        source = self.train_source or self.eval_source
        if source is self.eval_source:
            self.log.say("there are no training images: the tables of payloads are made from the evaluation images")
        limit = training_images((height, width, networks.bottleneck["channels"]))
        candidates = payloads.fit_ladder(halves, self.batches(source, limit=limit, all_hosts=True))

        def tried() -> Iterator[dict[str, np.ndarray]]:
            return self.batches(self.eval_source, limit=payloads.tried_limit(size))

        top1 = None if teacher is None else self.evaluate(Role.TEACHER, teacher, tried())["top1"]
        rates = payloads.choose_rates(halves, candidates, tried(), teacher_top1=top1)
        found = payloads.measure_payloads(halves, rates, self.batches(self.eval_source))
        return dataclasses.replace(found, tables_from=source.split)
