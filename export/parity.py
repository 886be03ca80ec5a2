"""The parity check of an export: real images through its files, compared with the network that they were made from."""

import collections
import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bottlefit_jax import data
from bottlefit_jax.codec.quantizer import Affine, dequantize
from bottlefit_jax.evaluation.accuracy import correct_counts, percentages
from bottlefit_jax.models.normalise import normalise
from export.images import ImageSet
from export.ladder import Ladder
from export.open_files import BATCH, OpenFiles, Run
from export.student import Student

MIN_AGREEMENT = 99.0  # percent of the images to which a float bundle must give the class that Flax gives
MAX_TOP1_LOSS = 0.5  # points of top-1 that an int8 bundle may lose against Flax
MAX_DIFFERENCE = {"float32": 1e-3, "float16": 3e-2}  # of a float file, relative to the largest value
TIMED_CALLS = 30  # for a median


@dataclasses.dataclass(frozen=True)
class Reference:
    """The student in Flax, compiled once.

    Attributes:
        encode: uint8 [B, H, W, 3] -> latent [B, h, w, c].
        decode: latent [B, h, w, c] -> logits [B, classes].
        whole: uint8 [B, H, W, 3] -> logits [B, classes], through the quantiser that it was trained for.
    """

    encode: Callable[[np.ndarray], jax.Array]
    decode: Callable[[np.ndarray], jax.Array]
    whole: Callable[[np.ndarray], jax.Array]


@dataclasses.dataclass(frozen=True)
class FileParity:
    """One file of the bundle.

    Attributes:
        bytes: its size.
        milliseconds: of one image on one thread, median.
        largest_difference: from Flax on the same input: of an int8 head in steps, else relative to the largest value.
    """

    bytes: int
    milliseconds: float
    largest_difference: float


@dataclasses.dataclass(frozen=True)
class Parity:
    """The content of parity.json. Accuracies are `{"top1", "top5"}` in percent, of what `measure` says.

    Attributes:
        images: how many.
        head: precision of head.tflite.
        flax: accuracy of the network as it was trained.
        flax_float: accuracy of the network without a quantiser.
        flax_sent: accuracy of the network with the latents quantised as they are sent.
        raw: accuracy of head and tail with raw latents, and their `bytes`.
        bundle: accuracy of head and tail with payloads of the default rate.
        agreement_percent: images to which head and tail, with raw latents, give the class of `flax_sent`.
        agreement_with_training_percent: images to which they give the class of `flax`.
        files: by name.
        rates: what was measured of each rate, from the most bytes to the fewest.
        default_rate: the id of one of them.
        local: accuracy of local.tflite, and `agreement_percent` with Flax without a quantiser; None without the file.
        measure: "accuracy"; or "agreement", with the teacher's answers, where the images have no labels.
    """

    images: int
    head: str
    flax: dict[str, float]
    flax_float: dict[str, float]
    flax_sent: dict[str, float]
    raw: dict[str, float]
    bundle: dict[str, float]
    agreement_percent: float
    agreement_with_training_percent: float
    files: dict[str, FileParity]
    rates: list[dict[str, Any]]
    default_rate: str
    local: dict[str, float] | None
    measure: str = "accuracy"

    @property
    def _top1(self) -> str:
        """What the table calls `top1`."""
        return "agreement with the teacher" if self.measure == "agreement" else "top-1"

    def failures(self) -> list[str]:
        """Return why the bundle diverges from the network; empty if it does not."""
        messages = []
        if self.head != "int8" and self.agreement_percent < MIN_AGREEMENT:
            messages.append(
                f"head and tail give the class that Flax gives for {self.agreement_percent:.2f} % of {self.images} "
                f"images, less than {MIN_AGREEMENT:g} %"
            )
        for name, file in self.files.items():
            precision = {"head.tflite": self.head, "local.tflite": "float16"}.get(name, "float32")
            if precision in MAX_DIFFERENCE and file.largest_difference > MAX_DIFFERENCE[precision]:
                messages.append(f"{name} is off by {file.largest_difference:.1e} of the largest value")
        loss = self.flax["top1"] - self.raw["top1"]
        if self.head == "int8" and loss > MAX_TOP1_LOSS:
            messages.append(f"the int8 head loses {loss:.2f} points of {self._top1} on {self.images} images")
        if self.local is not None and self.local["agreement_percent"] < MIN_AGREEMENT:
            messages.append(
                f"local.tflite gives Flax's class for {self.local['agreement_percent']:.2f} % of the images"
            )
        return messages

    def table(self) -> str:
        """Return the result as text for a terminal."""
        lines = [f"{'file':<16}{'bytes':>12}{'ms':>9}  largest difference from Flax"]
        for name, file in self.files.items():
            steps = name == "head.tflite" and self.head == "int8"
            difference = f"{file.largest_difference:.0f} steps of 255" if steps else f"{file.largest_difference:.1e}"
            lines.append(f"{name:<16}{file.bytes:>12,}{file.milliseconds:>9.2f}  {difference}")
        lines += [
            f"{self._top1} of {self.images} images: Flax {self.flax['top1']:.2f} %, with the latents as they are sent "
            f"{self.flax_sent['top1']:.2f} %, head and tail {self.raw['top1']:.2f} %",
            f"head and tail give Flax's class for {self.agreement_percent:.2f} % of them "
            f"({self.agreement_with_training_percent:.2f} % against Flax with the quantiser of the training)",
        ]
        if self.local is not None:
            lines.append(f"local.tflite: {self._top1} {self.local['top1']:.2f} %")
        return "\n".join([*lines, "", *self._rate_lines()])

    def _rate_lines(self) -> list[str]:
        """Return the table of rates."""
        column = "    agreement" if self.measure == "agreement" else "    top-1"
        lines = [f"{'rate':<16}{'bytes':>12}{'p95':>9}{column}  steps"]
        raw = {**self.raw, "id": "raw", "bytes_mean": self.raw["bytes"], "bytes_p95": self.raw["bytes"], "steps": []}
        for rate in [raw, *self.rates]:
            values = f"{rate['bytes_mean']:>12,.1f}{rate['bytes_p95']:>9,.0f}{rate['top1']:>{len(column)}.2f}"
            steps = " ".join(map(str, rate["steps"]))
            lines.append(
                f"{rate['id']:<16}{values}  {steps}{' (default)' * (rate['id'] == self.default_rate)}".rstrip()
            )
        return lines

    def write(self, path: Path) -> None:
        """Write parity.json."""
        values = dataclasses.asdict(self)
        if self.local is None:
            del values["local"]
        path.write_text(json.dumps(values, indent=2) + "\n")


def create_reference(student: Student) -> Reference:
    """Compile the student's encoder, decoder with tail, and the whole network."""
    module, variables, size = student.module, jax.device_put(student.variables), student.image_size
    pixels = functools.partial(normalise, mean=student.meta.mean, std=student.meta.std)
    decode = functools.partial(module.apply, method="decode", image_size=(size, size))
    encode = jax.jit(lambda variables, images: module.apply(variables, pixels(images), method="encode"))
    logits = jax.jit(lambda variables, latent: decode(variables, latent)[0])
    whole = jax.jit(lambda variables, images: module.apply(variables, pixels(images))[0])
    return Reference(
        lambda images: encode(variables, jnp.asarray(images)),
        lambda latent: logits(variables, jnp.asarray(latent)),
        lambda images: whole(variables, jnp.asarray(images)),
    )


@dataclasses.dataclass(frozen=True)
class Measured:
    """What images give, sent through the files of a bundle and through Flax.

    Attributes:
        evaluation: the images.
        columns: the columns of the logits that are the dataset's classes; None for all.
        sent: uint8 [N, h, w, c], the latents of head.tflite.
        logits: [N, classes] by name: `flax`, `flax_float`, `flax_sent`, `raw`, and `local` if there is that file.
        largest: the largest difference of each file.
    """

    evaluation: ImageSet
    columns: Any
    sent: np.ndarray
    logits: dict[str, np.ndarray]
    largest: dict[str, float]

    @functools.cached_property
    def accuracies(self) -> dict[str, dict[str, float]]:
        """The accuracy of each of `logits`: `{"top1", "top5"}` in percent."""
        labels = self.evaluation.labels
        everything = np.ones(len(labels), bool)
        return {
            name: percentages(correct_counts(scores, labels, everything, class_indices=self.columns))
            for name, scores in self.logits.items()
        }

    def agreement(self, name: str, other: str) -> float:
        """Return the percentage of images to which two of `logits` give the same class."""
        chosen = slice(None) if self.columns is None else np.asarray(self.columns)
        first, second = (self.logits[each][:, chosen].argmax(-1) for each in (name, other))
        return float(100 * np.mean(first == second))


def measure(
    files: OpenFiles, student: Student, reference: Reference, evaluation: ImageSet, *, affine: Affine
) -> Measured:
    """Send every image through the files of a bundle, and through Flax.

    Args:
        files: of the bundle.
        student: that they were made from.
        reference: of the student.
        evaluation: images with labels.
        affine: of the latents as they are sent.
    """
    logits: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    largest, all_sent = dict.fromkeys(files.runs, 0.0), []
    for images in evaluation.batches(BATCH):
        latents, encoded = np.asarray(reference.encode(images), np.float32), files.encode(images)
        sent, ideal = files.sent(encoded), files.quantise(latents)
        if files.is_int8:
            steps = np.abs(sent.astype(int) - ideal.astype(int)).max()
            largest["head.tflite"] = max(largest["head.tflite"], float(steps))
        else:
            _update_largest(largest, "head.tflite", encoded, latents)
        jetson = np.stack([files.runs["head.onnx"](image) for image in images])
        _update_largest(largest, "head.onnx", jetson, latents)
        answers, expected = files.runs["tail.onnx"](sent), np.asarray(reference.decode(dequantize(sent, affine)))
        _update_largest(largest, "tail.onnx", answers, expected)
        _update_largest(largest, "tail.onnx", files.probabilities(sent), np.asarray(jax.nn.softmax(expected)))
        _update_largest(largest, "tail.stablehlo", files.runs["tail.stablehlo"](sent), expected)
        all_sent.append(sent)
        logits["flax"].append(np.asarray(reference.whole(images)))
        logits["flax_float"].append(np.asarray(reference.decode(latents)))
        logits["flax_sent"].append(np.asarray(reference.decode(dequantize(ideal, affine))))
        logits["raw"].append(answers)
        if "local.tflite" in files.runs:
            local = np.stack([files.runs["local.tflite"](image) for image in images])
            _update_largest(largest, "local.tflite", local, logits["flax_float"][-1])
            logits["local"].append(local)
    names = evaluation.class_names
    columns = data.class_columns(names, student.meta.labels, student.meta.num_classes) if names else None
    joined = {name: np.concatenate(parts) for name, parts in logits.items()}
    return Measured(evaluation, columns, np.concatenate(all_sent), joined, largest)


def summarise(folder: Path, files: OpenFiles, measured: Measured, ladder: Ladder, *, head: str) -> Parity:
    """Return the content of parity.json.

    Args:
        folder: of the files.
        files: of the bundle.
        measured: with them.
        ladder: of the bundle's rates.
        head: precision of head.tflite.
    """
    image, accuracies, default = measured.evaluation.images[0], measured.accuracies, ladder.default_point
    local = None
    if "local" in accuracies:
        local = {**accuracies["local"], "agreement_percent": measured.agreement("local", "flax_float")}
    inputs = {name: measured.sent[:1] if name.startswith("tail") else image for name in files.runs}
    return Parity(
        images=len(measured.evaluation.images),
        head=head,
        **{name: accuracies[name] for name in ("flax", "flax_float", "flax_sent")},
        raw={"bytes": measured.sent[0].size, **accuracies["raw"]},
        bundle={"top1": default.top1, "top5": default.top5},
        agreement_percent=measured.agreement("raw", "flax_sent"),
        agreement_with_training_percent=measured.agreement("raw", "flax"),
        files={
            name: FileParity((folder / name).stat().st_size, _milliseconds(run, inputs[name]), measured.largest[name])
            for name, run in files.runs.items()
        },
        rates=[point.to_json() for point in ladder.points],
        default_rate=ladder.default,
        local=local,
        measure="agreement" if measured.evaluation.agreement else "accuracy",
    )


def _update_largest(largest: dict[str, float], name: str, values: np.ndarray, expected: np.ndarray) -> None:
    scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    largest[name] = max(largest[name], float(np.abs(values - expected).max()) / scale)


def _milliseconds(run: Run, value: np.ndarray) -> float:
    """Measure the median time of one call."""
    run(value)
    times = []
    for _ in range(TIMED_CALLS):
        start = time.perf_counter()
        run(value)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3
