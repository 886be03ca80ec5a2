"""What all methods of a comparison share: the teacher, the evaluation images, the devices."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from bottlefit_jax import data, lock, models
from bottlefit_jax.compare import designs  # noqa: F401  a method names its design
from bottlefit_jax.compare.methods import Method, student_epochs
from bottlefit_jax.errors import UserError
from bottlefit_jax.experiment.images import open_source
from bottlefit_jax.experiment.inputs import Networks, create_networks
from bottlefit_jax.experiment.run import run_experiment
from bottlefit_jax.recipe import Config, bottleneck_options, has_new_classifier
from bottlefit_jax.training import sharding
from bottlefit_jax.training.loop import StopSignal


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all methods of a comparison share.

    Attributes:
        config: names the teacher's weights.
        source: the evaluation images.
        networks: the teacher, and a student that is not trained.
        mesh: of all devices.
    """

    config: Config
    source: data.Source
    networks: Networks
    mesh: Mesh

    @property
    def cut(self) -> str:
        """The feature at which every student is cut."""
        return str(self.networks.student.cut)

    @property
    def image_size(self) -> int:
        """Side of the images, pixels."""
        return self.config.dataset.image_size

    @property
    def pixels(self) -> dict[str, Any]:
        """The keyword arguments of `normalise`."""
        return {"mean": self.networks.mean, "std": self.networks.std}

    def batches(self, limit: int | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Yield the evaluation images as the networks see them: uint8, square."""
        dataset = self.config.dataset
        return data.eval_batches(
            self.source,
            batch_size=-(-self.config.eval_batch_size // self.mesh.size) * self.mesh.size,
            image_size=dataset.image_size,
            resize=dataset.resize or None,
            limit=limit,
            workers=dataset.workers,
            worker_type=dataset.worker_type,
        )

    @property
    def channels(self) -> int:
        """The channels of BottleFit's latent in the config."""
        return self.networks.bottleneck["channels"]

    def student_config(self, method: Method, *, seed: int, channels: int | None) -> Config:
        """Make the config of one training.

        Args:
            method: one that trains.
            seed: of the training.
            channels: of the BottleFit latent whose size this latent gets, unless it has a size of its own; None for the
                config's.
        """
        config = self.config.copy_and_resolve_references()
        config.seed = seed
        cut = self.cut
        if method.cut in self.networks.student.feature_names:
            cut = config.student.bottleneck.cut = method.cut
        method.apply(config, cut)
        config.student.bottleneck.channels = method.channels or self._same_bytes(config, channels or self.channels)
        if config.checkpoint.select == "last":
            config.evaluate_every = student_epochs(config)  # the table has the last epoch alone
        return config

    def _same_bytes(self, config: Config, channels: int) -> int:
        """Return how many channels have as many values as the latent of the comparison's config with `channels`."""
        student = self.networks.student
        options = {**bottleneck_options(config), "channels": student.cut_channels}  # height and width depend on none
        network = models.create(
            self.networks.name, num_classes=self.networks.num_classes, bottleneck=options, **self.networks.options
        )
        if not network.design.encoder:
            return network.cut_channels  # it sends the feature as it is
        size = (self.image_size, self.image_size)
        return max(1, channels * math.prod(student.latent_size(size)) // math.prod(network.latent_size(size)))


def open_setting(config: Config, workdir: Path, stop: StopSignal) -> Setting:
    """Open the images, and train the teacher where the config names no weights and the workdir has none.

    Raises:
        UserError: anything that is invalid; see `run_experiment`.
        loop.Stopped: a signal came while the teacher was being trained.
    """
    if config.student.weights:
        raise UserError("config.student.weights is set; a comparison trains its students itself")
    if student_epochs(config) < 1:
        raise UserError("config.stages.stage1 and stage2 have 0 epochs; a comparison trains students")
    config = config.copy_and_resolve_references()
    if not config.teacher.weights or has_new_classifier(config):
        config.teacher.weights = str(_teacher(config, workdir, stop))
        config.teacher.classifier = "given"
    source = open_source(config, "val")
    networks = create_networks(config, source.class_names)
    sizes = [config.stages[name].batch_size for name in ("stage1", "stage2")]
    return Setting(config, source, networks, sharding.create_mesh(*sizes))


def _teacher(config: Config, workdir: Path, stop: StopSignal) -> Path:
    """Return the folder of the teacher: the one that `bottlefit_jax.main` left in the workdir, or one trained now."""
    if (workdir / "teacher").is_dir():
        return workdir / "teacher"
    teacher_only = config.copy_and_resolve_references()
    for name in ("stage1", "stage2"):
        teacher_only.stages[name].epochs = 0
    folder = workdir / "compare" / "teacher"
    with lock.hold(workdir / "compare" / ".teacher.lock", f"the teacher in {workdir}", wait=True):
        if not (folder / "report.json").exists():
            run_experiment(teacher_only, folder, stop=stop)
    return folder / "teacher"
