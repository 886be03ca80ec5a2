"""What all methods share: the teacher, the evaluation images, the devices."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from bottlefit_jax import data, lock, models
from bottlefit_jax.compare import designs  # noqa: F401  a method names its design
from bottlefit_jax.compare.methods import student_epochs
from bottlefit_jax.errors import UserError
from bottlefit_jax.experiment.inputs import Networks, create_networks, open_source
from bottlefit_jax.experiment.run import run_experiment
from bottlefit_jax.recipe import Config, bottleneck_options, has_new_classifier
from bottlefit_jax.training import sharding
from bottlefit_jax.training.loop import StopSignal


@dataclasses.dataclass(frozen=True)
class Setting:
    """A comparison's common ground.

    Attributes:
        config: with the teacher's weights named.
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
        """What `normalise` needs."""
        return {"mean": self.networks.mean, "std": self.networks.std}

    def batches(self, limit: int | None = None) -> Iterator[dict[str, np.ndarray]]:
        """The evaluation images as the networks see them: uint8, square."""
        chosen = self.config.dataset
        return data.eval_batches(
            self.source,
            batch_size=-(-self.config.eval_batch_size // self.mesh.size) * self.mesh.size,
            image_size=chosen.image_size,
            resize=chosen.resize or None,
            limit=limit,
            workers=chosen.workers,
            worker_type=chosen.worker_type,
        )

    @property
    def channels(self) -> int:
        """Of BottleFit's latent, where nothing else is asked for."""
        return self.networks.bottleneck["channels"]

    def student_config(self, change: Callable[[Config, str], None], *, seed: int, channels: int | None) -> Config:
        """The config of one training: a copy, changed by its method, with a latent of as many bytes as BottleFit's."""
        config = self.config.copy_and_resolve_references()
        config.seed = seed
        change(config, self.cut)
        config.student.bottleneck.channels = self._same_bytes(config, channels or self.channels)
        if config.checkpoint.select == "last":
            config.evaluate_every = student_epochs(config)  # only the end is in the table
        return config

    def _same_bytes(self, config: Config, channels: int) -> int:
        """How many channels have as many values as the latent that the comparison's config has with `channels`."""
        plan, given = {**bottleneck_options(config), "channels": channels}, self.networks.student
        any_channels = {**plan, "channels": given.cut_channels}  # the latent's height and width do not depend on them
        network = models.create(
            self.networks.name, num_classes=self.networks.num_classes, bottleneck=any_channels, **self.networks.options
        )
        if not network.design.encoder:
            return network.cut_channels  # it sends the feature as it is
        size = (self.image_size, self.image_size)
        return max(1, channels * math.prod(given.latent_size(size)) // math.prod(network.latent_size(size)))


def open_setting(config: Config, workdir: Path, stop: StopSignal) -> Setting:
    """Open the images, and train the teacher where the config names no weights and the workdir has none.

    Raises:
        UserError: anything that cannot be used; see `run_experiment`.
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
    """The folder of the teacher: the one that `bottlefit_jax.main` left in the workdir, or one trained now."""
    if (workdir / "teacher").is_dir():
        return workdir / "teacher"
    alone = config.copy_and_resolve_references()
    for name in ("stage1", "stage2"):
        alone.stages[name].epochs = 0
    folder = workdir / "compare" / "teacher"
    with lock.hold(workdir / "compare" / ".teacher.lock", f"the teacher in {workdir}", wait=True):
        if not (folder / "report.json").exists():
            run_experiment(alone, folder, stop=stop)
    return folder / "teacher"
