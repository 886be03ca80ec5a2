"""What runs a head on this device: LiteRT, ONNX Runtime or TensorRT, each in a file of its own.

name = choose("auto", manifest, folder)
head = open_head(name, files, threads=1)
latent = head.run(image)  # uint8 [h, w, 3] -> [h, w, c]
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bottlefit_jax.bundle import Bundle, Manifest
from bottlefit_jax.edge.runtimes import cuda
from bottlefit_jax.errors import UserError

AUTO = "auto"
EXTRA = "'bottlefit-jax[edge]'"


class Head(Protocol):
    """An open head.

    Attributes:
        input_shape: (H, W, 3).
        output_shape: (h, w, c).
        output_dtype: uint8 for the quantised latent, float32 for the latent before the quantiser.
        scale, zero_point: of a quantised latent; None for a float one.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    output_dtype: np.dtype
    scale: Any
    zero_point: Any

    def run(self, image: np.ndarray) -> np.ndarray:
        """Run it on an image, uint8 of `input_shape`, and return `output_dtype` of `output_shape`."""
        ...


@dataclass(frozen=True)
class Runtime:
    """A way to run heads.

    Attributes:
        head: what the manifest calls the head's file that it runs.
        packages: sets of Python packages; it needs one package of each set.
        install: how to get them.
    """

    head: str
    packages: tuple[tuple[str, ...], ...]
    install: str

    def installed(self) -> bool:
        """Return whether its packages are there."""
        return all(any(importlib.util.find_spec(package) for package in some) for some in self.packages)


RUNTIMES = {  # in the order in which AUTO looks for one
    "tensorrt": Runtime("onnx", (("tensorrt",), cuda.PACKAGES), f"JetPack has TensorRT; {cuda.INSTALL}"),
    "litert": Runtime("litert", (("ai_edge_litert", "tflite_runtime"),), f"pip install {EXTRA}"),
    "onnxruntime": Runtime("onnx", (("onnxruntime",),), "pip install onnxruntime"),
}


def choose(wanted: str, manifest: Manifest, folder: Path) -> str:
    """Return the runtime to use: the wanted one, or the first that is installed and for which the folder has a head.

    Args:
        wanted: a key of RUNTIMES, or AUTO.
        manifest: of the bundle.
        folder: of the bundle; only the head that runs here needs to be in it.

    Raises:
        UserError: there is no such runtime, it is not installed, or the bundle has no head for it.
    """
    if wanted != AUTO and wanted not in RUNTIMES:
        raise UserError(f"runtime is {wanted!r}; it must be one of {AUTO}, {', '.join(RUNTIMES)}")
    if wanted != AUTO:
        manifest.head_file(RUNTIMES[wanted].head)
        if not RUNTIMES[wanted].installed():
            raise UserError(f"{wanted} is not installed: {RUNTIMES[wanted].install}")
        return wanted
    heads = {head.runtime: head.file for head in manifest.heads}
    installed = [name for name, runtime in RUNTIMES.items() if runtime.head in heads and runtime.installed()]
    if not installed:
        raise UserError(f"nothing on this machine runs the bundle's head: pip install {EXTRA}")
    here = [name for name in installed if (folder / heads[RUNTIMES[name].head]).is_file()]
    return (here or installed)[0]  # where no file is here, opening it says so


def open_head(name: str, files: Bundle, *, threads: int, providers: Sequence[str] = ()) -> Head:
    """Open the head of a bundle, and check that it is the manifest's.

    Args:
        name: a key of RUNTIMES.
        files: the bundle, its files for this runtime verified.
        threads: that it may use on a CPU.
        providers: of ONNX Runtime, as `onnx_session.open_session` takes them.

    Raises:
        UserError: the runtime is not installed or cannot run the file, or the file is not what the manifest says.
    """
    if providers and name != "onnxruntime":
        raise UserError(f"providers belong to onnxruntime; the runtime is {name}")
    manifest = files.manifest
    entry = manifest.head_file(RUNTIMES[name].head)
    path = files.path(entry.file)
    head: Head
    if name == "litert":
        from bottlefit_jax.edge.runtimes.litert import Interpreter

        head = Interpreter(path, threads)
    elif name == "tensorrt":
        from bottlefit_jax.edge.runtimes.trt import TensorrtHead

        head = TensorrtHead(path)
    else:
        from bottlefit_jax.edge.runtimes.onnx import OnnxHead

        head = OnnxHead(path, threads, providers)
    check_file(head, entry.file, manifest, manifest.latent.shape, (np.uint8, np.float32))
    latent = manifest.latent
    if head.scale is not None and (
        head.zero_point != latent.zero_point or not np.isclose(head.scale, latent.scale, rtol=1e-5, atol=0)
    ):
        raise UserError(
            f"{entry.file} quantises with scale {head.scale:g} and zero point {head.zero_point}, "
            f"its manifest says {latent.scale:g} and {latent.zero_point}"
        )
    return head


def check_file(file: Head, name: str, manifest: Manifest, shape: Sequence[int], dtypes: Sequence[Any]) -> None:
    """Raise UserError where an open file has another input or output than the manifest says."""
    image = (manifest.image.height, manifest.image.width, 3)
    if file.input_shape != image or file.output_shape != tuple(shape) or file.output_dtype not in dtypes:
        raise UserError(
            f"{name} makes {file.output_dtype} {list(file.output_shape)} of an image of {list(file.input_shape)}; "
            f"its manifest says {list(shape)} of {list(image)}"
        )
