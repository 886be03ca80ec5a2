"""The time that the server adds to its tail, and the cost of a device's process.

    python -m export.bundle --workdir RUN --output B      # a DenseNet-169 student, 3 channels, 224 px
    python -m benchmarks.serve --bundle B [--mlserver VENV/bin/python]
    python -m benchmarks.serve_load --bundle B --deadline-ms 2000      # overload

One machine of two cores runs both ends. Our server is the command with its defaults. "The tail alone" is the same
function in this process, called in a loop, in turns with the server. Every client is tritonclient's. Other load on the
machine distorts the numbers: the load before the run is printed.
MLServer needs an environment of its own (pip install mlserver onnxruntime). It serves the same tail.onnx with a runtime
of ten lines, without its worker processes and its batching: that is its fastest setting for one client.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from bottlefit_jax.bundle import Bundle, read_bundle
from bottlefit_jax.errors import UserError
from bottlefit_jax.serve.options import cores
from bottlefit_jax.serve.tail import open_tail

BATCH, CLIENTS = 8, 32
PERCENTILES = (50, 95, 99)
ADDED_MS, THROUGHPUT, LOAD_S, MEMORY_MB = 2.0, 0.9, 0.5, 120  # the limits to keep
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
DEVICE = """
import sys, time
start = time.perf_counter()
from bottlefit_jax.edge.client import EdgeClient
client = EdgeClient(BUNDLE, SERVER)
seconds = time.perf_counter() - start
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, int(peak) / 1024)
"""


def main(argv: list[str] | None = None) -> int:
    """Run the comparison and print it as a table and a line of JSON; return the exit code."""
    parser = argparse.ArgumentParser(description="The server against its own tail, and against MLServer.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--mlserver", default="", help="the Python of an environment with mlserver and onnxruntime")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each side")
    parser.add_argument("--requests", type=int, default=30, help="by one client in a turn")
    options = parser.parse_args(argv)
    try:
        load = os.getloadavg()[0]
        bundle = read_bundle(options.bundle)
        with ours(bundle) as address:
            results = {
                "load_before": load,
                **one_client(bundle, address, options.rounds, options.requests),
                **many_clients(bundle, address, options.rounds),
                **device(bundle, address),
            }
            results |= against_mlserver(bundle, address, options.mlserver, options.rounds, options.requests)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report(bundle, results)
    return 0


@contextlib.contextmanager
def ours(bundle: Bundle) -> Iterator[str]:
    """Start our server as a process; yield its address."""
    words = [sys.executable, "-m", "bottlefit_jax.serve", "--bundle", str(bundle.folder), "--port", "0"]
    with serving(words) as (_, address):
        yield address


@contextlib.contextmanager
def serving(words: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server as a process; yield it and its address."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("listening on "):
                raise UserError(f"{' '.join(words)} did not start")
            yield process, line.split()[2]
        finally:
            process.send_signal(signal.SIGTERM)


def own_tail(bundle: Bundle) -> Callable[[np.ndarray], float]:
    """Return a function from latents to the seconds that the tail takes for them in this process."""
    tail = open_tail(bundle, backend="onnx", threads=cores(), max_batch=BATCH)
    return lambda latent: seconds_of(lambda: tail(latent))


def one_client(bundle: Bundle, address: str, rounds: int, requests: int) -> dict[str, Any]:
    """Measure the tail alone and round trips, in turns, in milliseconds; `added` is the difference of percentiles."""
    tail, latent = own_tail(bundle), latents(bundle, 1)
    alone, trips, around = [], [], []
    with triton.InferenceServerClient(address) as client:
        call = caller(client, bundle, latent)
        for _ in range(5):
            tail(latent)
            call()
        for _ in range(rounds):
            alone += [tail(latent) for _ in range(requests)]
            for _ in range(requests):
                seconds, response = timed(call)
                trips.append(seconds)
                around.append(seconds - response.parameters["tail_us"].int64_param / 1e6)
    ms = {name: np.percentile(values, PERCENTILES) * 1e3 for name, values in (("alone", alone), ("trip", trips))}
    return {
        "tail_ms": ms["alone"].tolist(),
        "trip_ms": ms["trip"].tolist(),
        "added_ms": (ms["trip"] - ms["alone"]).tolist(),
        "around_tail_ms": (np.percentile(around, PERCENTILES) * 1e3).tolist(),
    }


def many_clients(bundle: Bundle, address: str, rounds: int) -> dict[str, Any]:
    """Measure images per second: the tail alone with batches of 8, and 32 clients that send one image at a time."""
    tail, latent = own_tail(bundle), latents(bundle, BATCH)
    tail(latent)
    alone, served, lost, sent, batches = [], [], 0, 0, []
    for _ in range(rounds):
        alone.append(statistics.median(BATCH / tail(latent) for _ in range(6)))
        answers: list[Any] = []
        each = 5

        def send(answers: list[Any] = answers, each: int = each) -> None:
            with triton.InferenceServerClient(address) as client:
                call = caller(client, bundle, latents(bundle, 1))
                for _ in range(each):
                    with contextlib.suppress(triton.InferenceServerException):
                        answers.append(call().parameters["batch"].int64_param)

        threads = [threading.Thread(target=send) for _ in range(CLIENTS)]

        def run(threads: list[threading.Thread] = threads) -> None:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        seconds = seconds_of(run)
        served.append(len(answers) / seconds)
        sent += CLIENTS * each
        lost += CLIENTS * each - len(answers)
        batches += answers
    ratios = [ours / own for ours, own in zip(served, alone, strict=True)]
    return {
        "tail_batch8_per_s": statistics.median(alone),
        "clients32_per_s": statistics.median(served),
        "throughput_ratio": statistics.median(ratios),
        "mean_batch": statistics.mean(batches),
        "sent": sent,
        "lost": lost,
    }


def device(bundle: Bundle, address: str, times: int = 5) -> dict[str, Any]:
    """Measure the device's client in a process of its own: seconds to import and load it, its peak memory in MB."""
    code = DEVICE.replace("BUNDLE", repr(str(bundle.folder))).replace("SERVER", repr(address))
    runs = []
    for _ in range(times):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if done.returncode:
            return {"device": f"not measured: {(done.stderr.strip() or 'no error').splitlines()[-1]}"}
        runs.append([float(word) for word in done.stdout.split()])
    return {
        "device_load_s": statistics.median(seconds for seconds, _ in runs),
        "device_peak_mb": statistics.median(peak for _, peak in runs),
    }


def against_mlserver(bundle: Bundle, address: str, python: str, rounds: int, requests: int) -> dict[str, Any]:
    """Measure round trips per second of one client, in turns with MLServer."""
    if not python:
        return {"mlserver": "not measured: --mlserver was not given"}
    latent = latents(bundle, 1)
    with mlserver(bundle, python) as other, contextlib.ExitStack() as stack:
        calls = {
            name: caller(stack.enter_context(triton.InferenceServerClient(where)), bundle, latent)
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


def caller(client: Any, bundle: Bundle, latent: np.ndarray) -> Callable[[], Any]:
    """Return a function that sends `latent` and returns the response message."""
    tensor = triton.InferInput("latent", latent.shape, "UINT8")
    tensor.set_data_from_numpy(latent)
    return lambda: client.infer(bundle.manifest.name, [tensor], client_timeout=60).get_response()


def logits_of(response: Any) -> list[float]:
    """Return the logits from raw or typed contents: MLServer answers as it is asked."""
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], np.float32).tolist()
    return list(response.outputs[0].contents.fp32_contents)


def latents(bundle: Bundle, batch: int) -> np.ndarray:
    """Return random latents, [batch, h, w, c] uint8."""
    return np.random.default_rng(0).integers(0, 256, (batch, *bundle.manifest.latent.shape), dtype=np.uint8)


def seconds_of(work: Callable[[], object]) -> float:
    """Return the seconds that `work()` takes."""
    return timed(work)[0]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that `work()` takes, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def report(bundle: Bundle, results: dict[str, Any]) -> None:
    """Print the results as a table, then as one line of JSON."""
    manifest = bundle.manifest
    load = results["load_before"]
    print(f"{manifest.model.name}, latent {list(manifest.latent.shape)}, {cores()} cores, load {load:.1f}")
    for name, title in (
        ("tail_ms", "tail alone"),
        ("trip_ms", "round trip, one client"),
        ("added_ms", "added by the server"),
        ("around_tail_ms", "round trip - tail_us"),
    ):
        numbers = [f"p{q} {value:8.2f}" for q, value in zip(PERCENTILES, results[name], strict=True)]
        print(f"{title + ', ms':<28} {'  '.join(numbers)}")
    rows = [("added at p50, ms", results["added_ms"][0], f"<= {ADDED_MS}", results["added_ms"][0] <= ADDED_MS)]
    print(f"{'tail alone, batch 8':<28} {results['tail_batch8_per_s']:8.1f} images/s")
    print(f"{'32 clients':<28} {results['clients32_per_s']:8.1f} images/s, mean batch {results['mean_batch']:.1f}")
    ratio, lost = results["throughput_ratio"], results["lost"]
    rows += [("32 clients / batch 8", ratio, f">= {THROUGHPUT}", ratio >= THROUGHPUT)]
    rows += [(f"lost of {results['sent']:,}", lost, "0", lost == 0)]
    if "device_load_s" in results:
        seconds, peak = results["device_load_s"], results["device_peak_mb"]
        rows += [("device loads, s", seconds, f"< {LOAD_S}", seconds < LOAD_S)]
        rows += [("device's peak, MB", peak, f"< {MEMORY_MB}", peak < MEMORY_MB)]
    for name, value, limit, met in rows:
        print(f"{name:<28} {value:8.2f}  {limit:<8} {'met' if met else 'MISSED'}")
    if "trips_ratio" in results:
        trips = f"ours {results['ours_trips_per_s']:.1f}, MLServer {results['mlserver_trips_per_s']:.1f}"
        print(f"{'round trips/s, one client':<28} {trips}, ratio {results['trips_ratio']:.2f}")
    for key in ("device", "mlserver"):
        if key in results:
            print(f"{key:<28} {results[key]}")
    print(json.dumps(results, default=lambda value: round(value, 3)))


if __name__ == "__main__":
    sys.exit(main())
