"""What the server adds to its tail, and what a device's process costs.

    python -m export.bundle --workdir RUN --output B      # a DenseNet-169 student, 3 channels, 224 px, as in the issue
    python -m benchmarks.serve --bundle B [--mlserver VENV/bin/python]
    python -m benchmarks.serve_load --bundle B --deadline-ms 2000      # more than it can bear

One machine of two cores runs both ends. Our server is the command, with its defaults; "the tail alone" is the same
function in this process, called in a loop, in turns with the server. Every client is tritonclient's. Other load on the
machine spoils the numbers: the load that was there before is printed.
MLServer lives in an environment of its own (pip install mlserver onnxruntime) and serves the same tail.onnx by a
runtime of ten lines, without its worker processes and its batching, which is its fastest with one client.
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
from bottlefit_jax.serve.tail import open_tail

BATCH, CLIENTS = 8, 32
PERCENTILES = (50, 95, 99)
ADDED_MS, THROUGHPUT, LOAD_S, MEMORY_MB = 2.0, 0.9, 0.5, 120  # what must be reached
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
        (logits,) = self.session.run(None, {"latent": latent})
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
            found = {
                "load_before": load,
                **one_client(bundle, address, options.rounds, options.requests),
                **many_clients(bundle, address, options.rounds),
                **device(bundle, address),
            }
            found |= against_mlserver(bundle, address, options.mlserver, options.rounds, options.requests)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report(bundle, found)
    return 0


@contextlib.contextmanager
def ours(bundle: Bundle) -> Iterator[str]:
    """Our server as a process; yields its address."""
    words = [sys.executable, "-m", "bottlefit_jax.serve", "--bundle", str(bundle.folder), "--port", "0"]
    with serving(words) as (_, address):
        yield address


@contextlib.contextmanager
def serving(words: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server as a process; yields it and the address that it says it listens on."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("listening on "):
                raise UserError(f"{' '.join(words)} does not start")
            yield process, line.split()[2]
        finally:
            process.send_signal(signal.SIGTERM)


def own_tail(bundle: Bundle) -> Callable[[np.ndarray], float]:
    """A function from latents to the seconds that the tail takes for them in this process."""
    tail = open_tail(bundle, backend="onnx", threads=cores(), max_batch=BATCH)
    return lambda latent: seconds_of(lambda: tail(latent))


def one_client(bundle: Bundle, address: str, rounds: int, requests: int) -> dict[str, Any]:
    """Milliseconds of the tail alone and of round trips, in turns; `added` is from percentile to percentile."""
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
    """Images per second: the tail alone at batch 8, and 32 clients that each send one image after the other."""
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
    """Seconds to import and load the device's client in a process of its own, and its peak memory in MB; medians."""
    code = DEVICE.replace("BUNDLE", repr(str(bundle.folder))).replace("SERVER", repr(address))
    found = []
    for _ in range(times):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if done.returncode:
            return {"device": f"not measured: {(done.stderr.strip() or 'no error').splitlines()[-1]}"}
        found.append([float(word) for word in done.stdout.split()])
    return {
        "device_load_s": statistics.median(one[0] for one in found),
        "device_peak_mb": statistics.median(one[1] for one in found),
    }


def against_mlserver(bundle: Bundle, address: str, python: str, rounds: int, requests: int) -> dict[str, Any]:
    """Round trips per second of one client, in turns."""
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
            raise UserError("MLServer's logits are not ours: the comparison would be worth nothing")
        rates: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                rates[name].append(1 / statistics.median(seconds_of(call) for _ in range(requests)))
    medians = {f"{name}_trips_per_s": statistics.median(values) for name, values in rates.items()}
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["mlserver"], strict=True)]
    return {**medians, "trips_ratio": statistics.median(ratios)}


@contextlib.contextmanager
def mlserver(bundle: Bundle, python: str) -> Iterator[str]:
    """MLServer as a process; yields its gRPC address once the model is ready."""
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
                    raise UserError(f"MLServer does not start: {(place / 'log').read_text()[-500:]}")
                yield address
            finally:
                process.terminate()
                process.wait()


def ready(address: str, name: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether the model gets ready within a minute."""
    end = time.monotonic() + 60
    with triton.InferenceServerClient(address) as client:
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(triton.InferenceServerException):
                if client.is_model_ready(name):
                    return True
            time.sleep(0.5)
    return False


def caller(client: Any, bundle: Bundle, latent: np.ndarray) -> Callable[[], Any]:
    """A function that sends `latent` and returns the response message."""
    tensor = triton.InferInput("latent", latent.shape, "UINT8")
    tensor.set_data_from_numpy(latent)
    return lambda: client.infer(bundle.manifest.name, [tensor], client_timeout=60).get_response()


def logits_of(response: Any) -> list[float]:
    """Of raw or typed contents: MLServer answers with the latter unless it is asked in raw."""
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], np.float32).tolist()
    return list(response.outputs[0].contents.fp32_contents)


def latents(bundle: Bundle, batch: int) -> np.ndarray:
    """[batch, h, w, c] uint8, random."""
    return np.random.default_rng(0).integers(0, 256, (batch, *bundle.manifest.latent.shape), dtype=np.uint8)


def seconds_of(work: Callable[[], object]) -> float:
    """The time that `work()` takes."""
    return timed(work)[0]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """The time that `work()` takes, and what it returns."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def report(bundle: Bundle, found: dict[str, Any]) -> None:
    """Print the result for a person, then as one line of JSON."""
    manifest = bundle.manifest
    print(
        f"{manifest.model.name}, latent {list(manifest.latent.shape)}, {cores()} cores, load {found['load_before']:.1f}"
    )
    for name, said in (
        ("tail_ms", "tail alone"),
        ("trip_ms", "round trip, one client"),
        ("added_ms", "added by the server"),
        ("around_tail_ms", "round trip - tail_us"),
    ):
        numbers = [f"p{q} {value:8.2f}" for q, value in zip(PERCENTILES, found[name], strict=True)]
        print(f"{said + ', ms':<28} {'  '.join(numbers)}")
    rows = [("added at p50, ms", found["added_ms"][0], f"<= {ADDED_MS}", found["added_ms"][0] <= ADDED_MS)]
    print(f"{'tail alone, batch 8':<28} {found['tail_batch8_per_s']:8.1f} images/s")
    print(f"{'32 clients':<28} {found['clients32_per_s']:8.1f} images/s, mean batch {found['mean_batch']:.1f}")
    ratio, lost = found["throughput_ratio"], found["lost"]
    rows += [("32 clients / batch 8", ratio, f">= {THROUGHPUT}", ratio >= THROUGHPUT)]
    rows += [(f"lost of {found['sent']:,}", lost, "0", lost == 0)]
    if "device_load_s" in found:
        load, peak = found["device_load_s"], found["device_peak_mb"]
        rows += [("device loads, s", load, f"< {LOAD_S}", load < LOAD_S)]
        rows += [("device's peak, MB", peak, f"< {MEMORY_MB}", peak < MEMORY_MB)]
    for name, value, wanted, met in rows:
        print(f"{name:<28} {value:8.2f}  {wanted:<8} {'met' if met else 'MISSED'}")
    if "trips_ratio" in found:
        trips = f"ours {found['ours_trips_per_s']:.1f}, MLServer {found['mlserver_trips_per_s']:.1f}"
        print(f"{'round trips/s, one client':<28} {trips}, ratio {found['trips_ratio']:.2f}")
    for key in ("device", "mlserver"):
        if key in found:
            print(f"{key:<28} {found[key]}")
    print(json.dumps(found, default=lambda value: round(value, 3)))


if __name__ == "__main__":
    sys.exit(main())
