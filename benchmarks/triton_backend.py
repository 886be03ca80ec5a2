"""Triton's backend onnxruntime where only its Python backend is at hand: runs model.onnx by ONNX Runtime's wheel.

`triton.sh` copies this as backends/onnxruntime/model.py, so that a repository is served as it was exported.
"""

import json
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """A model of the platform onnxruntime_onnx."""

    def initialize(self, args):
        """Load a version's model.onnx."""
        config = json.loads(args["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        """Run each request on its own."""
        return [self._run(request) for request in requests]

    def _run(self, request):
        feeds = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
        names = list(request.requested_output_names())
        values = self._session.run(names, feeds)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, value) for name, value in zip(names, values, strict=True)]
        )
