"""A head that ONNX Runtime runs: on a CPU, or on the GPU of a Jetson."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax import onnx_session
from bottlefit_jax.edge.runtimes.pixels import check_pixels
from bottlefit_jax.errors import UserError

DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


class OnnxHead:
    """A `runtimes.Head` in ONNX Runtime.

    Attributes:
        providers: the keys of `onnx_session.PROVIDERS` that it computes with, the preferred one first.
    """

    scale: Any = None  # these heads end before the quantiser
    zero_point: Any = None

    def __init__(self, path: Path, threads: int = 1, providers: Sequence[str] = ()):
        """Load the graph, and run it once: the first run is slow.

        Raises:
            UserError: as `onnx_session.open_session`; or the graph has another number of inputs or outputs than one.
        """
        self._session = onnx_session.open_session(path, threads=threads, providers=providers)
        self.providers = onnx_session.providers_of(self._session)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type not in DTYPES or outputs[0].type not in DTYPES:
            raise UserError(f"{path} has {len(inputs)} inputs and {len(outputs)} outputs; a head has one of each")
        self._input, self._dtype = inputs[0].name, DTYPES[inputs[0].type]
        self.input_shape, self.output_shape = (tuple(each[0].shape[1:]) for each in (inputs, outputs))
        self.output_dtype = np.dtype(DTYPES[outputs[0].type])
        if not all(isinstance(side, int) for side in (*self.input_shape, *self.output_shape)):
            raise UserError(f"{path} takes images of {list(self.input_shape)}; a head takes one size")
        self.run(np.zeros(self.input_shape, np.uint8))

    def run(self, image: np.ndarray) -> np.ndarray:
        """Run it on one image.

        Args:
            image: uint8 of `input_shape`.

        Returns:
            `output_dtype` of `output_shape`.

        Raises:
            UserError: the image has another shape or type.
        """
        check_pixels(image, self.input_shape)
        return self._session.run(None, {self._input: image[None].astype(self._dtype)})[0][0]
