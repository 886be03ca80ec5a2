"""The report of a run as dataclasses. `to_json` gives `report.json`, whose keys other people's tools read.

Only measured numbers are attributes; what follows from them (savings, drops, intervals) is computed here. All
accuracies are top-1 and top-5 in percent, all sizes bytes per image. Of evaluation images without labels the teacher's
answers are the labels: `top1` is then the share of images that get the teacher's answer, `report.json` has it as
`agreement`, and null for every accuracy.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax

import bottlefit_jax
from bottlefit_jax.evaluation.alternatives import Alternative, interval
from bottlefit_jax.evaluation.classes import ClassResult
from bottlefit_jax.evaluation.image_bytes import saving_percent
from bottlefit_jax.evaluation.payloads import RateResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkResult:
    """A network over the evaluation images.

    Attributes:
        name: the model's, for a student with its bottleneck.
        top1, top5: percent.
        images: how many were evaluated.
        classes: how many it chooses from; with five or fewer, top-5 is always 100 %.
        macs: multiply-adds on the device: of the whole teacher, or of a student's encoder.
    """

    name: str
    top1: float
    top5: float
    images: int
    classes: int
    macs: int

    def __post_init__(self) -> None:
        """Refuse accuracies that are no percentages.

        Raises:
            ValueError: a bug of ours.
        """
        for key in ("top1", "top5"):
            if not 0 <= getattr(self, key) <= 100:  # NaN too
                raise ValueError(f"{key} of {self.name} is {getattr(self, key)!r}, not a percentage")

    @property
    def interval95(self) -> list[float]:
        """The 95 % interval of top-1."""
        return interval(self.top1, self.images)

    def to_json(self) -> dict[str, Any]:
        """Return its part of `report.json`."""
        accuracy = {"name": self.name, "top1": self.top1, "top5": self.top5}
        return {**accuracy, "images": self.images, "top1_interval95": self.interval95, "classes": self.classes}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentResult(NetworkResult):
    """A student over the evaluation images, and what it costs.

    Attributes:
        bits: per value of the latent; None where it is sent as float32.
        latent_shape: (h, w, c) of one image's latent.
        payload: mean bytes of an image's payload, at the default rate; `top1` and `top5` are of the same payloads.
        rates: all rates, from the most bytes to the fewest; empty where the latent is sent as float32.
        default_rate: the id of one of them; None without rates.
        tables_from: the split of the images from which the tables of the rates were made; None without rates.
        float_top1: top-1 without a quantiser, percent.
        params: parameters of the encoder.
    """

    bits: int | None
    latent_shape: tuple[int, int, int]
    payload: float
    rates: Sequence[RateResult]
    default_rate: str | None
    tables_from: str | None
    float_top1: float
    params: int


@dataclasses.dataclass(frozen=True)
class StageSummary:
    """What a stage took.

    Attributes:
        name: of the stage.
        epochs: that it trained.
        seconds: wall-clock.
        images_per_second: over the whole stage.
    """

    name: str
    epochs: int
    seconds: float
    images_per_second: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A run: a teacher, a student or both.

    Attributes:
        config: of the run, every value written out.
        dataset: its name.
        teacher: None where the run has none.
        student: likewise.
        jpeg: mean bytes of the evaluation images as JPEG at quality 95.
        images: how many images were evaluated.
        chance_percent: the accuracy of always answering with the most frequent class.
        files: the teacher on images that were sent as files.
        stages: what was trained, in order.
        versions: as `versions()` returns them.
        per_class: the classes that evaluation images have.
        agreement: whether the teacher's answers were the labels.
    """

    config: Mapping[str, Any]
    dataset: str
    teacher: NetworkResult | None
    student: StudentResult | None
    jpeg: float
    images: int
    chance_percent: float
    files: Sequence[Alternative]
    stages: Sequence[StageSummary]
    versions: Mapping[str, Any]
    per_class: Sequence[ClassResult] = ()
    agreement: bool = False

    def __post_init__(self) -> None:
        """Refuse a report on no network.

        Raises:
            ValueError: a bug of ours.
        """
        if self.teacher is None and self.student is None:
            raise ValueError("the report has neither a teacher nor a student")

    @property
    def drop_points(self) -> float | None:
        """By how many points of top-1 the student is below its teacher; None where one of them is missing."""
        return None if self.teacher is None or self.student is None else self.teacher.top1 - self.student.top1

    @property
    def saving_percent(self) -> float | None:
        """How many bytes fewer than a JPEG the student sends; None without a student."""
        return None if self.student is None else saving_percent(self.student.payload, self.jpeg)

    @property
    def alternatives(self) -> list[Alternative]:
        """The teacher on the device, images sent as files, and the student, where they were measured."""
        rows = [*self.files]
        if (teacher := self.teacher) is not None:
            on_device = {"images": teacher.images, "device_macs": teacher.macs}
            rows.insert(0, Alternative("local", "", sent=0.0, top1=teacher.top1, **on_device))
        if (student := self.student) is not None:
            channels = f"{student.latent_shape[-1]} channels"
            on_device = {"images": student.images, "device_macs": student.macs}
            rows.append(Alternative("student", channels, sent=student.payload, top1=student.top1, **on_device))
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return `report.json`: the structure of DESIGN's interface 1, in plain values."""
        student = self.student
        measured = _as_agreement if self.agreement else dict
        measure = {"measure": "agreement" if self.agreement else "accuracy"}
        return plain_values(
            {
                "config": self.config,
                "dataset": self.dataset,
                "teacher": None if self.teacher is None else measured(self.teacher.to_json()),
                "student": None if student is None else measured(self._student_json(student)),
                "bytes_per_image": {
                    "latent_payload": None if student is None else student.payload,
                    "jpeg": self.jpeg,
                    "saving_percent": self.saving_percent,
                },
                "default_rate": None if student is None else student.default_rate,
                "rates": [] if student is None else [measured(rate.to_json()) for rate in student.rates],
                "encoder": None if student is None else {"params": student.params, "macs": student.macs},
                "evaluation": {**measure, "images": self.images, "chance_percent": self.chance_percent},
                "alternatives": [measured(row.to_json()) for row in self.alternatives],
                "stages": [dataclasses.asdict(stage) for stage in self.stages],
                "versions": self.versions,
                "per_class": [measured(row.to_json()) for row in self.per_class],
            }
        )

    def _student_json(self, student: StudentResult) -> dict[str, Any]:
        latent = {"bits": student.bits, "latent_shape": student.latent_shape, "top1_drop_points": self.drop_points}
        values = student.to_json()
        classes = values.pop("classes")
        return {
            **values,
            **latent,
            "classes": classes,
            "float_top1": student.float_top1,
            "tables_from": student.tables_from,
        }


def _as_agreement(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its accuracies under the name of agreement, and null in their place."""
    top1 = {key: value for key, value in values.items() if "top1" in key}
    unknown = dict.fromkeys([*top1, *(key for key in values if key == "top5")])
    known = {key.replace("top1", "agreement"): value for key, value in top1.items() if "drop" not in key}
    return {**values, **unknown, **known}


def versions() -> dict[str, Any]:
    """Return what this process runs on: versions of Python and the libraries, kind and number of devices."""
    libraries = {name: importlib.metadata.version(name) for name in ("jax", "flax", "optax", "numpy")}
    return {
        "python": platform.python_version(),
        **libraries,
        "bottlefit_jax": bottlefit_jax.__version__,
        "device": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
    }


def plain_values(value: Any) -> Any:
    """Turn mappings, tuples and array scalars into what JSON has; anything else becomes its text."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    if hasattr(value, "tolist"):
        return plain_values(value.tolist())
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return str(value)
