"""A .tflite file and the interpreter that runs it: `ai_edge_litert`, or its predecessor `tflite_runtime`.

Works with NumPy 1 and 2, and never imports JAX. LiteRT prints one line about its delegate on file descriptor 2 when the
first model of a process is opened, and has no option against it; `silenced` keeps it out of the output of commands.
"""

import importlib
import os
from typing import Any

import numpy as np

from bottlefit_jax.cli.silence import silenced
from bottlefit_jax.edge.runtimes.pixels import check_pixels
from bottlefit_jax.errors import UserError, first_line

PACKAGES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")  # the first that is installed is used


class Interpreter:
    """A model with one input and one output: a head, or a whole student.

    Attributes:
        input_shape: (h, w, 3).
        output_shape: (h, w, c), or (classes,).
        output_dtype: NumPy's.
        scale, zero_point: integers q of the output stand for `scale * (q - zero_point)`; None for a float output.
    """

    def __init__(self, model: str | os.PathLike[str] | bytes, threads: int = 1):
        """Load a model.

        Args:
            model: the path of a .tflite file, or its content.
            threads: the number that it may use.

        Raises:
            UserError: the file is missing, this interpreter cannot run the model, or no interpreter is installed.
        """
        content = model if isinstance(model, bytes) else _read(model)
        name = "the model" if isinstance(model, bytes) else os.fspath(model)
        interpreter_class = _implementation()
        try:
            with silenced():
                self._interpreter = interpreter_class(model_content=content, num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{name} is not a LiteRT model that this machine can run: {first_line(error)}") from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(f"{name} has {len(inputs)} inputs and {len(outputs)} outputs; a head has one of each")
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]
        self.output_name = outputs[0]["name"]
        self.input_shape = tuple(int(n) for n in inputs[0]["shape"][1:])
        self.input_dtype = np.dtype(inputs[0]["dtype"])
        self.output_shape = tuple(int(n) for n in outputs[0]["shape"][1:])
        self.output_dtype = np.dtype(outputs[0]["dtype"])
        scale, zero_point = outputs[0]["quantization"]
        quantized = np.issubdtype(self.output_dtype, np.integer)
        self.scale: Any = float(scale) if quantized else None
        self.zero_point: Any = int(zero_point) if quantized else None

    def run(self, image: np.ndarray) -> np.ndarray:
        """Run the model on one image.

        Args:
            image: uint8 of `input_shape`.

        Returns:
            `output_dtype` of `output_shape`.

        Raises:
            UserError: the image has another shape or type.
        """
        check_pixels(image, self.input_shape, self.input_dtype)
        self._interpreter.set_tensor(self._input, image[None])
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)[0]


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"cannot read {os.fspath(path)}: {error.strerror}") from error


def _implementation() -> Any:
    """Return the interpreter class of the package that is installed.

    Raises:
        UserError: none is installed, or the installed one cannot be imported.
    """
    for module in PACKAGES:
        try:
            return importlib.import_module(module).Interpreter
        except Exception as error:  # where a system library is too old, or NumPy is not the one it was built for
            if not (isinstance(error, ModuleNotFoundError) and module.startswith(error.name or " ")):
                reason = " ".join(str(error).split()) or type(error).__name__
                raise UserError(f"{module} is installed but cannot be imported: {reason}") from None
    raise UserError("there is no LiteRT interpreter: pip install 'bottlefit-jax[edge]'")
