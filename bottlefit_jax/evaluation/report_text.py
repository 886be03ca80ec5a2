"""The text of `report.md`: what a person reads of a run."""

from __future__ import annotations

from typing import Any

from bottlefit_jax.evaluation.alternatives import as_good, interval, name_of
from bottlefit_jax.evaluation.markdown import bytes_text, count_text, duration_text, markdown_table

DROP_GOAL = 0.6  # points of top-1: the largest loss on ImageNet in the abstract of BottleFit (Matsubara et al., 2022)
NEAR_WHOLE = 0.5  # an encoder with this share of the teacher's multiply-adds leaves little to split

IMAGES = {
    "training_curves.png": "Loss and top-1 by epoch, one column per stage",
    "latents.png": "Images, and beside each what the bottleneck sends of it",
}


def report_text(report: dict, images: list[str], command: str | None) -> str:
    """Put the whole text together."""
    subject = report["student"] or report["teacher"]
    blocks = [
        f"# {subject['name']} on {_dataset_name(report['dataset'])}",
        _headline(report),
        *_remarks(report),
        _summary_table(report),
        *_alternatives(report),
        *(f"![{IMAGES[name]}]({name})" for name in images),
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
    """Say in one sentence what an image costs and how often the answer is right."""
    size, student, teacher = report["bytes_per_image"], report["student"], report["teacher"]
    if student is None:
        first_five = f", and for {teacher['top5']:.2f} % the right class is among the first five"
        return (
            f"**{teacher['top1']:.2f} %** of the images are classified correctly"
            f"{first_five if _has_top5(teacher) else ''}. "
            f"An image is {bytes_text(size['jpeg'])} as JPEG at quality 95."
        )
    saving = size["saving_percent"]
    change = f"{abs(saving):.1f} % {'less' if saving >= 0 else '**more**'}"
    compared = f"{change} than a JPEG at quality 95 ({bytes_text(size['jpeg'])})"
    right = f"**{student['top1']:.2f} %** of the images are classified correctly{_against(teacher, student)}"
    return f"The device sends **{bytes_text(size['latent_payload'])}** per image, {compared}, and {right}."


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
    student, size, remarks = report["student"], report["bytes_per_image"], _near_chance(report)
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
                "many images were evaluated, before you read this as a gain from the bottleneck."
            )
        if size["saving_percent"] <= 0:
            remarks.append(
                "At this image size the latent is no smaller than a JPEG at quality 95: sending the image costs no "
                "more."
            )
        if "bits" in student and student["bits"] is None:
            remarks.append("There is no quantiser: the latent is counted as it is sent, in 32-bit floats.")
    if report["teacher"] is not None and not any(stage["name"] == "teacher" for stage in report["stages"]):
        remarks.append(f"The teacher, {report['teacher']['name']}, was trained elsewhere and only evaluated here.")
    return remarks


def _near_chance(report: dict) -> list[str]:
    """Warn of a network that is hardly more often right than one that always gives the most frequent class."""
    evaluation = report.get("evaluation")
    if evaluation is None:
        return []
    images, chance = evaluation["images"], evaluation["chance_percent"]
    limit = chance + min(chance, (100 - chance) / 10)
    return [
        f"**The {who} is near chance**: {report[who]['top1']:.2f} % of {images:,} images, and the most frequent class "
        f"alone gives {chance:.2f} %. Nothing that is compared with it means anything."
        for who in ("teacher", "student")
        if report[who] is not None and interval(report[who]["top1"], images)[0] <= limit
    ]


def _alternatives(report: dict) -> list[str]:
    """Set the student beside the teacher on the device and beside files, and say whether splitting pays."""
    rows = report.get("alternatives")
    if not rows or report["student"] is None:
        return []
    cells = [("", "sent per image", "top-1", "95 % interval", "images", "multiply-adds on the device")]
    for one in rows:
        low, high = one["top1_interval95"]
        shown = (bytes_text(one["bytes"]), f"{one['top1']:.2f} %", f"{low:.2f} to {high:.2f} %", f"{one['images']:,}")
        cells.append((name_of(one), *shown, count_text(one["device_macs"])))
    return [
        "## What else the device could do",
        markdown_table(cells, "lrrrrr"),
        " ".join(
            [
                "JPEG and WebP are files of the image at the network's input size, as Pillow writes them; their top-1 "
                "is the teacher's on the decoded images. Intervals are Wilson's.",
                *_verdict(rows),
            ]
        ),
    ]


def _verdict(rows: list[dict]) -> list[str]:
    """Say what the student saves against the best file and against the whole teacher, whichever way it goes."""
    of = {one["method"]: one for one in rows}
    student, local, files = (
        of.get("student"),
        of.get("local"),
        [one for one in rows if one["method"] in ("jpeg", "webp")],
    )
    if student is None or local is None:
        return []
    sentences, beaten = [], as_good(rows)
    level = [one for one in files if one["top1_interval95"][1] >= student["top1"]]
    if beaten:
        best = max(beaten, key=lambda one: one["top1"])
        sentences.append(
            f"**Splitting saves no bytes here**: {name_of(best)} sends {bytes_text(best['bytes'])}, no more than the "
            f"student's {bytes_text(student['bytes'])}, and {best['top1']:.2f} % are classified correctly "
            f"(student: {student['top1']:.2f} %)."
        )
    elif level:
        best = min(level, key=lambda one: one["bytes"])
        sentences.append(
            f"The smallest file that is not measurably worse than the student is {name_of(best)}, with "
            f"{bytes_text(best['bytes'])}; the student sends {100 * (1 - student['bytes'] / best['bytes']):.0f} % less."
        )
    elif files:
        sentences.append("All of these files are measurably worse than the student.")
    share = student["device_macs"] / local["device_macs"] if local["device_macs"] else 0.0
    computes = f"{100 * share:.0f} % of the teacher's multiply-adds"
    if share >= NEAR_WHOLE:
        sentences.append(
            f"**Splitting saves little computing here**: the encoder has {computes}; a device that computes it can run "
            "the whole teacher, and send nothing."
        )
    else:
        sentences.append(f"The encoder has {computes}.")
    return sentences


def _summary_table(report: dict) -> str:
    """Set teacher, student, bytes and encoder side by side, or show the one that there is."""
    rows = [["", "top-1", "top-5", "sent per image", "on the device"]]
    teacher, student, size, encoder = (report[key] for key in ("teacher", "student", "bytes_per_image", "encoder"))
    if teacher is not None:
        rows.append(
            [
                f"teacher: {teacher['name']}",
                *_accuracies(teacher),
                f"{bytes_text(size['jpeg'])} (JPEG, quality 95)",
                "nothing",
            ]
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
    rows = [("stage", "epochs", "time", "images per second")]
    for stage in report["stages"]:
        speed = stage["images_per_second"]
        rows.append(
            (
                stage["name"],
                f"{stage['epochs']:,}",
                duration_text(stage["seconds"]),
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
