"""The proof that ends every export: real images through the files, against the network that they were made from."""

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
from bottlefit_jax.edge.interpreter import Interpreter
from bottlefit_jax.evaluation.accuracy import correct_counts, percentages
from bottlefit_jax.models.normalise import normalise
from export.student import ImageSet, Student

AGREEMENT = 99.0  # percent of the images that a float bundle must give the class that Flax gives
TOP1_LOSS = 0.5  # points of top-1 that an int8 bundle may lose against Flax
# Largest difference that a float file may have, relative to the largest value.
DIFFERENCE = {"float32": 1e-3, "float16": 3e-2}
BATCH = 32
TIMED = 30  # calls that a median is taken of


@dataclasses.dataclass(frozen=True)
class Reference:
    """The student in Flax, compiled once.

    Attributes:
        encode: uint8 [B, H, W, 3] -> latent [B, h, w, c].
        decode: latent -> logits [B, classes].
        whole: uint8 images -> logits, by the quantiser that it was trained for.
    """

    encode: Callable[[np.ndarray], jax.Array]
    decode: Callable[[np.ndarray], jax.Array]
    whole: Callable[[np.ndarray], jax.Array]


def create_reference(student: Student) -> Reference:
    """Compiles the student's halves."""
    module, variables, size = student.module, jax.device_put(student.variables), student.image_size
    pixels = functools.partial(normalise, mean=tuple(student.meta["mean"]), std=tuple(student.meta["std"]))
    decode = functools.partial(module.apply, method="decode", image_size=(size, size))
    encode = jax.jit(lambda variables, images: module.apply(variables, pixels(images), method="encode"))
    behind = jax.jit(lambda variables, latent: decode(variables, latent)[0])
    whole = jax.jit(lambda variables, images: module.apply(variables, pixels(images))[0])
    return Reference(
        lambda images: encode(variables, jnp.asarray(images)),
        lambda latent: behind(variables, jnp.asarray(latent)),
        lambda images: whole(variables, jnp.asarray(images)),
    )


def session_of(model: Path | bytes) -> onnxruntime.InferenceSession:
    """An ONNX file, or its content, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnx(session: onnxruntime.InferenceSession, value: np.ndarray) -> Any:
    """All outputs of a model with one input."""
    return session.run(None, {session.get_inputs()[0].name: value})


def measure(
    folder: Path, student: Student, reference: Reference, evaluation: ImageSet, *, affine: Affine, bits: int, head: str
) -> dict[str, Any]:
    """Send every image through the files of a bundle, and through Flax.

    Args:
        folder: with head.tflite, head.onnx, tail.onnx, tail.stablehlo, and local.tflite where there is one.
        student: that they were made from.
        reference: of it.
        evaluation: for evaluation.
        affine: of the latents on the wire.
        bits: of the same.
        head: precision of head.tflite.

    Returns:
        What `parity.json` holds. "files" has for each file bytes, milliseconds of one image on one thread (median),
        and its largest difference from Flax on the same input: of a float output relative to the largest value, of an
        int8 head in steps. "flax" is the network as it was trained, "flax_sent" the same with the latents quantised as
        they are sent, "bundle" the head and the tail.
    """
    device = Interpreter(folder / "head.tflite")
    jetson, tail = session_of(folder / "head.onnx"), session_of(folder / "tail.onnx")
    stablehlo = jax.export.deserialize(bytearray((folder / "tail.stablehlo").read_bytes()))
    wire = functools.partial(quantize, affine=affine, bits=bits)
    logits: dict[str, list[np.ndarray]] = {"flax": [], "flax_sent": [], "bundle": []}
    largest: dict[str, float] = dict.fromkeys(("head.tflite", "head.onnx", "tail.onnx", "tail.stablehlo"), 0.0)
    for images in evaluation.batches(BATCH):
        latents = np.asarray(reference.encode(images), np.float32)
        made = np.stack([device.run(image) for image in images])
        on_jetson = np.concatenate([run_onnx(jetson, image[None].astype(np.float32))[0] for image in images])
        sent = made if head == "int8" else wire(made)
        if head == "int8":
            steps = np.abs(sent.astype(int) - wire(latents).astype(int)).max()
            largest["head.tflite"] = max(largest["head.tflite"], float(steps))
        else:
            _note(largest, "head.tflite", made, latents)
        _note(largest, "head.onnx", on_jetson, latents)
        answers = run_onnx(tail, sent)[0]
        behind = np.asarray(reference.decode(dequantize(sent, affine)))
        _note(largest, "tail.onnx", answers, behind)
        _note(largest, "tail.stablehlo", np.asarray(stablehlo.call(sent)), behind)
        logits["flax"].append(np.asarray(reference.whole(images)))
        logits["flax_sent"].append(np.asarray(reference.decode(dequantize(wire(latents), affine))))
        logits["bundle"].append(answers)
    columns = data.class_columns(evaluation.class_names, student.meta["labels"], student.meta["num_classes"])
    joined = {name: np.concatenate(parts) for name, parts in logits.items()}
    one = evaluation.images[0]
    calls = {
        "head.tflite": lambda: device.run(one),
        "head.onnx": lambda: run_onnx(jetson, one[None].astype(np.float32)),
        "tail.onnx": lambda: run_onnx(tail, sent[:1]),
        "tail.stablehlo": lambda: np.asarray(stablehlo.call(sent[:1])),
    }
    result = {
        "images": len(evaluation.images),
        "head": head,
        **{name: _accuracy(scores, evaluation.labels, columns) for name, scores in joined.items()},
        "agreement_percent": _agreement(joined["bundle"], joined["flax_sent"], columns),
        "agreement_with_training_percent": _agreement(joined["bundle"], joined["flax"], columns),
        "files": {name: _of_file(folder / name, call, largest[name]) for name, call in calls.items()},
    }
    if (folder / "local.tflite").exists():
        result["local"] = _local(folder, reference, evaluation, columns, result["files"])
    return result


def complaints(result: dict[str, Any]) -> list[str]:
    """Why a bundle may not be used, from what `measure` found; empty where it may."""
    found = []
    if result["head"] != "int8" and result["agreement_percent"] < AGREEMENT:
        found.append(
            f"head and tail give the class that Flax gives for {result['agreement_percent']:.2f} % of "
            f"{result['images']} images, less than {AGREEMENT:g} %"
        )
    for name, row in result["files"].items():
        precision = {"head.tflite": result["head"], "local.tflite": "float16"}.get(name, "float32")
        if precision in DIFFERENCE and row["largest_difference"] > DIFFERENCE[precision]:
            found.append(f"{name} is off by {row['largest_difference']:.1e} of the largest value")
    lost = result["flax"]["top1"] - result["bundle"]["top1"]
    if result["head"] == "int8" and lost > TOP1_LOSS:
        found.append(f"the int8 head loses {lost:.2f} points of top-1 on {result['images']} images")
    if "local" in result and result["local"]["agreement_percent"] < AGREEMENT:
        found.append(f"local.tflite gives Flax's class for {result['local']['agreement_percent']:.2f} % of the images")
    return found


def table(result: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [f"{'file':<16}{'bytes':>12}{'ms':>9}  largest difference from Flax"]
    for name, row in result["files"].items():
        steps = name == "head.tflite" and result["head"] == "int8"
        difference = f"{row['largest_difference']:.0f} steps of 255" if steps else f"{row['largest_difference']:.1e}"
        lines.append(f"{name:<16}{row['bytes']:>12,}{row['milliseconds']:>9.2f}  {difference}")
    lines.append(f"top-1 of {result['images']} images: Flax {result['flax']['top1']:.2f} %, with the latents as they ")
    lines[-1] += f"are sent {result['flax_sent']['top1']:.2f} %, the bundle {result['bundle']['top1']:.2f} %"
    lines.append(
        f"the bundle gives Flax's class for {result['agreement_percent']:.2f} % of them "
        f"({result['agreement_with_training_percent']:.2f} % against Flax with the quantiser of the training)"
    )
    if "local" in result:
        lines.append(f"local.tflite: top-1 {result['local']['top1']:.2f} %")
    return "\n".join(lines)


def write(path: Path, result: dict[str, Any]) -> None:
    """Write `parity.json`."""
    path.write_text(json.dumps(result, indent=2) + "\n")


def _note(largest: dict[str, float], name: str, got: Any, expected: Any) -> None:
    scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    largest[name] = max(largest[name], float(np.abs(got - expected).max()) / scale)


def _accuracy(logits: Any, labels: np.ndarray, columns: Any) -> dict[str, float]:
    return percentages(correct_counts(logits, labels, np.ones(len(labels), bool), class_indices=columns))


def _agreement(logits: Any, others: Any, columns: Any) -> float:
    chosen = slice(None) if columns is None else np.asarray(columns)
    return float(100 * np.mean(logits[:, chosen].argmax(-1) == others[:, chosen].argmax(-1)))


def _of_file(path: Path, call: Callable[[], Any], difference: float) -> dict[str, Any]:
    call()
    times = []
    for _ in range(TIMED):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    milliseconds = float(np.median(times)) * 1e3
    return {"bytes": path.stat().st_size, "milliseconds": milliseconds, "largest_difference": difference}


def _local(
    folder: Path, reference: Reference, images: ImageSet, columns: Any, files: dict[str, Any]
) -> dict[str, float]:
    """The whole student in one file, against Flax without a quantiser."""
    interpreter, largest = Interpreter(folder / "local.tflite"), {"local.tflite": 0.0}
    expected = np.concatenate(
        [np.asarray(reference.decode(np.asarray(reference.encode(x)))) for x in images.batches(BATCH)]
    )
    logits = np.stack([interpreter.run(image) for image in images.images])
    _note(largest, "local.tflite", logits, expected)
    one = images.images[0]
    files["local.tflite"] = _of_file(folder / "local.tflite", lambda: interpreter.run(one), largest["local.tflite"])
    agreement = _agreement(logits, expected, columns)
    return {**_accuracy(logits, images.labels, columns), "agreement_percent": agreement}
