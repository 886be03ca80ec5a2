"""What a user could do without a bottleneck: run the teacher on the device, or send the image as a JPEG or WebP file.

Each is a row beside the student: bytes, accuracy with its 95 % interval, and what the device computes. The accuracy of
files is the teacher's on the decoded images; at most `MOST_IMAGES` images are taken, spread over all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from PIL import features

from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.accuracy import wilson_interval
from bottlefit_jax.evaluation.cost import macs
from bottlefit_jax.evaluation.image_bytes import decode_images, encode_images

Batch = dict[str, np.ndarray]
FORMATS = {"JPEG": "jpg", "WEBP": "webp"}  # Pillow's name of a format -> of the feature that it needs
FILES = tuple(name.lower() for name in FORMATS)  # their methods
TITLES = {"local": "teacher on the device", "jpeg": "JPEG", "webp": "WebP", "student": "student"}
QUALITIES = (5, 20, 50, 95)
MOST_IMAGES = 1000
MOST_BYTES = 1 << 28  # of decoded images, which stay in memory while all qualities are measured


@dataclasses.dataclass(frozen=True)
class Alternative:
    """A row: one way to classify an image, and what it costs.

    Attributes:
        method: a key of `TITLES`.
        setting: "quality 50", or "" where there is no choice.
        sent: mean bytes of an image.
        top1: percent.
        images: how many were evaluated.
        device_macs: multiply-adds of the network's part on the device.
    """

    method: str
    setting: str
    sent: float
    top1: float
    images: int
    device_macs: int

    @property
    def name(self) -> str:
        """What a reader calls it: "JPEG, quality 50"."""
        return ", ".join(part for part in (TITLES[self.method], self.setting) if part)

    @property
    def interval95(self) -> list[float]:
        """The 95 % interval of top-1."""
        return interval(self.top1, self.images)

    def to_json(self) -> dict[str, Any]:
        """Return its row in `report.json`."""
        return {
            "method": self.method,
            "setting": self.setting,
            "bytes": self.sent,
            "top1": self.top1,
            "top1_interval95": self.interval95,
            "images": self.images,
            "device_macs": self.device_macs,
        }


def image_limit(image_size: int) -> int:
    """Return how many images to send as files; fewer where they are large."""
    return max(1, min(MOST_IMAGES, MOST_BYTES // (3 * image_size * image_size)))


def sent_as_files(
    accuracy: Callable[[Iterable[Batch]], Mapping[str, float]], batches: Iterable[Batch]
) -> list[Alternative]:
    """Measure the teacher on images that were sent as files, in every format and quality.

    Args:
        accuracy: batches -> {"top1", "top5"} in percent, over all hosts.
        batches: this host's, from `data.eval_batches`, no more than `image_limit` images.

    Returns:
        A row for each format and quality; none for a format that this Pillow cannot write.

    Raises:
        UserError: there are no images.
    """
    kept, rows = list(batches), []
    for image_format in (name for name, feature in FORMATS.items() if features.check(feature)):
        for quality in QUALITIES:
            sizes, received = [], []
            for batch in kept:
                files = encode_images(batch["image"], image_format=image_format, quality=quality)
                sizes += [len(file) for file, real in zip(files, batch["mask"], strict=True) if real]
                received.append({**batch, "image": decode_images(files)})
            top1 = accuracy(received)["top1"]
            mean, count = _over_hosts(sizes)
            row = Alternative(image_format.lower(), f"quality {quality}", mean, top1, images=count, device_macs=0)
            rows.append(row)
    return rows


def interval(top1: float, images: int) -> list[float]:
    """Return the 95 % interval of an accuracy in percent."""
    return list(wilson_interval(round(top1 * images / 100), images))


def network_macs(network: Any, image_size: int) -> int:
    """Count the multiply-adds of a whole network for one square image; `network` is a `models.Network`."""
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), image)
    return macs(lambda given, x: network.apply(given, x)[0], variables, image)


def as_good(rows: Sequence[Alternative]) -> list[Alternative]:
    """Return the files with no more bytes than the student and an accuracy that is not measurably lower."""
    student = next((row for row in rows if row.method == "student"), None)
    if student is None:
        return []
    return [
        row for row in rows if row.method in FILES and row.sent <= student.sent and row.interval95[1] >= student.top1
    ]


def _over_hosts(sizes: Sequence[int]) -> tuple[float, int]:
    """Return the mean and the number of sizes over all hosts."""
    sums = multihost_utils.process_allgather(np.asarray([sum(sizes), len(sizes)], np.float32))
    total, count = np.asarray(sums, np.float64).reshape(-1, 2).sum(0)
    if not count:
        raise UserError("there are no images to send as files")
    return float(total / count), int(count)
