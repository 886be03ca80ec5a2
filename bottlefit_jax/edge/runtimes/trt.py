"""A head that TensorRT runs, on a Jetson or another machine with an NVIDIA GPU.

An engine fits one GPU and one version of TensorRT. It is built here from head.onnx at the first run, which takes
minutes, and kept for the next ones. Written from the documentation of TensorRT 8.6 and 10, and tested with a stand-in
that checks every call: it was not run with a real TensorRT.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.edge.runtimes.cuda import Cuda, open_cuda
from bottlefit_jax.edge.runtimes.pixels import check_pixels
from bottlefit_jax.errors import UserError
from bottlefit_jax.files import atomic_file, sha256_of
from bottlefit_jax.paths import cache_folder
from bottlefit_jax.tensorrt_engine import (
    NO_FP16_SINCE,
    Job,
    build_with_package,
    error_collector,
    reason_of,
    version_of,
)

NAMES_SINCE = (8, 5)  # tensors have names; before, they had numbers
ENGINES = "engines"  # folder of the cache
PROGRESS = 30.0  # seconds between two messages while an engine is built

logger = logging.getLogger("bottlefit_jax.edge")


class TensorrtHead:
    """A `runtimes.Head` in TensorRT."""

    scale: Any = None  # these heads end before the quantiser
    zero_point: Any = None

    def __init__(self, onnx: Path):
        """Load the engine of a graph, or build it.

        Args:
            onnx: the graph.

        Raises:
            UserError: TensorRT or a package for the GPU's memory is not installed, TensorRT is too old or refuses the
                graph, or there is no GPU.
        """
        try:
            trt = importlib.import_module("tensorrt")  # not an import statement: it is not among our dependencies
        except ImportError:
            raise UserError("tensorrt is not installed: JetPack has it; elsewhere pip install tensorrt") from None
        if version_of(trt.__version__) < NAMES_SINCE:
            raise UserError(f"this is TensorRT {trt.__version__}; running a head needs 8.5 or newer, as in JetPack 6")
        self._cuda = open_cuda()
        self._logger = error_collector(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._open(trt, onnx)
        self._context = self._engine.create_execution_context()
        taken, given = self._tensors(trt, onnx)
        self.input_shape, self.output_shape = (tuple(each.shape[1:]) for each in (taken, given))
        self.output_dtype = given.dtype
        self._taken, self._given = taken, given
        self._addresses = [self._cuda.allocate(each.nbytes) for each in (taken, given)]
        for name, address in zip(self._names, self._addresses, strict=True):
            self._context.set_tensor_address(name, address)
        self.run(np.zeros(self.input_shape, np.uint8))  # the first run is slow

    def run(self, image: np.ndarray) -> np.ndarray:
        """Run it on one image.

        Args:
            image: uint8 of `input_shape`.

        Returns:
            `output_dtype` of `output_shape`.

        Raises:
            UserError: the image has another shape or type, or the GPU fails.
        """
        check_pixels(image, self.input_shape)
        self._taken[0] = image
        self._cuda.copy_in(self._addresses[0], self._taken)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise UserError(f"TensorRT does not run the head: {reason_of(self._logger, 'it does not say why')}")
        self._cuda.copy_out(self._given, self._addresses[1])
        self._cuda.wait()
        return self._given[0].copy()

    def _open(self, trt: Any, onnx: Path) -> Any:
        """Return the engine that was kept, or a new one where there is none or it does not load."""
        plan = _plan(trt, onnx, self._cuda)
        if plan.is_file():
            engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
            if engine is not None:
                return engine
            logger.warning("TensorRT does not load %s: %s", plan, reason_of(self._logger, "it does not say why"))
            self._logger.errors.clear()
        logger.warning(
            "building a TensorRT engine of %s for %s, to keep as %s: this takes minutes", onnx, self._cuda.name, plan
        )
        with _progress():
            data = build_with_package(trt, Job(onnx, plan, "head", _precision(trt)))
        try:
            plan.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(plan) as temporary:
                temporary.write_bytes(data)
        except (OSError, UserError) as error:
            logger.warning("the engine is not kept, so the next run builds it again: %s", error)
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise UserError(f"TensorRT cannot load its own engine: {reason_of(self._logger, 'it does not say why')}")
        return engine

    def _tensors(self, trt: Any, onnx: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return arrays of the shapes and types of the input and the output."""
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(f"{onnx} has {len(inputs)} inputs and {len(outputs)} outputs; a head has one of each")
        dtypes = {trt.DataType.FLOAT: np.float32, getattr(trt.DataType, "UINT8", None): np.uint8}
        arrays = []
        for name in (inputs[0], outputs[0]):
            dtype = dtypes.get(self._engine.get_tensor_dtype(name))
            if dtype is None:
                raise UserError(f"{onnx} has {name} of {self._engine.get_tensor_dtype(name)}; give float32 or uint8")
            arrays.append(np.zeros(tuple(self._engine.get_tensor_shape(name)), dtype))
        self._names = (inputs[0], outputs[0])
        return arrays[0], arrays[1]


def _precision(trt: Any) -> str:
    return "fp16" if version_of(trt.__version__) < NO_FP16_SINCE else "fp32"


def _plan(trt: Any, onnx: Path, cuda: Cuda) -> Path:
    """Return where the engine of a graph is kept: a file for each graph, TensorRT, GPU and precision."""
    gpu = re.sub(r"[^a-z0-9]+", "-", cuda.name.lower()).strip("-")
    name = f"{sha256_of(onnx)[0][:16]}-tensorrt-{trt.__version__}-{gpu}-{_precision(trt)}.plan"
    return cache_folder() / ENGINES / name


@contextlib.contextmanager
def _progress() -> Iterator[None]:
    """Log every PROGRESS seconds how long the work has taken; TensorRT 8 cannot say how much is left."""
    done, begun = threading.Event(), time.monotonic()

    def report() -> None:
        while not done.wait(PROGRESS):
            logger.warning("building the engine: %.0f s", time.monotonic() - begun)

    thread = threading.Thread(target=report, name="engine progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
