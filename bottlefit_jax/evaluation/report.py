"""`report.json` for scripts and `report.md` for people: the same numbers, written once at the end of a run.

The structure of `report.json` is a promise to other people's tools. `write_report` refuses anything else, and lists
all that is wrong with it. A run with a teacher or a student alone has None for the other, and for what compares them.
These keys are optional, and only change what the text says:

* `student.bits`: bits per value of the latent; None where it is sent as float32;
* `student.latent_shape`: (h, w, c) of one image's latent;
* `classes` of teacher and student: how many they are told apart by; with five or fewer, top-5 says nothing;
* any other key of `teacher` or `student` is kept in `report.json` and not shown;
* `evaluation`: how many images were evaluated, and what always giving their most frequent class would reach;
* `alternatives`: the rows of `evaluation.alternatives`, the student among them.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

import bottlefit_jax
from bottlefit_jax.evaluation.report_text import IMAGES, report_text
from bottlefit_jax.files import write_text

# None stands for "any value"; a type for that type (float: any finite number); a list for any number of such entries.
_STRUCTURE: dict[str, Any] = {
    "config": None,
    "dataset": None,
    "teacher": {"name": str, "top1": float, "top5": float},
    "student": {"name": str, "top1": float, "top5": float, "top1_drop_points": float},
    "bytes_per_image": {"latent_payload": float, "jpeg": float, "saving_percent": float},
    "encoder": {"params": int, "macs": int},
    "stages": [{"name": str, "epochs": int, "seconds": float, "images_per_second": float}],
    "versions": None,
}
_OPTIONAL: dict[str, Any] = {
    "evaluation": {"images": int, "chance_percent": float},
    "alternatives": [
        {
            "method": str,
            "setting": str,
            "bytes": float,
            "top1": float,
            "top1_interval95": [float],
            "images": int,
            "device_macs": int,
        }
    ],
}
_EXTENSIBLE = ("teacher", "student")
_OF_STUDENT = ("encoder", "bytes_per_image.latent_payload", "bytes_per_image.saving_percent")
_MAY_BE_NONE = ("teacher", "student", "student.top1_drop_points", *_OF_STUDENT)


def write_report(workdir: str | os.PathLike, report: Mapping, *, command: str | None = None):
    """Write `report.json` and `report.md`; each appears complete or not at all, the JSON last.

    Args:
        workdir: the run's folder. Plots that it already holds are shown in the text, so draw them first.
        report: the structure of DESIGN's interface 1. Accuracies and savings are percentages, bytes are per image,
            seconds are wall-clock. NumPy and JAX scalars are fine.
        command: what a reader types to get the same result; None points at the stored configuration.

    Raises:
        ValueError: the structure is not the promised one, or its numbers contradict each other: a bug of ours.
        UserError: the files cannot be written (full disk, no such folder, no permission).
    """
    plain = plain_values(report)
    given = {key: shape for key, shape in _OPTIONAL.items() if key in plain}
    problems = _problems(plain, {**_STRUCTURE, **given}, "report") or _contradictions(plain)
    if problems:
        raise ValueError("not a report: " + "; ".join(problems))
    workdir = Path(workdir)
    images = [name for name in IMAGES if (workdir / name).exists()]
    write_text(workdir / "report.md", report_text(plain, images, command))
    write_text(workdir / "report.json", json.dumps(plain, indent=2, allow_nan=False) + "\n")


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
    """Turn mappings, tuples and array scalars into what JSON knows; anything else is shown by its name."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    if hasattr(value, "tolist"):
        return plain_values(value.tolist())
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return str(value)


def _problems(value: Any, wanted: Any, where: str) -> list[str]:
    """List every difference between a value and the structure it should have."""
    if value is None and where.removeprefix("report.") in _MAY_BE_NONE:
        return []
    if wanted is None:
        return [] if _finite(value) else [f"{where} holds a number that is not finite"]
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            return [f"{where} is {value!r}, not a mapping"]
        found = [f"{where} lacks {key!r}" for key in wanted if key not in value]
        extra = [key for key in value if key not in wanted]
        if where.removeprefix("report.") in _EXTENSIBLE:
            found += [f"{where}.{key} holds a number that is not finite" for key in extra if not _finite(value[key])]
        else:
            found += [f"{where} has an unknown key {key!r}" for key in extra]
        return found + [
            p for key in wanted if key in value for p in _problems(value[key], wanted[key], f"{where}.{key}")
        ]
    if isinstance(wanted, list):
        if not isinstance(value, list):
            return [f"{where} is {value!r}, not a list"]
        return [p for index, item in enumerate(value) for p in _problems(item, wanted[0], f"{where}[{index}]")]
    if wanted is str:
        return [] if isinstance(value, str) else [f"{where} is {value!r}, not a text"]
    number = isinstance(value, int) or (wanted is float and isinstance(value, float) and math.isfinite(value))
    return [] if number and not isinstance(value, bool) else [f"{where} is {value!r}, not a finite number"]


def _finite(value: Any) -> bool:
    """Return whether no number in a plain value is NaN or infinite; JSON could not hold it."""
    if isinstance(value, dict):
        return all(_finite(item) for item in value.values())
    if isinstance(value, list):
        return all(_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def _contradictions(report: dict) -> list[str]:
    """List derived numbers that do not follow from the measured ones, up to rounding."""
    teacher, student, size = report["teacher"], report["student"], report["bytes_per_image"]
    found = [
        f"report.{who}.{key} is {report[who][key]!r}, not a percentage"
        for who in ("teacher", "student")
        for key in ("top1", "top5")
        if report[who] is not None and not 0 <= report[who][key] <= 100
    ]
    if teacher is None and student is None:
        found.append("report has neither a teacher nor a student")
    for path in _OF_STUDENT:
        value = functools.reduce(lambda tree, key: tree[key], path.split("."), report)
        if (value is None) != (student is None):
            found.append(f"report.{path} is {value!r}, and report.student is {student!r}")
    if student is not None:
        drop = None if teacher is None else round(teacher["top1"] - student["top1"], 4)
        told = student["top1_drop_points"]
        if (drop is None) != (told is None) or (drop is not None and abs(drop - told) > 0.06):
            found.append(f"report.student.top1_drop_points is {told}, the difference is {drop}")
    if size["jpeg"] <= 0:
        found.append(f"report.bytes_per_image.jpeg is {size['jpeg']}, not above 0")
    elif None not in (size["saving_percent"], size["latent_payload"]):
        saving = 100 * (1 - size["latent_payload"] / size["jpeg"])
        if abs(saving - size["saving_percent"]) > 0.1:
            found.append(f"report.bytes_per_image.saving_percent is {size['saving_percent']}, the sizes give {saving}")
    return found
