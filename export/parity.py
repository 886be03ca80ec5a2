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
import onnxruntime

from bottlefit_jax import data
from bottlefit_jax.codec.quantizer import Affine, dequantize, quantize
from bottlefit_jax.evaluation.accuracy import correct_counts, percentages
from bottlefit_jax.models.normalise import normalise
from export.images import ImageSet
from export.litert import open_model
from export.student import Student

MIN_AGREEMENT = 99.0  # percent of the images to which a float bundle must give the class that Flax gives
MAX_TOP1_LOSS = 0.5  # points of top-1 that an int8 bundle may lose against Flax
MAX_DIFFERENCE = {"float32": 1e-3, "float16": 3e-2}  # of a float file, relative to the largest value
BATCH = 32
TIMED_CALLS = 30  # for a median

# A head or local file: uint8 [H, W, 3] -> values of that image. A tail: uint8 [B, h, w, c] -> logits [B, classes].
Run = Callable[[np.ndarray], np.ndarray]


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
    """The content of parity.json. Accuracies are `{"top1", "top5"}` in percent.

    Attributes:
        images: how many.
        head: precision of head.tflite.
        flax: accuracy of the network as it was trained.
        flax_sent: accuracy of the network with the latents quantised as they are sent.
        bundle: accuracy of head and tail.
        agreement_percent: images to which the bundle gives the class of `flax_sent`.
        agreement_with_training_percent: images to which the bundle gives the class of `flax`.
        files: by name.
        local: accuracy of local.tflite, and `agreement_percent` with Flax without a quantiser; None without the file.
    """

    images: int
    head: str
    flax: dict[str, float]
    flax_sent: dict[str, float]
    bundle: dict[str, float]
    agreement_percent: float
    agreement_with_training_percent: float
    files: dict[str, FileParity]
    local: dict[str, float] | None

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
        loss = self.flax["top1"] - self.bundle["top1"]
        if self.head == "int8" and loss > MAX_TOP1_LOSS:
            messages.append(f"the int8 head loses {loss:.2f} points of top-1 on {self.images} images")
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
            f"top-1 of {self.images} images: Flax {self.flax['top1']:.2f} %, with the latents as they are sent "
            f"{self.flax_sent['top1']:.2f} %, the bundle {self.bundle['top1']:.2f} %",
            f"the bundle gives Flax's class for {self.agreement_percent:.2f} % of them "
            f"({self.agreement_with_training_percent:.2f} % against Flax with the quantiser of the training)",
        ]
        if self.local is not None:
            lines.append(f"local.tflite: top-1 {self.local['top1']:.2f} %")
        return "\n".join(lines)

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


def session_of(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Open an ONNX file, or its content, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnx(session: onnxruntime.InferenceSession, value: np.ndarray) -> Any:
    """Return all outputs of a model with one input."""
    return session.run(None, {session.get_inputs()[0].name: value})


def measure(
    folder: Path, student: Student, reference: Reference, evaluation: ImageSet, *, affine: Affine, bits: int, head: str
) -> Parity:
    """Send every image through the files of a bundle, and through Flax.

    Args:
        folder: with head.tflite, head.onnx, tail.onnx, tail.stablehlo, and local.tflite if there is one.
        student: that the files were made from.
        reference: of the student.
        evaluation: images with labels.
        affine: of the latents as they are sent.
        bits: of the same.
        head: precision of head.tflite.
    """
    files = _open_files(folder)
    wire = functools.partial(quantize, affine=affine, bits=bits)
    logits: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    largest: dict[str, float] = dict.fromkeys(files, 0.0)
    for images in evaluation.batches(BATCH):
        latents = np.asarray(reference.encode(images), np.float32)
        encoded = np.stack([files["head.tflite"](image) for image in images])
        sent = encoded if head == "int8" else wire(encoded)
        if head == "int8":
            steps = np.abs(sent.astype(int) - wire(latents).astype(int)).max()
            largest["head.tflite"] = max(largest["head.tflite"], float(steps))
        else:
            _update_largest(largest, "head.tflite", encoded, latents)
        _update_largest(largest, "head.onnx", np.stack([files["head.onnx"](image) for image in images]), latents)
        answers, expected = files["tail.onnx"](sent), np.asarray(reference.decode(dequantize(sent, affine)))
        _update_largest(largest, "tail.onnx", answers, expected)
        _update_largest(largest, "tail.onnx", probabilities(sent), np.asarray(jax.nn.softmax(expected)))
        _update_largest(largest, "tail.stablehlo", files["tail.stablehlo"](sent), expected)
        logits["flax"].append(np.asarray(reference.whole(images)))
        logits["flax_sent"].append(np.asarray(reference.decode(dequantize(wire(latents), affine))))
        logits["bundle"].append(answers)
        if "local.tflite" in files:
            logits["flax_unquantised"].append(np.asarray(reference.decode(latents)))
            logits["local"].append(np.stack([files["local.tflite"](image) for image in images]))
    joined = {name: np.concatenate(parts) for name, parts in logits.items()}
    columns = data.class_columns(evaluation.class_names, student.meta.labels, student.meta.num_classes)
    accuracies = {name: _accuracy(scores, evaluation.labels, columns) for name, scores in joined.items()}
    local = None
    if "local" in joined:
        _update_largest(largest, "local.tflite", joined["local"], joined["flax_unquantised"])
        agreement = _agreement(joined["local"], joined["flax_unquantised"], columns)
        local = {**accuracies["local"], "agreement_percent": agreement}
    inputs = {name: sent[:1] if name.startswith("tail") else evaluation.images[0] for name in files}
    return Parity(
        images=len(evaluation.images),
        head=head,
        **{name: accuracies[name] for name in ("flax", "flax_sent", "bundle")},
        agreement_percent=_agreement(joined["bundle"], joined["flax_sent"], columns),
        agreement_with_training_percent=_agreement(joined["bundle"], joined["flax"], columns),
        files={
            name: FileParity((folder / name).stat().st_size, _milliseconds(run, inputs[name]), largest[name])
            for name, run in files.items()
        },
        local=local,
    )


def _open_files(folder: Path) -> dict[str, Run]:
    """Open each file of the bundle once."""
    device = open_model(folder / "head.tflite")
    jetson, tail = session_of(folder / "head.onnx"), session_of(folder / "tail.onnx")
    stablehlo = jax.export.deserialize(bytearray((folder / "tail.stablehlo").read_bytes()))
    files: dict[str, Run] = {
        "head.tflite": device.run,
        "head.onnx": lambda image: run_onnx(jetson, image[None].astype(np.float32))[0][0],
        "tail.onnx": lambda latents: run_onnx(tail, latents)[0],
        "tail.stablehlo": lambda latents: np.asarray(stablehlo.call(latents)),
    }
    if (folder / "local.tflite").exists():
        files["local.tflite"] = open_model(folder / "local.tflite").run
    return files


def _update_largest(largest: dict[str, float], name: str, values: np.ndarray, expected: np.ndarray) -> None:
    scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    largest[name] = max(largest[name], float(np.abs(values - expected).max()) / scale)


def _accuracy(logits: np.ndarray, labels: np.ndarray, columns: Any) -> dict[str, float]:
    return percentages(correct_counts(logits, labels, np.ones(len(labels), bool), class_indices=columns))


def _agreement(logits: np.ndarray, others: np.ndarray, columns: Any) -> float:
    chosen = slice(None) if columns is None else np.asarray(columns)
    return float(100 * np.mean(logits[:, chosen].argmax(-1) == others[:, chosen].argmax(-1)))


def _milliseconds(run: Run, value: np.ndarray) -> float:
    """Measure the median time of one call."""
    run(value)
    times = []
    for _ in range(TIMED_CALLS):
        start = time.perf_counter()
        run(value)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3
