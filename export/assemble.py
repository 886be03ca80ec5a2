"""Assembles a bundle: writes the files of a finished student, and compares them with the student."""

import dataclasses
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import bottlefit_jax
from bottlefit_jax.bundle import (
    RAW,
    Bundle,
    Calibration,
    Head,
    HeadFile,
    Image,
    Latent,
    Local,
    Manifest,
    Model,
    Tail,
    Tensor,
    identity,
    write_manifest,
)
from bottlefit_jax.bundle.golden import FILE as GOLDEN
from bottlefit_jax.bundle.golden import write_golden
from bottlefit_jax.codec.quantizer import Affine, static_range
from bottlefit_jax.codec.rates import Rates
from bottlefit_jax.data import default_resize
from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.errors import ParityError, UserError
from bottlefit_jax.evaluation.rate_plot import draw_rate_curve
from bottlefit_jax.evaluation.rates import training_images
from bottlefit_jax.files import atomic_directory
from bottlefit_jax.training import checkpoint
from export import litert, parity
from export.divergence import first_divergence
from export.folding import Folded, check_exportable, fold_encoder
from export.golden import golden_images
from export.head import float_head, integer_head
from export.head_onnx import head_onnx
from export.images import ImageSet, read_images
from export.ladder import PLOT, Ladder, measure_ladder, read_earlier, read_report
from export.latent_range import latent_range
from export.open_files import OpenFiles
from export.options import ExportOptions
from export.rates_plot import image_files, rate_curve
from export.student import Student, read_student
from export.tail import tail_function, tail_onnx, tail_stablehlo
from export.triton import check_fits, write_repository

LIBRARIES = ("jax", "flax", "numpy", "litert-converter", "ai-edge-quantizer", "ai-edge-litert", "onnx", "onnxruntime")


@dataclasses.dataclass(frozen=True)
class Exported:
    """A bundle on the disk, and how closely its files follow the network."""

    bundle: Bundle
    parity: parity.Parity


def export_bundle(options: ExportOptions) -> Exported:
    """Export a finished run as a bundle, whole or not at all.

    Args:
        options: what to export and where to.

    Raises:
        UserError: the run, its data or an option is invalid, or something cannot be written.
        ParityError: the files diverge from the network; nothing was written.
    """
    options.check_folders()
    with atomic_directory(options.output, overwrite=options.overwrite) as folder:
        exported = _export(options, folder)
        if options.triton is not None:
            check_fits(exported.bundle, options.triton, overwrite=options.overwrite)
    exported = dataclasses.replace(exported, bundle=dataclasses.replace(exported.bundle, folder=options.output))
    if options.triton is not None:
        try:
            write_repository(exported.bundle, options.triton, overwrite=options.overwrite)
        except UserError as error:
            raise UserError(f"{options.output} was written, but not the Triton model repository: {error}") from error
    return exported


def _export(options: ExportOptions, folder: Path) -> Exported:
    """Write the files of a bundle into an empty folder, and compare them with the student."""
    student = read_student(options.workdir)
    check_exportable(student.module)
    bits = (student.meta.bottleneck or {}).get("bits") or 8
    if options.head == "int8" and bits != 8:
        raise UserError(f"--head int8 sends 8 bits a value, and this student was trained for {bits}: take float16")
    evaluation = read_images(student, "val", limit=options.images, root=options.data)
    calibration = read_images(student, "train", limit=options.calibration, root=options.data)
    reference = parity.create_reference(student)
    span = latent_range(student, reference.encode, calibration)
    folded = fold_encoder(student.module, student.variables, **_pixels(student))
    affine = _write_head(folder, student, folded, calibration, options.head, span=span, bits=bits)
    _write_tail(folder, student, affine, folded.latent_shape)
    if options.local:
        _write_local(folder, student, folded, half=options.head != "float32")
    manifest = _manifest(options, student, folded, calibration, affine, bits)
    earlier = None if options.rates_from is None else read_earlier(options.rates_from, manifest)
    files = OpenFiles(folder, affine=affine, bits=bits, head=options.head)
    measured = parity.measure(files, student, reference, evaluation, affine=affine)
    if earlier is None:
        limit = training_images(folded.latent_shape)
        training = files.send(read_images(student, "train", limit=limit, root=options.data).images)
    else:
        training = earlier
    ladder = _write_rates(options, folder, measured, manifest, training=training)
    result = parity.summarise(folder, files, measured, ladder, head=options.head)
    write_golden(folder / GOLDEN, golden_images(files, evaluation, ladder.rates))
    if failures := result.failures():
        layer = first_divergence(
            student, reference, folded, images=evaluation.images, calibration=calibration, precision=options.head
        )
        raise ParityError(f"{'; '.join(failures)}; {layer}")
    result.write(folder / "parity.json")
    local = None if result.local is None else Local("local.tflite", result.local["top1"])
    manifest = dataclasses.replace(manifest, local=local, rates=ladder.entries(), default_rate=ladder.default)
    return Exported(write_manifest(folder, manifest), result)


def _pixels(student: Student) -> dict:
    """Return how the student's images are prepared: size and normalisation."""
    size = (student.image_size, student.image_size)
    return {"mean": student.meta.mean, "std": student.meta.std, "image_size": size}


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
    """Write head.tflite and head.onnx, and return how latents become integers."""
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
    model = head_onnx(student.module, student.variables, **_pixels(student))
    (folder / "head.onnx").write_bytes(model.SerializeToString())
    return affine


def _write_tail(folder: Path, student: Student, affine: Affine, shape: tuple[int, int, int]) -> None:
    """Write tail.onnx and tail.stablehlo."""
    size = (student.image_size, student.image_size)
    tail = tail_function(student.module, student.variables, float(affine.scale), int(affine.zero_point), size)
    model = tail_onnx(tail, shape)
    (folder / "tail.onnx").write_bytes(model.SerializeToString())
    (folder / "tail.stablehlo").write_bytes(tail_stablehlo(tail, shape))


def _write_local(folder: Path, student: Student, folded: Folded, *, half: bool) -> None:
    """Write local.tflite, with float16 weights if `half`."""
    blob = litert.local_tflite(student.module, student.variables, folded)
    (folder / "local.tflite").write_bytes(litert.to_float16(blob) if half else blob)


def _write_rates(
    options: ExportOptions,
    folder: Path,
    measured: parity.Measured,
    manifest: Manifest,
    *,
    training: np.ndarray | Rates,
) -> Ladder:
    """Write rates.json and rates.png, and return what was measured; `training` as in `measure_ladder`."""
    report, evaluation = read_report(options.workdir), measured.evaluation
    teacher = report.get("teacher") or {}
    teacher_top1 = teacher.get("top1") if teacher.get("images") == len(evaluation.images) else None
    ladder = measure_ladder(
        folder / "tail.onnx",
        training,
        measured.sent,
        evaluation.labels,
        columns=measured.columns,
        head=manifest.head.id,
        zero_point=manifest.latent.zero_point,
        float_top1=measured.accuracies["flax_float"]["top1"],
        teacher_top1=teacher_top1,
    )
    ladder.write(folder)
    curve = rate_curve(
        ladder,
        raw=(measured.sent[0].size, measured.accuracies["raw"]["top1"]),
        teacher_top1=teacher_top1,
        files=image_files(report, evaluation.images),
        dataset=report.get("dataset") or "the evaluation images",  # older runs have no report
        images=len(evaluation.images),
        agreement=evaluation.agreement,
    )
    draw_rate_curve(folder / PLOT, curve)
    return ladder


def _manifest(
    options: ExportOptions, student: Student, folded: Folded, calibration: ImageSet, affine: Affine, bits: int
) -> Manifest:
    """Describe the files for device and server, but for what was measured; `write_manifest` adds their digests."""
    meta, size = student.meta, student.image_size
    resize = student.dataset["resize"] or default_resize(size)
    scale, zero_point = float(affine.scale), int(affine.zero_point)
    encoder = {kind: tree["encoder"] for kind, tree in student.variables.items() if "encoder" in tree}
    head_id = identity(
        checkpoint.digest(encoder),
        repr((list(meta.mean), list(meta.std), size, resize)),  # lists, as in the bundles that devices have
        repr((scale, zero_point, bits)),
    )
    return Manifest(
        name=options.model_name,
        version=options.version,
        model=Model(**{key: getattr(meta, key) for key in ("name", "options", "bottleneck", "num_classes")}),
        labels=tuple(class_names(meta.labels)),
        image=Image(height=size, width=size, order="RGB", dtype="uint8", resize=resize),
        latent=Latent(shape=folded.latent_shape, dtype="uint8", bits=bits, scale=scale, zero_point=zero_point),
        head=Head(id=head_id),
        heads=_head_files(options.head, folded),
        tail=Tail(
            id=identity(checkpoint.digest(student.variables), head_id),
            head=head_id,
            onnx="tail.onnx",
            stablehlo="tail.stablehlo",
        ),
        local=None,
        rates=(),
        default_rate=RAW,
        golden=GOLDEN,
        calibration=Calibration(split="train", count=len(calibration.names), sha256=identity(*calibration.names)),
        versions={
            "bottlefit_jax": bottlefit_jax.__version__,
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
    )


def _head_files(precision: str, folded: Folded) -> tuple[HeadFile, ...]:
    """Describe head.tflite, which has that precision, and head.onnx."""
    image, latent = (1, *folded.image_size, 3), (1, *folded.latent_shape)
    sent = "uint8" if precision == "int8" else "float32"
    return (
        HeadFile("litert", "head.tflite", precision, Tensor("uint8", image), Tensor(sent, latent)),
        HeadFile("onnx", "head.onnx", "float32", Tensor("float32", image), Tensor("float32", latent)),
    )


def class_names(labels: Sequence[Sequence[str]]) -> list[str]:
    """Return one label for each class: its first name that is not a wnid, with the wnid if two classes share it."""
    first = [names[1] if len(names) > 1 else names[0] for names in labels]
    return [
        f"{name} ({names[0]})" if first.count(name) > 1 and len(names) > 1 else name
        for name, names in zip(first, labels, strict=True)
    ]
