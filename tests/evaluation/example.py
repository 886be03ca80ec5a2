"""A report as it comes out of a run."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from bottlefit_jax.evaluation.alternatives import Alternative
from bottlefit_jax.evaluation.payloads import RateResult
from bottlefit_jax.evaluation.report import NetworkResult, Report, StageSummary, StudentResult

TEACHER = NetworkResult(name="resnet50", top1=98.5, top5=100.0, images=1000, classes=10, macs=1_000_000_000)
STUDENT = StudentResult(
    name="resnet50-3ch",
    top1=98.2,
    top5=99.9,
    images=1000,
    classes=10,
    macs=118_013_952,
    bits=8,
    latent_shape=(9, 9, 3),
    payload=143.5,
    rates=(
        RateResult(id="raw", steps=None, bytes_mean=243, bytes_p95=243, top1=98.3, top5=99.9),
        RateResult(id="lossless", steps=(1, 1, 1), bytes_mean=201.25, bytes_p95=220, top1=98.3, top5=99.9),
        RateResult(id="within-0.1", steps=(2, 4, 3), bytes_mean=143.5, bytes_p95=160, top1=98.2, top5=99.9),
    ),
    default_rate="within-0.1",
    tables_from="train",
    float_top1=98.4,
    params=np.int64(22123),  # pyright: ignore[reportArgumentType]
)
REPORT = Report(
    config={"model": "resnet50", "schedule": (5, 10), "resume": None},
    dataset="digits",
    teacher=TEACHER,
    student=STUDENT,
    jpeg=1008.0,
    images=1000,
    chance_percent=10.0,
    files=[
        Alternative("jpeg", "quality 5", 673.4, 60.0, 1000, 0),
        Alternative("webp", "quality 5", 315.0, 98.0, 1000, 0),
    ],
    stages=[
        StageSummary("teacher", 12, 372.4, 1234.5),
        StageSummary("stage1", 10, 8.21, jnp.float32(3.25)),  # pyright: ignore[reportArgumentType]
    ],
    versions={"python": "3.11.7", "device_count": 8},
)


def report(teacher=(), student=(), **changes):
    """The report with other values in it; `teacher` and `student` are dictionaries of values, or None."""
    networks = {
        "teacher": None if teacher is None else dataclasses.replace(TEACHER, **dict(teacher)),
        "student": None if student is None else dataclasses.replace(STUDENT, **dict(student)),
    }
    return dataclasses.replace(REPORT, **networks, **changes)
