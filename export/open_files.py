"""The files of a bundle, opened as devices and servers open them."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnxruntime

from bottlefit_jax.codec.quantizer import Affine, quantize
from bottlefit_jax.edge.runtimes.litert import Interpreter
from export.tail import LOGITS, PROBABILITIES

BATCH = 32

# A head or local file: uint8 [H, W, 3] -> values of that image. A tail: uint8 [B, h, w, c] -> logits [B, classes].
Run = Callable[[np.ndarray], np.ndarray]


class OpenFiles:
    """The files of a bundle, each opened once, on one thread.

    Attributes:
        runs: by name: head.tflite, head.onnx, tail.onnx, tail.stablehlo, and local.tflite if there is one.
        probabilities: uint8 [B, h, w, c] -> [B, classes], the other output of tail.onnx.
        quantise: latents before the quantiser -> uint8.
        is_int8: whether head.tflite gives quantised latents itself.
    """

    def __init__(self, folder: Path, *, affine: Affine, bits: int, head: str):
        jetson, tail = session_of(folder / "head.onnx"), session_of(folder / "tail.onnx")
        stablehlo = jax.export.deserialize(bytearray((folder / "tail.stablehlo").read_bytes()))
        self.runs: dict[str, Run] = {
            "head.tflite": Interpreter(folder / "head.tflite").run,
            "head.onnx": lambda image: run_onnx(jetson, image[None].astype(np.float32))[0][0],
            "tail.onnx": lambda latents: run_onnx(tail, latents, LOGITS)[0],
            "tail.stablehlo": lambda latents: np.asarray(stablehlo.call(latents)),
        }
        if (folder / "local.tflite").exists():
            self.runs["local.tflite"] = Interpreter(folder / "local.tflite").run
        self.probabilities: Run = lambda latents: run_onnx(tail, latents, PROBABILITIES)[0]
        self.quantise = functools.partial(quantize, affine=affine, bits=bits)
        self.is_int8 = head == "int8"

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Run head.tflite on images uint8 [B, H, W, 3]: what it gives, [B, h, w, c]."""
        return np.stack([self.runs["head.tflite"](image) for image in images])

    def send(self, images: np.ndarray) -> np.ndarray:
        """Return the latents uint8 [N, h, w, c] that a device has for images uint8 [N, H, W, 3]."""
        return self.sent(self.encode(images))

    def sent(self, encoded: np.ndarray) -> np.ndarray:
        """Return the latents uint8 of what `encode` gave."""
        return encoded if self.is_int8 else self.quantise(encoded)


def session_of(model: Path | bytes, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open an ONNX file, or its content; 0 threads are as many as there are cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnx(session: onnxruntime.InferenceSession, value: np.ndarray, *outputs: str) -> Any:
    """Return the outputs with these names, or all, of a model with one input."""
    return session.run(list(outputs) or None, {session.get_inputs()[0].name: value})
