"""Memory of a GPU, by the package that is installed: `cuda-python` or `pycuda`. Written from their documentation."""

from __future__ import annotations

import importlib
import types
from typing import Any, Protocol

import numpy as np

from bottlefit_jax.errors import UserError

RUNTIMES = ("cuda.bindings.runtime", "cuda.cudart")  # of cuda-python since 12.8, and before
PACKAGES = ("cuda", "pycuda")
# cuda-python 13 does not run on the driver of a JetPack with CUDA 12
INSTALL = "pip install cuda-python of CUDA's major version ('cuda-python<13' for CUDA 12), or pycuda"


class Cuda(Protocol):
    """A GPU and a stream of work on it.

    Attributes:
        name: of the GPU.
        stream: the stream's handle, as TensorRT takes it.
    """

    name: str
    stream: int

    def allocate(self, count: int) -> int:
        """Return the address of `count` new bytes; they are kept as long as the process."""
        ...

    def copy_in(self, address: int, array: np.ndarray) -> None:
        """Begin to copy a contiguous array to an address."""
        ...

    def copy_out(self, array: np.ndarray, address: int) -> None:
        """Begin to copy from an address into a contiguous array."""
        ...

    def wait(self) -> None:
        """Wait until everything in the stream is done."""
        ...


def open_cuda() -> Cuda:
    """Return the first GPU, by the package that is installed.

    Raises:
        UserError: neither package is installed, or there is no GPU.
    """
    for name in RUNTIMES:
        try:
            return _CudaPython(importlib.import_module(name))
        except ImportError:
            continue
    try:
        return _PyCuda(importlib.import_module("pycuda.driver"))
    except ImportError:
        raise UserError(
            f"TensorRT needs a package for the GPU's memory: {INSTALL}, where there is no wheel of it"
        ) from None


class _CudaPython:
    """`Cuda` by the runtime of cuda-python, whose functions return an error code and then what they made."""

    def __init__(self, runtime: types.ModuleType):
        self._runtime = runtime
        self.name = bytes(self._call("cudaGetDeviceProperties", 0).name).split(b"\0")[0].decode()
        self._stream = self._call("cudaStreamCreate")
        self.stream = int(self._stream)

    def allocate(self, count: int) -> int:
        return int(self._call("cudaMalloc", count))

    def copy_in(self, address: int, array: np.ndarray) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self._stream)

    def copy_out(self, array: np.ndarray, address: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self._stream)

    def wait(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)

    def _call(self, function: str, *arguments: Any) -> Any:
        error, *made = getattr(self._runtime, function)(*arguments)
        if int(error):
            raise UserError(f"the GPU does not work: {function} ends with {getattr(error, 'name', error)}")
        return made[0] if made else None


class _PyCuda:
    """`Cuda` by pycuda, whose calls belong to the thread that has pushed the context."""

    def __init__(self, driver: Any):
        self._driver = driver
        try:
            driver.init()
            device = driver.Device(0)
        except Exception as error:  # pycuda's errors are its own
            raise UserError(f"the GPU does not work: {error}") from error
        self.name = device.name()
        self._context = device.retain_primary_context()
        self._memory: list[Any] = []  # freed with the last reference
        self._context.push()
        try:
            self._stream = driver.Stream()
        finally:
            self._context.pop()
        self.stream = int(self._stream.handle)

    def allocate(self, count: int) -> int:
        self._memory.append(self._in_context(self._driver.mem_alloc, count))
        return int(self._memory[-1])

    def copy_in(self, address: int, array: np.ndarray) -> None:
        self._in_context(self._driver.memcpy_htod_async, address, array, self._stream)

    def copy_out(self, array: np.ndarray, address: int) -> None:
        self._in_context(self._driver.memcpy_dtoh_async, array, address, self._stream)

    def wait(self) -> None:
        self._in_context(self._stream.synchronize)

    def _in_context(self, function: Any, *arguments: Any) -> Any:
        self._context.push()
        try:
            return function(*arguments)
        finally:
            self._context.pop()
