"""A student becomes the files of a bundle, and the files are held against the student."""

import argparse
import functools
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import bottlefit_jax
from bottlefit_jax.bundle import FORMAT, identity, write_manifest
from bottlefit_jax.codec.quantizer import Affine, static_range
from bottlefit_jax.data import default_resize
from bottlefit_jax.edge.interpreter import Interpreter
from bottlefit_jax.errors import ParityError, UserError
from bottlefit_jax.training import checkpoint
from export import litert, parity
from export.divergence import first_divergence
from export.folding import Folded, check_exportable, fold_encoder
from export.head import float_head, integer_head
from export.latent import latent_range
from export.student import ImageSet, Student, read_images, read_student
from export.tail import head_onnx, tail_function, tail_onnx, tail_stablehlo

LIBRARIES = ("jax", "flax", "numpy", "litert-converter", "ai-edge-quantizer", "ai-edge-litert", "onnx", "onnxruntime")


def export(args: argparse.Namespace, folder: Path) -> str:
    """Write a bundle into an empty folder, proves it, and return what a person should read.

    Args:
        args: of `export.bundle`.
        folder: empty.

    Raises:
        UserError: the run, its data or the flags cannot be used.
        ParityError: the files do not do what the student does.
    """
    student = read_student(args.workdir)
    check_exportable(student.module)
    bits = student.meta["bottleneck"]["bits"] or 8
    if args.head == "int8" and bits != 8:
        raise UserError(f"--head int8 sends 8 bits a value, and this student was trained for {bits}: take float16")
    evaluation = read_images(student, "val", limit=args.images, root=args.data)
    calibration = read_images(student, "train", limit=args.calibration, root=args.data)
    reference = parity.create_reference(student)
    span = latent_range(student, reference.encode, calibration)
    folded = fold_encoder(student.module, student.variables, **pixels_of(student))
    affine = _write_head(folder, student, folded, calibration, args.head, span=span, bits=bits)
    _write_tail(folder, student, affine)
    if args.local:
        _write_local(folder, student, half=args.head != "float32")
    result = parity.measure(folder, student, reference, evaluation, affine=affine, bits=bits, head=args.head)
    if found := parity.complaints(result):
        where = first_divergence(
            student, reference, folded, images=evaluation.images, calibration=calibration, precision=args.head
        )
        raise ParityError(f"{'; '.join(found)}; {where}")
    parity.write(folder / "parity.json", result)
    write_manifest(folder, _manifest(args, student, calibration, affine, bits))
    return parity.table(result)


def pixels_of(student: Student) -> dict:
    """How the student's images are prepared: size and normalisation."""
    size = (student.image_size, student.image_size)
    return {"mean": student.meta["mean"], "std": student.meta["std"], "image_size": size}


def _write_head(
    folder: Path,
    student: Student,
    folded: Folded,
    calibration: ImageSet,
    precision: str,
    *,
    span: tuple[float, float],
    bits: int,
) -> Affine:
    """head.tflite and head.onnx; returns how the latents are sent."""
    shape = (1, *folded.image_size, 3)
    affine = static_range(*map(np.float32, span), bits=bits)
    if precision == "int8":
        blob = litert.to_int8(
            litert.to_tflite(integer_head(folded), shape), list(calibration.images), latent_range=span
        )
        device = Interpreter(blob)
        affine = Affine(np.float32(device.scale), np.int32(device.zero_point), np.float32(0))
    else:
        blob = litert.to_tflite(float_head(folded), shape)
        blob = litert.to_float16(blob) if precision == "float16" else blob
    (folder / "head.tflite").write_bytes(blob)
    model = head_onnx(student.module, student.variables, **pixels_of(student))
    (folder / "head.onnx").write_bytes(model.SerializeToString())
    return affine


def _write_tail(folder: Path, student: Student, affine: Affine) -> None:
    """tail.onnx and tail.stablehlo."""
    size = (student.image_size, student.image_size)
    tail = tail_function(student.module, student.variables, float(affine.scale), int(affine.zero_point), size)
    shape = latent_shape(student)
    model = tail_onnx(tail, shape)
    (folder / "tail.onnx").write_bytes(model.SerializeToString())
    (folder / "tail.stablehlo").write_bytes(tail_stablehlo(tail, shape))


def _write_local(folder: Path, student: Student, *, half: bool) -> None:
    pixels = pixels_of(student)
    shape = (1, *pixels.pop("image_size"), 3)
    blob = litert.local_tflite(student.module, student.variables, **pixels, image_shape=shape)
    (folder / "local.tflite").write_bytes(litert.to_float16(blob) if half else blob)


def latent_shape(student: Student) -> tuple[int, int, int]:
    """(h, w, c) of what one image sends."""
    encode = functools.partial(student.module.apply, method="encode")
    image = jax.ShapeDtypeStruct((1, student.image_size, student.image_size, 3), jnp.float32)
    _, h, w, c = jax.eval_shape(encode, student.variables, image).shape
    return h, w, c


def _manifest(args: argparse.Namespace, student: Student, calibration: ImageSet, affine: Affine, bits: int) -> dict:
    meta, size = student.meta, student.image_size
    resize = student.dataset["resize"] or default_resize(size)
    scale, zero_point = float(affine.scale), int(affine.zero_point)
    encoder = {kind: tree["encoder"] for kind, tree in student.variables.items() if "encoder" in tree}
    head_id = identity(
        checkpoint.digest(encoder), repr((meta["mean"], meta["std"], size, resize)), repr((scale, zero_point, bits))
    )
    return {
        "format": FORMAT,
        "name": args.name,
        "version": args.version,
        "model": {key: _plain(meta[key]) for key in ("name", "options", "bottleneck", "num_classes")},
        "labels": names_of(meta["labels"]),
        "image": {"height": size, "width": size, "order": "RGB", "dtype": "uint8", "resize": resize},
        "latent": {
            "shape": list(latent_shape(student)),
            "dtype": "uint8",
            "bits": bits,
            "scale": scale,
            "zero_point": zero_point,
        },
        "head": {"id": head_id, "precision": args.head, "litert": "head.tflite", "onnx": "head.onnx"},
        "tail": {
            "id": identity(checkpoint.digest(student.variables), head_id),
            "head": head_id,
            "onnx": "tail.onnx",
            "stablehlo": "tail.stablehlo",
        },
        "local": {"litert": "local.tflite"} if args.local else None,
        "calibration": {
            "split": "train",
            "count": len(calibration.names),
            "sha256": identity(*calibration.names),
        },
        "versions": {
            "bottlefit_jax": bottlefit_jax.__version__,
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
    }


def names_of(labels: Sequence[Sequence[str]]) -> list[str]:
    """One label for each class: its first name that is no wnid, with the wnid where two classes share that name."""
    first = [names[1] if len(names) > 1 else names[0] for names in labels]
    return [
        f"{name} ({names[0]})" if first.count(name) > 1 and len(names) > 1 else name
        for name, names in zip(first, labels, strict=True)
    ]


def _plain(value):
    """Tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
