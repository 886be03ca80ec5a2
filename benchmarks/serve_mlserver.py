"""MLServer with the same tail.onnx, next to our server: round trips of one client, with raw latents.

MLServer needs an environment of its own (pip install mlserver onnxruntime). It serves the tail with a runtime of ten
lines, without its worker processes and its batching: that is its fastest setting for one client.
"""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from benchmarks.serve_input import caller, make_images, seconds_of
from bottlefit_jax.bundle import RAW, Bundle
from bottlefit_jax.errors import UserError
from bottlefit_jax.serve.options import cores

RUNTIME = """
import numpy as np, onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Tail(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        self.session = onnxruntime.InferenceSession(PATH, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload):
        latent = NumpyCodec.decode_input(payload.inputs[0]).astype(np.uint8)
        (logits,) = self.session.run(["logits"], {"latent": latent})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("logits", logits)])
"""


def against_mlserver(bundle: Bundle, address: str, python: str, rounds: int, requests: int) -> dict[str, Any]:
    """Measure round trips per second of one client, in turns with MLServer."""
    if not python:
        return {"mlserver": "not measured: --mlserver was not given"}
    images = make_images(bundle, 1, RAW)
    with mlserver(bundle, python) as other, contextlib.ExitStack() as stack:
        calls = {
            name: caller(stack.enter_context(triton.InferenceServerClient(where)), bundle, images)
            for name, where in (("mlserver", other), ("ours", address))
        }
        logits = {name: np.asarray(logits_of(call())) for name, call in calls.items()}
        if not np.allclose(logits["ours"], logits["mlserver"], rtol=1e-3, atol=1e-3):
            raise UserError("MLServer's logits differ from ours, so the two cannot be compared")
        rates: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                rates[name].append(1 / statistics.median(seconds_of(call) for _ in range(requests)))
    medians = {f"{name}_trips_per_s": statistics.median(values) for name, values in rates.items()}
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["mlserver"], strict=True)]
    return {**medians, "trips_ratio": statistics.median(ratios)}


@contextlib.contextmanager
def mlserver(bundle: Bundle, python: str) -> Iterator[str]:
    """Start MLServer as a process; yield its gRPC address once the model is ready."""
    ports = [free_port() for _ in range(3)]
    settings = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
    path = str(bundle.path(bundle.manifest.tail.onnx).resolve())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "tail_runtime.py").write_text(RUNTIME.replace("PATH", repr(path)).replace("THREADS", str(cores())))
        (place / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0, "host": "127.0.0.1"}))
        model = {"name": bundle.manifest.name, "implementation": "tail_runtime.Tail"}
        (place / "model-settings.json").write_text(json.dumps(model))
        with (place / "log").open("w") as log:
            words = [str(Path(python).with_name("mlserver")), "start", folder]
            environment = {**os.environ, "PYTHONPATH": folder}
            process = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder, env=environment)
            try:
                address = f"127.0.0.1:{settings['grpc_port']}"
                if not ready(address, bundle.manifest.name, process):
                    raise UserError(f"MLServer did not start: {(place / 'log').read_text()[-500:]}")
                yield address
            finally:
                process.terminate()
                process.wait()


def ready(address: str, name: str, process: subprocess.Popen[bytes]) -> bool:
    """Return whether the model is ready within a minute."""
    end = time.monotonic() + 60
    with triton.InferenceServerClient(address) as client:
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(triton.InferenceServerException):
                if client.is_model_ready(name):
                    return True
            time.sleep(0.5)
    return False


def logits_of(response: Any) -> list[float]:
    """Return the logits from raw or typed contents: MLServer answers as it is asked."""
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], np.float32).tolist()
    return list(response.outputs[0].contents.fp32_contents)


def free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
