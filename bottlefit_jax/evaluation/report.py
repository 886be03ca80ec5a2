"""`report.json` for scripts and `report.md` for people: the same numbers, written once at the end of a run.

The structure of `report.json` is a promise to other people's tools. `write_report` refuses anything else, and lists
all that is wrong with it. A run with a teacher or a student alone has None for the other, and for what compares them.
These keys are optional, and only change what the text says:

* `student.bits`: bits per value of the latent; None where it is sent as float32;
* `student.latent_shape`: (h, w, c) of one picture's latent;
* `classes` of teacher and student: how many they are told apart by; with five or fewer, top-5 says nothing;
* any other key of `teacher` or `student` is kept in `report.json` and not shown.
"""

from __future__ import annotations

import contextlib
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
from bottlefit_jax.errors import UserError

DROP_GOAL = 0.6  # points of top-1: the largest loss on ImageNet in the abstract of BottleFit (Matsubara et al., 2022)

PICTURES = {
    "training_curves.png": "Loss and top-1 by epoch, one column per stage",
    "latents.png": "Pictures, and beside each what the bottleneck sends of it",
}

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
_EXTENSIBLE = ("teacher", "student")
_OF_STUDENT = ("encoder", "bytes_per_image.latent_payload", "bytes_per_image.saving_percent")
_MAY_BE_NONE = ("teacher", "student", "student.top1_drop_points", *_OF_STUDENT)


def write_report(workdir: str | os.PathLike, report: Mapping, *, command: str | None = None):
    """Write `report.json` and `report.md`; each appears complete or not at all, the JSON last.

    Args:
        workdir: the run's folder. Plots that it already holds are shown in the text, so draw them first.
        report: the structure of DESIGN's interface 1. Accuracies and savings are percentages, bytes are per picture,
            seconds are wall-clock. NumPy and JAX scalars are fine.
        command: what a reader types to get the same result; None points at the stored configuration.

    Raises:
        ValueError: the structure is not the promised one, or its numbers contradict each other: a bug of ours.
        UserError: the files cannot be written (full disk, no such folder, no permission).
    """
    plain = plain_values(report)
    problems = _problems(plain, _STRUCTURE, "report") or _contradictions(plain)
    if problems:
        raise ValueError("not a report: " + "; ".join(problems))
    workdir = Path(workdir)
    pictures = [name for name in PICTURES if (workdir / name).exists()]
    write_text(workdir / "report.md", _markdown(plain, pictures, command))
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


def write_text(path: Path, text: str):
    """Replace a file in one step, so that a reader or a crash never meets half of it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # what kept us from writing may keep us from tidying up
            partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _markdown(report: dict, pictures: list[str], command: str | None) -> str:
    """Put the whole text together."""
    subject = report["student"] or report["teacher"]
    blocks = [
        f"# {subject['name']} on {_dataset_name(report['dataset'])}",
        _headline(report),
        *_remarks(report),
        _summary_table(report),
        *(f"![{PICTURES[name]}]({name})" for name in pictures),
        "## Training",
        _stage_table(report),
        "## Reproduce",
        _how_to_repeat(command),
        "## Made with",
        ", ".join(f"{name} {value}" for name, value in report["versions"].items())
        if isinstance(report["versions"], dict)
        else str(report["versions"]),
    ]
    return "\n\n".join(blocks) + "\n"


def _dataset_name(dataset: Any) -> str:
    """Return the name of a dataset that is given as a text or as a mapping with a name."""
    return str(dataset.get("name", "its dataset")) if isinstance(dataset, dict) else str(dataset)


def _headline(report: dict) -> str:
    """Say in one sentence what a picture costs and how often the answer is right."""
    size, student, teacher = report["bytes_per_image"], report["student"], report["teacher"]
    if student is None:
        first_five = f", and for {teacher['top5']:.2f} % the right class is among the first five"
        return (
            f"**{teacher['top1']:.2f} %** of the pictures are classified correctly"
            f"{first_five if _has_top5(teacher) else ''}. A picture is {bytes_text(size['jpeg'])} as JPEG."
        )
    saving = size["saving_percent"]
    compared = f"{abs(saving):.1f} % {'less' if saving >= 0 else '**more**'} than a JPEG ({bytes_text(size['jpeg'])})"
    right = f"**{student['top1']:.2f} %** of the pictures are classified correctly{_against(teacher, student)}"
    return f"The device sends **{bytes_text(size['latent_payload'])}** per picture, {compared}, and {right}."


def _against(teacher: dict | None, student: dict) -> str:
    """Set the student's accuracy against the teacher's, where there is one."""
    if teacher is None:
        return ""
    drop = round(student["top1_drop_points"], 2)
    if not drop:
        return ", as many as its teacher"
    return f", {abs(drop):.2f} points {'less' if drop > 0 else 'more'} than its teacher ({teacher['top1']:.2f} %)"


def _remarks(report: dict) -> list[str]:
    """Say plainly what a reader should know before quoting the headline."""
    student, size, remarks = report["student"], report["bytes_per_image"], []
    if student is not None:
        drop = round(student["top1_drop_points"] or 0.0, 2)
        if drop > DROP_GOAL:
            remarks.append(
                f"The student loses {drop:.2f} points of top-1. That is more than the {DROP_GOAL} points that "
                "BottleFit's authors report at most on ImageNet; more epochs or more channels may help."
            )
        elif drop < 0:
            remarks.append(
                f"The student beats its teacher by {-drop:.2f} points. Look at the teacher's own curve, and at how "
                "many pictures were evaluated, before you read this as a gain from the bottleneck."
            )
        if size["saving_percent"] <= 0:
            remarks.append(
                "At this picture size the latent is no smaller than a JPEG: sending the picture costs no more."
            )
        if "bits" in student and student["bits"] is None:
            remarks.append("There is no quantiser: the latent is counted as it is sent, in 32-bit floats.")
    if report["teacher"] is not None and not any(stage["name"] == "teacher" for stage in report["stages"]):
        remarks.append(f"The teacher, {report['teacher']['name']}, was trained elsewhere and only evaluated here.")
    return remarks


def _summary_table(report: dict) -> str:
    """Set teacher, student, bytes and encoder side by side, or show the one that there is."""
    rows = [["", "top-1", "top-5", "sent per picture", "on the device"]]
    teacher, student, size, encoder = (report[key] for key in ("teacher", "student", "bytes_per_image", "encoder"))
    if teacher is not None:
        rows.append(
            [f"teacher: {teacher['name']}", *_accuracies(teacher), f"{bytes_text(size['jpeg'])} (JPEG)", "nothing"]
        )
    if student is not None:
        latent = ["latent"]
        if student.get("latent_shape"):
            latent.append(" × ".join(str(length) for length in student["latent_shape"]))
        if student.get("bits"):
            latent.append(f"{student['bits']} bits per value")
        cost = f"{count_text(encoder['params'])} parameters, {count_text(encoder['macs'])} multiply-adds"
        sent = f"{bytes_text(size['latent_payload'])} ({', '.join(latent)})"
        rows.append([f"student: {student['name']}", *_accuracies(student), sent, cost])
    return markdown_table(list(zip(*rows, strict=True)), "l" + "r" * (len(rows) - 1))


def _accuracies(network: dict) -> list[str]:
    top5 = f"{network['top5']:.2f} %" if _has_top5(network) else f"– ({network['classes']} classes)"
    return [f"{network['top1']:.2f} %", top5]


def _has_top5(network: dict) -> bool:
    """Return whether top-5 can be anything but 100 %."""
    return network.get("classes", 1000) > 5


def _stage_table(report: dict) -> str:
    """List what was trained, for how long and how fast."""
    if not report["stages"]:
        return "Nothing was trained in this run."
    rows = [("stage", "epochs", "time", "pictures per second")]
    for stage in report["stages"]:
        speed = stage["images_per_second"]
        rows.append(
            (
                stage["name"],
                f"{stage['epochs']:,}",
                _duration(stage["seconds"]),
                f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}",
            )
        )
    return markdown_table(rows, "lrrr")


def _how_to_repeat(command: str | None) -> str:
    """Give the command, or say where the configuration is."""
    kept = "Every setting of this run is under `config` in [report.json](report.json)"
    if command is None:
        return f"{kept}; `python -m bottlefit_jax.main` with a config file of these values repeats it."
    return f"```sh\n{command.strip()}\n```\n\n{kept}."


def markdown_table(rows: list[tuple[str, ...]], align: str) -> str:
    """Write a Markdown table whose first row is its heading; `align` has an l or r per column."""
    rule = ["---:" if side == "r" else ":---" for side in align]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [cells[0], rule, *cells[1:]])


def bytes_text(value: float) -> str:
    """Write a size in whole bytes: 1,008 bytes."""
    return f"{value:,.0f} bytes"


def count_text(value: int) -> str:
    """Write a large count with three digits: 118 M, 22.1 k."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * limit:
            return f"{float(f'{value / limit:.3g}'):g} {unit}"
    return str(value)


def _duration(seconds: float) -> str:
    """Write a duration as a person would: 8.2 s, 4 min 12 s, 3 h 05 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
