"""The results of a finished run: report.json, report.md, and their plots."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rates import rates_text
from bottlefit_jax.evaluation import plots
from bottlefit_jax.evaluation.alternatives import Alternative, network_macs
from bottlefit_jax.evaluation.classes import class_results
from bottlefit_jax.evaluation.cost import device_cost
from bottlefit_jax.evaluation.image_bytes import jpeg_bytes
from bottlefit_jax.evaluation.networks import send_and_classify
from bottlefit_jax.evaluation.payloads import RAW, PayloadResult
from bottlefit_jax.evaluation.rate_plot import curve_of, draw_rate_curve
from bottlefit_jax.evaluation.report import NetworkResult, Report, StageSummary, StudentResult, versions
from bottlefit_jax.evaluation.report_files import write_report
from bottlefit_jax.evaluation.report_text import CURVE
from bottlefit_jax.experiment.inputs import Networks, Variables
from bottlefit_jax.files import write_text
from bottlefit_jax.recipe import Config, evaluates_agreement

SHOWN = 6  # images in latents.png
RATES = "rates.json"  # the tables of the report's payloads; a bundle has its own, of its own head's latents


def write_results(
    workdir: Path,
    config: Config,
    *,
    networks: Networks,
    student_variables: Variables | None,
    accuracy: dict[str, dict[str, float]],
    by_class: dict[str, Sequence[int]],
    payloads: PayloadResult | None,
    files: Sequence[Alternative],
    images: Iterable[dict[str, np.ndarray]],
    class_names: Sequence[str],
    stages: list[dict[str, Any]],
    history: list[dict[str, Any]],
    command: str | None,
) -> dict[str, Any]:
    """Measure bytes and cost, draw the plots, and write the report.

    Args:
        workdir: of the run.
        config: of the run.
        networks: a teacher, a student or both.
        student_variables: on the host; None without a student.
        accuracy: "teacher", "student" or both -> {"top1", "top5"} in percent.
        by_class: "teacher", "student" or both -> the correct images of each class.
        payloads: of the student; None without one, or where it has no quantiser.
        files: the teacher on images sent as files, from `alternatives.sent_as_files`; [] without teacher or student.
        images: all evaluation batches, from the first.
        class_names: of the dataset.
        stages: the stages' summaries.
        history: the epochs' records.
        command: the command line; None where there was none.

    Returns:
        The report (DESIGN, interface 1).
    """
    jpeg, labels, shown = _read_images(images, classes=len(class_names))
    if history:
        measure = "agreement" if evaluates_agreement(config) else "top-1"
        plots.training_curves(workdir / "training_curves.png", history, measure=measure)
    found = {"images": len(labels), "classes": len(class_names)}
    student = None
    if payloads is not None:
        write_text(workdir / RATES, rates_text(payloads.codec))
    if student_variables is not None:
        _draw(workdir, networks, student_variables, shown, class_names, payloads)
        size = config.dataset.image_size
        student = _student(networks, student_variables, size, payloads, {**accuracy["student"], **found})
    teacher = None
    if "teacher" in accuracy:
        cost = network_macs(networks.teacher, config.dataset.image_size)
        teacher = NetworkResult(name=networks.name, macs=cost, **accuracy["teacher"], **found)
    report = Report(
        config=resolved(config, networks),
        dataset=dataset_name(config),
        teacher=teacher,
        student=student,
        jpeg=float(jpeg.mean()),
        images=len(labels),
        chance_percent=100 * float(np.bincount(labels).max()) / len(labels),
        files=files,
        per_class=class_results(class_names, np.bincount(labels, minlength=len(class_names)).tolist(), by_class),
        stages=[StageSummary(**summary) for summary in stages],
        versions=versions(),
        agreement=evaluates_agreement(config),
    )
    if (curve := curve_of(report)) is not None:
        draw_rate_curve(workdir / CURVE, curve)
    write_report(workdir, report, command=command)
    return report.to_json()


def dataset_name(config: Config) -> str:
    """Return what the evaluation images are called: the name of their folder or of their data set."""
    chosen = config.dataset
    if evaluates_agreement(config):
        return " + ".join(Path(folder).name for folder in chosen.unlabelled)
    name, root = (chosen.eval_name, chosen.eval_root) if chosen.eval_name else (chosen.name, chosen.root)
    return Path(root).name if name == "folder" else name


def resolved(config: Config, networks: Networks) -> dict[str, Any]:
    """Return the config as a dictionary in which every value is set, as the run used it.

    A config of these values makes the same run: no quantiser is `bits` 0, the model's own width is `hidden` 0.

    Args:
        config: it may leave values to the weights or to defaults.
        networks: of the run.
    """
    values = config.to_dict()
    values["dataset"].update(mean=networks.mean, std=networks.std)
    values["teacher"].update(name=networks.name, options=networks.options)
    if networks.student is not None:
        chosen = {key: networks.bottleneck[key] for key in values["student"]["bottleneck"]}
        chosen.update(bits=chosen["bits"] or 0, hidden=chosen["hidden"] or 0, cut=networks.student.cut)
        values["student"]["bottleneck"] = chosen
    return values


def _student(
    networks: Networks, variables: Variables, size: int, payloads: PayloadResult | None, accuracy: dict[str, Any]
) -> StudentResult:
    """Return the student's accuracy, its payloads and its encoder's cost."""
    bottleneck = networks.bottleneck
    height, width = networks.student.latent_size((size, size))
    shape = (height, width, bottleneck["channels"])
    return StudentResult(
        name=f"{networks.name} + {bottleneck['channels']}-channel bottleneck",
        bits=bottleneck["bits"],
        latent_shape=shape,
        payload=4.0 * math.prod(shape) if payloads is None else payloads.default.bytes_mean,  # float32 without one
        rates=() if payloads is None else payloads.rates,
        default_rate=None if payloads is None else payloads.default.id,
        tables_from=None if payloads is None else payloads.tables_from,
        float_top1=accuracy["top1"] if payloads is None else payloads.float_top1,
        **accuracy,
        **device_cost(networks.student, variables, size),
    )


def _read_images(
    batches: Iterable[dict[str, np.ndarray]], *, classes: int
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, np.ndarray]]]:
    """Return the JPEG size and label of every image, and a few (label, image) of as many classes as possible."""
    jpeg: list[np.ndarray] = []
    every_label: list[np.ndarray] = []
    examples: list[list[np.ndarray]] = [[] for _ in range(classes)]
    for batch in batches:
        images, labels = batch["image"][batch["mask"]], batch["label"][batch["mask"]]
        jpeg.append(jpeg_bytes(images))
        every_label.append(labels)
        for image, label in zip(images, labels, strict=True):
            if len(examples[label]) < -(-SHOWN // classes):
                examples[label].append(image)
    every = [(label, image) for label, kept in enumerate(examples) for image in kept]
    return np.concatenate(jpeg), np.concatenate(every_label), every[:: max(1, len(every) // SHOWN)][:SHOWN]


def _draw(
    workdir: Path,
    networks: Networks,
    variables: Variables,
    shown: Sequence[tuple[int, np.ndarray]],
    class_names: Sequence[str],
    payloads: PayloadResult | None,
) -> None:
    """Draw a few images beside what arrives of their latents."""
    images = np.stack([image for _, image in shown])
    bottleneck = networks.bottleneck
    sizes: list[int] = []

    def arrive(latents: np.ndarray) -> np.ndarray:
        if payloads is None or payloads.default.id == RAW:
            sizes.extend([latents[0].size * (4 if payloads is None else 1)] * len(latents))
            return latents
        rate = payloads.codec.get(payloads.default.id)
        sent = [wire.encode(latent, rate) for latent in latents]
        sizes.extend(map(len, sent))
        return wire.decode_batch(sent, payloads.codec)[0]

    arrived, predicted = send_and_classify(
        networks.student,
        variables,
        images,
        bottleneck=bottleneck,
        mean=networks.mean,
        std=networks.std,
        class_indices=networks.class_indices,
        arrive=arrive,
    )
    plots.latents(
        workdir / "latents.png",
        images,
        arrived,
        [class_names[label] for label, _ in shown],
        [class_names[int(index)] for index in predicted],
        np.asarray(sizes) + (0 if payloads is None else payloads.range_bytes),
        jpeg_bytes(images),
        bits=bottleneck["bits"] or 8,
    )
