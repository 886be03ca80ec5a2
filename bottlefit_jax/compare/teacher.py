"""The methods that train nothing: the teacher on the device, or on the server behind images that are sent to it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.compare.setting import Setting
from bottlefit_jax.evaluation.image_bytes import decode_images, encode_images, jpeg_bytes
from bottlefit_jax.evaluation.networks import Batches, create_eval_step, evaluate
from bottlefit_jax.training import sharding


class TeacherEvaluation:
    """Evaluates the teacher on the images as they are, or compressed; compiled once."""

    def __init__(self, setting: Setting):
        """Put its weights onto the devices."""
        networks = setting.networks
        self._setting = setting
        self._variables = sharding.put_replicated(setting.mesh, networks.teacher_variables)
        self._step = create_eval_step(
            networks.teacher, mesh=setting.mesh, class_indices=networks.class_indices, **setting.pixels
        )

    def on_device(self) -> dict[str, Any]:
        """Return its accuracy on the images as they are: {"top1", "top5", "bytes"}."""
        return {**self._accuracy(self._setting.batches()), "bytes": {"mean": 0.0, "p95": 0.0}}

    def on_files(self, image_format: str, quality: int) -> dict[str, Any]:
        """Return its accuracy on images that were sent compressed, and their sizes.

        Args:
            image_format: Pillow's name.
            quality: on Pillow's scale.

        Returns:
            {"top1", "top5", "bytes"}.
        """
        sizes: list[int] = []

        def received() -> Iterator[dict[str, np.ndarray]]:
            for batch in self._setting.batches():
                files = encode_images(batch["image"], image_format=image_format, quality=quality)
                sizes.extend(len(file) for file, real in zip(files, batch["mask"], strict=True) if real)
                yield {**batch, "image": decode_images(files)}

        return {**self._accuracy(received()), "bytes": mean_and_p95(np.asarray(sizes))}

    def _accuracy(self, batches: Batches) -> dict[str, float]:
        return evaluate(self._step, self._variables, batches, mesh=self._setting.mesh)


def mean_and_p95(sizes: np.ndarray) -> dict[str, float]:
    """Return the mean and the 95th percentile of sizes in bytes: {"mean", "p95"}."""
    return {"mean": float(sizes.mean()), "p95": float(np.percentile(sizes, 95))}


def last_fifth(metrics: Path | None) -> str:
    """Write what the last fifth of the teacher's epochs added to its top-1, by the log of its training.

    Args:
        metrics: of the run that trained it, with a line of JSON for each epoch; None where it was not trained here.

    Returns:
        "0.85 points (97.18 % after epoch 14 of 18, 98.03 % at the end)", or "unknown".
    """
    if metrics is None or not metrics.exists():
        return "unknown"
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    epochs = max((record["epoch"] for record in records if record["stage"] == "teacher"), default=0)
    top1 = {record["epoch"]: record["top1"] for record in records if record["stage"] == "teacher" and "top1" in record}
    before = max((epoch for epoch in top1 if epoch <= 0.8 * epochs), default=None)
    if before is None or epochs not in top1:
        return "unknown"
    gained = top1[epochs] - top1[before]
    return (
        f"{gained:.2f} points ({top1[before]:.2f} % after epoch {before} of {epochs}, {top1[epochs]:.2f} % at the end)"
    )


def jpeg_mean(setting: Setting) -> float:
    """Return the mean bytes of the images as JPEG at quality 95, with which the reports compare."""
    return float(np.concatenate([jpeg_bytes(batch["image"][batch["mask"]]) for batch in setting.batches()]).mean())
