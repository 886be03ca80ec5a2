"""The tail of a bundle as a function of latents, run by a row of BACKENDS."""

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bottlefit_jax.bundle import Bundle
from bottlefit_jax.bundle.golden import read_golden
from bottlefit_jax.errors import UserError, first_line
from bottlefit_jax.onnx_session import open_session, providers_of
from bottlefit_jax.protocol.names import OUTPUT
from bottlefit_jax.serve.log import log

SMALL = 0.0005  # seconds; a faster tail takes longer, and more of the processor, on several threads than on one
ALLOWED = 0.03  # of the largest logit, by which OpenVINO may be off: what the export allows a file of float16
Tail = Callable[[np.ndarray], np.ndarray]


class Backend(NamedTuple):
    """What runs a tail.

    Attributes:
        load: (bundle, threads, max_batch, providers) -> Tail; raises UserError.
        platform: its name in ModelMetadata and ModelConfig, as Triton spells it.
        library: its name in ModelConfig.
    """

    load: Callable[[Bundle, int, int, Sequence[str]], Tail]
    platform: str
    library: str


def open_tail(bundle: Bundle, *, backend: str, threads: int, max_batch: int, providers: Sequence[str] = ()) -> Tail:
    """Load the tail, and run it with the smallest and the largest batch, so that no request pays for the first run.

    Args:
        bundle: verified.
        backend: a key of BACKENDS.
        threads: that one batch runs on; one where onnxruntime finds the tail SMALL. JAX has its own.
        max_batch: the largest batch that it will be given.
        providers: of onnxruntime, as `onnx_session.open_session` takes them.

    Returns:
        latent: [b, h, w, c] uint8 -> logits: [b, classes] float32, for 1 <= b <= max_batch. Call it from one thread.

    Raises:
        UserError: the file cannot be loaded, the library is not installed, or the tail is not the manifest's.
    """
    manifest = bundle.manifest
    tail = BACKENDS[backend].load(bundle, threads, max_batch, providers)
    for batch in sorted({1, max_batch}):
        latent = np.full((batch, *manifest.latent.shape), manifest.latent.zero_point, np.uint8)
        try:
            logits = tail(latent)
        except Exception as error:  # the libraries do not document what they raise
            raise UserError(f"the tail of {bundle.folder} cannot be run: {first_line(error)}") from error
        expected = (batch, manifest.model.num_classes)
        if logits.shape != expected or logits.dtype != np.float32:
            raise UserError(
                f"the tail of {bundle.folder} gives {logits.dtype} {list(logits.shape)} "
                f"where its manifest says float32 {list(expected)}"
            )
    return tail


def _onnx(bundle: Bundle, threads: int, max_batch: int, providers: Sequence[str]) -> Tail:
    tail = _onnx_session(bundle, threads, providers)
    latent = np.full((1, *bundle.manifest.latent.shape), bundle.manifest.latent.zero_point, np.uint8)
    with contextlib.suppress(Exception):  # a tail that cannot be run is an error of `open_tail`
        if threads > 1 and min(_seconds(tail, latent) for _ in range(5)) < SMALL:
            return _onnx_session(bundle, 1, providers)
    return tail


def _onnx_session(bundle: Bundle, threads: int, providers: Sequence[str]) -> Tail:
    path = bundle.path(bundle.manifest.tail.onnx)
    session = open_session(path, threads=threads, providers=providers)
    try:
        (latent,) = session.get_inputs()
        logits = _logits_name([output.name for output in session.get_outputs()])
    except ValueError as error:
        raise UserError(f"{path} cannot be loaded: {first_line(error)}") from error
    log("tail opened", path=str(path), providers=list(providers_of(session)), threads=threads)
    return lambda batch: session.run([logits], {latent.name: batch})[0]  # pyright: ignore[reportReturnType]


def _logits_name(outputs: list[str]) -> str:
    """Return the output to run; the server computes probabilities from it, as tails of older bundles have no others."""
    if OUTPUT in outputs:
        return OUTPUT
    (only,) = outputs
    return only


def _jax(bundle: Bundle, threads: int, max_batch: int, providers: Sequence[str]) -> Tail:
    """Load the tail of JAX. XLA compiles for one size of batch, so batches are padded to the next power of two."""
    try:
        import jax
        import jax.export
    except ImportError as error:
        raise UserError("--backend jax needs JAX: pip install jax, or use --backend onnx") from error
    path = bundle.path(bundle.manifest.tail.stablehlo)
    try:
        tail = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
        sizes = sorted({*(2**power for power in range(max_batch.bit_length()) if 2**power < max_batch), max_batch})
        for size in sizes:
            tail(np.zeros((size, *bundle.manifest.latent.shape), np.uint8)).block_until_ready()
    except Exception as error:
        raise UserError(f"{path} cannot be loaded: {first_line(error)}") from error

    def run(latent: np.ndarray) -> np.ndarray:
        size = next(size for size in sizes if size >= len(latent))
        padded = np.pad(latent, ((0, size - len(latent)), (0, 0), (0, 0), (0, 0)))
        return np.asarray(tail(padded))[: len(latent)]

    return run


def _openvino(bundle: Bundle, threads: int, max_batch: int, providers: Sequence[str]) -> Tail:
    """Load tail.onnx by OpenVINO, which computes in bfloat16 on a CPU that can, and compare it with golden images."""
    # Without this its import sends usage statistics out, in a process that it forks; it has a stand-in for this case.
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    try:
        import openvino
    except Exception as error:  # where a system library is missing, too
        raise UserError(
            f"--backend openvino: OpenVINO cannot be imported: {first_line(error)}; pip install openvino"
        ) from error
    path = bundle.path(bundle.manifest.tail.onnx)
    try:
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        model = openvino.Core().compile_model(str(path), "CPU", settings)
        output = model.output(_logits_name([name for each in model.outputs for name in each.get_names()]))
        request = model.create_infer_request()
    except Exception as error:
        raise UserError(f"{path} cannot be loaded: {first_line(error)}") from error

    def run(latent: np.ndarray) -> np.ndarray:
        request.infer({0: latent})
        return request.get_tensor(output).data.copy()

    _check_golden(bundle, run)
    return run


def _check_golden(bundle: Bundle, tail: Tail) -> None:
    """Raise UserError where a tail of less precision gives the bundle's golden images other classes or logits."""
    if bundle.manifest.golden is None:
        raise UserError(
            f"--backend openvino may compute in bfloat16, and {bundle.folder} has no golden images to check that with: "
            "export it again, or use --backend onnx"
        )
    golden = read_golden(bundle)
    logits = tail(golden.sent)
    differ = int((logits.argmax(1) != golden.logits.argmax(1)).sum())
    largest = float(np.abs(logits - golden.logits).max() / np.abs(golden.logits).max())
    if differ or not largest <= ALLOWED:
        raise UserError(
            f"OpenVINO gives {differ} of {len(logits)} golden images of {bundle.folder} another class, and logits that "
            f"are {largest:.1e} of the largest off, where {ALLOWED:g} is allowed: use --backend onnx"
        )


def _seconds(tail: Tail, latent: np.ndarray) -> float:
    start = time.perf_counter()
    tail(latent)
    return time.perf_counter() - start


BACKENDS = {
    "onnx": Backend(_onnx, "onnxruntime_onnx", "onnxruntime"),
    "jax": Backend(_jax, "jax_stablehlo", "jax"),
    "openvino": Backend(_openvino, "openvino_onnx", "openvino"),
}
