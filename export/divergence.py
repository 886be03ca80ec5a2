"""Finds where an export goes wrong: the first layer whose values diverge from those of the network."""

from collections.abc import Callable, Iterator

import jax
import numpy as np

from bottlefit_jax.edge.runtimes.litert import Interpreter
from export import litert
from export.folding import Folded
from export.head import float_head, integer_head
from export.images import ImageSet
from export.open_files import run_onnx, session_of
from export.parity import Reference
from export.student import Student
from export.tail import tail_function, tail_onnx

# Largest error of a layer: its root mean square, relative to that of the layer's values.
ALLOWED = {"float32": 1e-4, "float16": 1e-2, "int8": 0.1}
IMAGES = 8  # that are compared


def first_divergence(
    student: Student,
    reference: Reference,
    folded: Folded,
    *,
    images: np.ndarray,
    calibration: ImageSet,
    precision: str,
) -> str:
    """Name the first layer that diverges, or the one with the largest error if none does, in one sentence.

    Args:
        student: what was exported.
        reference: of the student.
        folded: the student's encoder.
        images: uint8 [N, H, W, 3]; the first few are compared.
        calibration: of an int8 head.
        precision: of the head.
    """
    worst = ("encoder/0", 0.0)
    for name, error, allowed in _errors(student, reference, folded, images[:IMAGES], calibration, precision):
        if error > allowed:
            return f"{name} diverges first: its values are off by {100 * error:.3g} % (root mean square)"
        worst = max(worst, (name, error), key=lambda pair: pair[1])
    return f"no layer diverges by itself; the largest error is that of {worst[0]}, {100 * worst[1]:.3g} %"


def _errors(
    student: Student,
    reference: Reference,
    folded: Folded,
    images: np.ndarray,
    calibration: ImageSet,
    precision: str,
) -> Iterator[tuple[str, float, float]]:
    """Yield (layer, error, largest allowed error) in the order of computation."""
    latents = np.asarray(reference.encode(images), np.float32)
    for number, name in enumerate(folded.layer_names, 1):
        expected = jax.jit(float_head(folded, until=number))
        error = _error(_layer(folded, number, precision, calibration), expected, images)
        yield name, error, ALLOWED[precision]
    whole = jax.jit(float_head(folded))
    exact = np.concatenate([np.asarray(whole(image[None])) for image in images])
    yield "encoder, as it is folded,", _relative(exact, latents), ALLOWED["float32"]
    size = (student.image_size, student.image_size)
    tail = tail_function(student.module, student.variables, 1.0, 0, size, with_features=True)
    sent = np.clip(np.rint(latents), 0, 255).astype(np.uint8)
    logits, features = jax.jit(tail)(sent)
    expected = {**features, "logits": logits}
    names = [name for name in ("latent", "decoded", *student.module.parts, "logits") if name in expected]
    session = session_of(tail_onnx(tail, latents.shape[1:], outputs=names).SerializeToString())
    for name, values in zip(names, run_onnx(session, sent), strict=True):
        yield name, _relative(values, np.asarray(expected[name])), ALLOWED["float32"]


def _layer(folded: Folded, until: int, precision: str, calibration: ImageSet) -> Callable[[np.ndarray], np.ndarray]:
    """Export the head up to a layer, and return it as a function of one image with float32 values."""
    head = integer_head if precision == "int8" else float_head
    blob = litert.to_tflite(head(folded, until=until), (1, *folded.image_size, 3))
    if precision == "int8":
        blob = litert.to_int8(blob, list(calibration.images))
    elif precision == "float16":
        blob = litert.to_float16(blob)
    device = Interpreter(blob)

    def run(image: np.ndarray) -> np.ndarray:
        values = device.run(image)
        return values if device.scale is None else device.scale * (values.astype(np.float32) - device.zero_point)

    return run


def _error(layer: Callable[[np.ndarray], np.ndarray], expected: Callable, images: np.ndarray) -> float:
    values = np.stack([layer(image) for image in images])
    return _relative(values, np.concatenate([np.asarray(expected(image[None])) for image in images]))


def _relative(values: np.ndarray, expected: np.ndarray) -> float:
    scale = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    error = float(np.sqrt(np.mean(np.square(values.astype(np.float64) - expected))))
    return error / max(scale, float(np.finfo(np.float32).tiny))
