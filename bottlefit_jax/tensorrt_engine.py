"""Builds TensorRT engines with TensorRT's Python package, for heads on a device and tails on a server. No JAX."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bottlefit_jax.errors import UserError

__all__ = ["Job", "build_with_package", "check_version", "error_collector", "reason_of", "version_of"]

UINT8_SINCE = (10, 0)  # as input and output of a network
POOLS_SINCE = (8, 4)  # from here on a builder may use all memory; before, almost none unless a size is set
NO_FP16_SINCE = (11, 0)  # networks are strongly typed
WORKSPACE_MIB = 256  # before POOLS_SINCE; a Jetson Nano has 4 GiB for everything


@dataclass(frozen=True)
class Job:
    """One engine to build.

    Attributes:
        onnx: the graph.
        plan: the engine.
        part: head or tail.
        precision: fp16 or fp32.
        shape: of the tail's latent without the batch; the head's graph has its shape.
        batch: (min, opt, max) of the tail.
    """

    onnx: Path
    plan: Path
    part: str
    precision: str
    shape: tuple[int, ...] = ()
    batch: tuple[int, ...] = ()


def build_with_package(trt: ModuleType, job: Job) -> bytes:
    """Build with TensorRT's Python package `trt`, 8.2 or newer, and return the serialised engine.

    Raises:
        UserError: TensorRT is too old or too new for the job, does not start, or refuses the graph.
    """
    version = version_of(trt.__version__)
    check_version(version, job)
    logger = error_collector(trt)
    try:
        builder = trt.Builder(logger)
    except (RuntimeError, TypeError) as error:  # pybind11 raises TypeError if there is no CUDA device
        raise UserError(f"TensorRT {trt.__version__} does not start here: {reason_of(logger, error)}") from error
    explicit = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if version < (10, 0) else 0
    network = builder.create_network(explicit)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(job.onnx.read_bytes()):
        logger.errors[:0] = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise UserError(
            f"TensorRT {trt.__version__} cannot read {job.onnx}: {reason_of(logger, 'it does not say why')}"
        )
    config = builder.create_builder_config()
    if version < POOLS_SINCE:
        config.max_workspace_size = WORKSPACE_MIB << 20
    if job.precision == "fp16":
        config.set_flag(trt.BuilderFlag.FP16)
    if job.batch:
        profile = builder.create_optimization_profile()
        profile.set_shape(network.get_input(0).name, *((size, *job.shape) for size in job.batch))
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError(
            f"TensorRT {trt.__version__} cannot build {job.onnx}: {reason_of(logger, 'it does not say why')}"
        )
    return bytes(plan)


def check_version(version: tuple[int, int], job: Job) -> None:
    """Raise UserError if a TensorRT of this (major, minor) version cannot do the job."""
    name = ".".join(map(str, version))
    if job.part == "tail" and version < UINT8_SINCE:
        raise UserError(f"this is TensorRT {name}; the tail takes uint8 latents, which needs 10 or newer")
    if job.precision == "fp16" and version >= NO_FP16_SINCE:
        raise UserError(
            f"this is TensorRT {name}, which takes the precision from the graph: --precision fp32 builds it"
        )


def version_of(text: str) -> tuple[int, int]:
    """Return (major, minor) of a version such as "8.2.1.8"."""
    major, minor = re.findall(r"\d+", text)[:2]
    return int(major), int(minor)


def error_collector(trt: ModuleType) -> Any:
    """Make a TensorRT logger that keeps errors in its list `errors` instead of printing them."""

    class Collector(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 requires this call; super() does not do
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(msg)

    return Collector()


def reason_of(logger: Any, otherwise: object) -> str:
    """Return the first errors that TensorRT logged, which are more precise than what it raises or returns."""
    return "; ".join(logger.errors[:3]) or str(otherwise)
