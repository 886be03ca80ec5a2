"""The text of `report.md`: a run for people."""

from __future__ import annotations

from collections.abc import Sequence

from bottlefit_jax.evaluation.alternatives import FILES, Alternative, as_good
from bottlefit_jax.evaluation.classes import SHOWN, worst
from bottlefit_jax.evaluation.markdown import bytes_text, count_text, duration_text, markdown_table
from bottlefit_jax.evaluation.payloads import RAW
from bottlefit_jax.evaluation.rates import DEFAULT_POINTS
from bottlefit_jax.evaluation.report import NetworkResult, Report

DROP_GOAL = 0.6  # points of top-1: the largest loss on ImageNet in the abstract of BottleFit (Matsubara et al., 2022)
NO_STEPS = "–"
NEAR_WHOLE = 0.5  # an encoder with this share of the teacher's multiply-adds leaves little to split

CURVE = "rate_curve.png"
IMAGES = {  # beside the curve
    "training_curves.png": "Loss and top-1 by epoch, one column per stage",
    "latents.png": "Images, and beside each its latent as it arrives at the default rate",
}


def report_text(report: Report, images: Sequence[str], command: str | None) -> str:
    """Write the whole text.

    Args:
        report: of the run.
        images: CURVE and keys of `IMAGES` that the run's folder holds.
        command: what a reader types to get the same result, or None.
    """
    subject = report.student or report.teacher
    assert subject is not None
    blocks = [
        f"# {subject.name} on {report.dataset}",
        *([f"![{_curve_title(report)}]({CURVE})"] if CURVE in images else []),
        _headline(report),
        *_remarks(report),
        _summary_table(report),
        *_rates(report),
        *_alternatives(report),
        *_classes(report),
        *(f"![{title}]({name})" for name, title in IMAGES.items() if name in images),
        "## Training",
        _stage_table(report),
        "## Reproduce",
        _how_to_repeat(command),
        "## Made with",
        ", ".join(f"{name} {value}" for name, value in report.versions.items()),
    ]
    return "\n\n".join(blocks) + "\n"


def _curve_title(report: Report) -> str:
    """Describe the rate curve."""
    measure = _measure(report).capitalize()
    return f"{measure} against bytes per image at every rate, beside the teacher and images sent as files"


def _headline(report: Report) -> str:
    """State in one sentence what an image costs and how often the answer is correct."""
    student, teacher = report.student, report.teacher
    if student is None:
        assert teacher is not None
        first_five = f", and for {teacher.top5:.2f} % the right class is among the first five"
        return (
            f"**{teacher.top1:.2f} %** of the images are classified correctly"
            f"{first_five if _has_top5(teacher) else ''}. "
            f"An image is {bytes_text(report.jpeg)} as JPEG at quality 95."
        )
    if report.agreement:
        correct = f"for **{student.top1:.2f} %** of the images its teacher gives the same answer"
    else:
        correct = f"**{student.top1:.2f} %** of the images are classified correctly{_against_teacher(report)}"
    saving = report.saving_percent or 0.0
    change = f"{abs(saving):.1f} % {'less' if saving >= 0 else '**more**'}"
    compared = f"{change} than a JPEG at quality 95 ({bytes_text(report.jpeg)})"
    return f"The device sends **{bytes_text(student.payload)}** per image, {compared}, and {correct}."


def _against_teacher(report: Report) -> str:
    """Compare the student's accuracy with the teacher's; empty without a teacher."""
    if report.teacher is None:
        return ""
    drop = round(report.drop_points or 0.0, 2)
    if not drop:
        return ", as many as its teacher"
    return f", {abs(drop):.2f} points {'less' if drop > 0 else 'more'} than its teacher ({report.teacher.top1:.2f} %)"


def _remarks(report: Report) -> list[str]:
    """List what a reader should know before quoting the headline."""
    remarks = _near_chance(report)
    if report.agreement:
        remarks.append(
            f"**There were no labels.** Everything here is agreement: how many of {report.images:,} images get the "
            "teacher's answer. It says nothing of how often that answer is correct; accuracy is not known."
        )
    if report.student is not None:
        drop = 0.0 if report.agreement else round(report.drop_points or 0.0, 2)
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
        if (report.saving_percent or 0.0) <= 0:
            remarks.append(
                "At this image size the latent is no smaller than a JPEG at quality 95: sending the image costs no "
                "more."
            )
        if report.student.bits is None:
            remarks.append("There is no quantiser: the latent is counted as it is sent, in 32-bit floats.")
    if report.teacher is not None and not any(stage.name == "teacher" for stage in report.stages):
        remarks.append(f"The teacher, {report.teacher.name}, was trained elsewhere and only evaluated here.")
    return remarks


def _near_chance(report: Report) -> list[str]:
    """Warn of a network that is hardly more often correct than one that always answers the most frequent class."""
    chance = report.chance_percent
    limit = chance + min(chance, (100 - chance) / 10)
    networks = {"teacher": report.teacher, "student": report.student}
    if report.agreement:
        del networks["teacher"]  # it agrees with itself
    return [
        f"**The {role} is near chance**: {network.top1:.2f} % of {report.images:,} images, and the most frequent "
        f"class alone gives {chance:.2f} %. No comparison with it means anything."
        for role, network in networks.items()
        if network is not None and network.interval95[0] <= limit
    ]


def _rates(report: Report) -> list[str]:
    """List the rates at which the same student can send."""
    student = report.student
    if student is None or not student.rates:
        return []
    images = "training images" if student.tables_from == "train" else "these evaluation images, as there were no others"
    rows = [("rate", "mean", "95th percentile", _measure(report), "less than without a quantiser", "steps")]
    for rate in student.rates:
        name = f"**{rate.id}**" if rate.id == student.default_rate else rate.id
        sizes = (bytes_text(rate.bytes_mean), bytes_text(rate.bytes_p95))
        lost = f"{round(student.float_top1 - rate.top1, 2) + 0.0:.2f} points"  # + 0.0: there is no -0.00
        rows.append((name, *sizes, f"{rate.top1:.2f} %", lost, _steps_text(rate.steps)))
    return [
        "## Rates",
        markdown_table(rows, "lrrrrl"),
        f"One head and one tail serve all rates. {RAW.capitalize()} is a byte for each value; the others divide the "
        f"values of each channel by its step and code them, with tables from {images}. Without a quantiser the student "
        f"has {student.float_top1:.2f} %. The default, **{student.default_rate}**, is the cheapest rate within "
        f"{DEFAULT_POINTS} points of that, or the best where none is. Rates were chosen on evaluation images.",
    ]


def _steps_text(steps: Sequence[int] | None) -> str:
    """Write the steps of the channels: 4, or 2 to 16."""
    if steps is None:
        return NO_STEPS
    low, high = min(steps), max(steps)
    return f"{low}" if low == high else f"{low} to {high}"


def _alternatives(report: Report) -> list[str]:
    """Compare the student with the teacher on the device and with files, and conclude whether splitting pays."""
    rows = report.alternatives
    if report.student is None or len(rows) == 1:
        return []
    cells = [("", "sent per image", _measure(report), "95 % interval", "images", "multiply-adds on the device")]
    for row in rows:
        low, high = row.interval95
        shown = (bytes_text(row.sent), f"{row.top1:.2f} %", f"{low:.2f} to {high:.2f} %", f"{row.images:,}")
        cells.append((row.name, *shown, count_text(row.device_macs)))
    return [
        "## What else the device could do",
        markdown_table(cells, "lrrrrr"),
        " ".join(
            [
                "JPEG and WebP are files of the image at the network's input size, as Pillow writes them; their "
                f"{_measure(report)} is the teacher's on the decoded images. Intervals are Wilson's.",
                *_verdict(rows, "get the teacher's answer" if report.agreement else "are classified correctly"),
            ]
        ),
    ]


def _classes(report: Report) -> list[str]:
    """List the worst classes, or all where there are few."""
    if len(report.per_class) < 2:
        return []
    networks = {"teacher": report.teacher, "student": report.student}
    if report.agreement:
        del networks["teacher"]  # it agrees with itself
    shown = [role for role, network in networks.items() if network is not None]
    cells = [("class", "images", *shown, "95 % interval")]
    for row in worst(report.per_class):
        low, high = row.interval95
        top1 = (f"{row.top1(role):.2f} %" for role in shown)
        cells.append((row.name, f"{row.images:,}", *top1, f"{low:.1f} to {high:.1f} %"))
    all_classes = (
        f"All {len(report.per_class):,} classes with images are under `per_class` in [report.json](report.json)."
    )
    labels = " The classes are the teacher's answers." if report.agreement else ""
    return [
        "## Classes" if len(report.per_class) <= SHOWN else "## The worst classes",
        markdown_table(cells, "lr" + "r" * len(shown) + "r"),
        f"The percentages are {_measure(report)}, the interval is the {shown[-1]}'s. The class with the lowest upper "
        f"end comes first, so that a class of a few images does not. {all_classes}{labels}",
    ]


def _verdict(rows: Sequence[Alternative], measured: str) -> list[str]:
    """State what the student saves against the best file and against the whole teacher, whichever way it goes.

    Args:
        rows: of the table.
        measured: what the percentages are of: images that `measured`.
    """
    of = {row.method: row for row in rows}
    student, local, files = of.get("student"), of.get("local"), [row for row in rows if row.method in FILES]
    if student is None or local is None:
        return []
    sentences, beaten = [], as_good(rows)
    comparable = [row for row in files if row.interval95[1] >= student.top1]
    if beaten:
        best = max(beaten, key=lambda row: row.top1)
        sentences.append(
            f"**Splitting saves no bytes here**: {best.name} sends {bytes_text(best.sent)}, no more than the "
            f"student's {bytes_text(student.sent)}, and {best.top1:.2f} % {measured} "
            f"(student: {student.top1:.2f} %)."
        )
    elif comparable:
        best = min(comparable, key=lambda row: row.sent)
        sentences.append(
            f"The smallest file that is not measurably worse than the student is {best.name}, with "
            f"{bytes_text(best.sent)}; the student sends {100 * (1 - student.sent / best.sent):.0f} % less."
        )
    elif files:
        sentences.append("All of these files are measurably worse than the student.")
    share = student.device_macs / local.device_macs if local.device_macs else 0.0
    computes = f"{100 * share:.0f} % of the teacher's multiply-adds"
    if share >= NEAR_WHOLE:
        sentences.append(
            f"**Splitting saves little computing here**: the encoder has {computes}; a device that computes it can run "
            "the whole teacher, and send nothing."
        )
    else:
        sentences.append(f"The encoder has {computes}.")
    return sentences


def _summary_table(report: Report) -> str:
    """Show teacher and student side by side, or the one that there is."""
    accuracies = _agreement if report.agreement else _accuracies
    names = ["agreement with the teacher"] if report.agreement else ["top-1", "top-5"]
    rows = [["", *names, "sent per image", "on the device"]]
    if (teacher := report.teacher) is not None:
        sent = f"{bytes_text(report.jpeg)} (JPEG, quality 95)"
        rows.append([f"teacher: {teacher.name}", *accuracies(teacher), sent, "nothing"])
    if (student := report.student) is not None:
        latent = ["latent", " × ".join(map(str, student.latent_shape))]
        latent += [] if student.bits is None else [f"{student.bits} bits per value, rate {student.default_rate}"]
        sent = f"{bytes_text(student.payload)} ({', '.join(latent)})"
        cost = f"{count_text(student.params)} parameters, {count_text(student.macs)} multiply-adds"
        rows.append([f"student: {student.name}", *accuracies(student), sent, cost])
    return markdown_table(list(zip(*rows, strict=True)), "l" + "r" * (len(rows) - 1))


def _accuracies(network: NetworkResult) -> list[str]:
    top5 = f"{network.top5:.2f} %" if _has_top5(network) else f"– ({network.classes} classes)"
    return [f"{network.top1:.2f} %", top5]


def _agreement(network: NetworkResult) -> list[str]:
    return [f"{network.top1:.2f} %"]


def _measure(report: Report) -> str:
    """Return what percentages are called."""
    return "agreement" if report.agreement else "top-1"


def _has_top5(network: NetworkResult) -> bool:
    """Return whether top-5 can be anything but 100 %."""
    return network.classes > 5


def _stage_table(report: Report) -> str:
    """List what was trained, for how long and how fast."""
    if not report.stages:
        return "Nothing was trained in this run."
    rows = [("stage", "epochs", "time", "images per second")]
    for stage in report.stages:
        speed = f"{stage.images_per_second:,.0f}" if stage.images_per_second >= 10 else f"{stage.images_per_second:.1f}"
        rows.append((stage.name, f"{stage.epochs:,}", duration_text(stage.seconds), speed))
    return markdown_table(rows, "lrrr")


def _how_to_repeat(command: str | None) -> str:
    """Show the command, or point to the configuration."""
    kept = "Every setting of this run is under `config` in [report.json](report.json)"
    if command is None:
        return f"{kept}; `python -m bottlefit_jax.main` with a config file of these values repeats it."
    return f"```sh\n{command.strip()}\n```\n\n{kept}."
