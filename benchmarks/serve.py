"""The time that the server adds to its tail, and the cost of a device's process.

    python -m export.bundle --workdir RUN --output B      # a DenseNet-169 student, 3 channels, 224 px
    python -m benchmarks.serve --bundle B [--mlserver VENV/bin/python]
    python -m benchmarks.serve_load --bundle B --deadline-ms 2000      # overload

One machine of two cores runs both ends. Our server is the command with its defaults. "The tail alone" is the same
function in this process, called in a loop, in turns with the server. Every client is tritonclient's. Other load on the
machine distorts the numbers: the load before the run is printed.
Images go out as payloads at the bundle's default rate, or at --rate, and come back as the five likeliest classes;
`--rate raw` sends raw latents and gets logits. serve_mlserver.py has the comparison with MLServer.
"""

import argparse
import contextlib
import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from benchmarks.serve_input import Images, caller, device_request, make_images, seconds_of, timed
from benchmarks.serve_mlserver import against_mlserver
from bottlefit_jax.bundle import Bundle, read_bundle
from bottlefit_jax.codec import wire
from bottlefit_jax.errors import UserError
from bottlefit_jax.serve.options import cores
from bottlefit_jax.serve.tail import open_tail

BATCH, CLIENTS = 8, 32
PERCENTILES = (50, 95, 99)
ADDED_MS, THROUGHPUT, FRAMING, LOAD_S, MEMORY_MB = 2.0, 0.9, 200, 0.5, 120  # the limits to keep
DEVICE = """
import sys, time
start = time.perf_counter()
from bottlefit_jax.edge.client import EdgeClient
client = EdgeClient(BUNDLE, SERVER, policy="fixed")
seconds = time.perf_counter() - start
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, int(peak) / 1024)
"""


def main(argv: list[str] | None = None) -> int:
    """Run the comparison and print it as a table and a line of JSON; return the exit code."""
    parser = argparse.ArgumentParser(description="The server against its own tail, and against MLServer.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rate", help="an id, or raw (default: the bundle's)")
    parser.add_argument("--mlserver", default="", help="the Python of an environment with mlserver and onnxruntime")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each side")
    parser.add_argument("--requests", type=int, default=30, help="by one client in a turn")
    options = parser.parse_args(argv)
    try:
        load = os.getloadavg()[0]
        bundle = read_bundle(options.bundle)
        images = make_images(bundle, CLIENTS, options.rate)
        with ours(bundle) as address:
            results = {
                "load_before": load,
                "rate": images.rate,
                "framing": device_request(bundle, images, 2.0)[1],
                **decoding(bundle, images),
                **one_client(bundle, images, address, options.rounds, options.requests),
                **many_clients(bundle, images, address, options.rounds),
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


def decoding(bundle: Bundle, images: Images, times: int = 30) -> dict[str, Any]:
    """Measure the milliseconds in which 1 and 8 payloads are decoded in this process, and the mean payload."""
    rates = bundle.read_rates()
    if images.payloads is None or rates is None:
        return {"sent_bytes": images.latents[0].size}
    result: dict[str, Any] = {"sent_bytes": statistics.mean(map(len, images.payloads))}
    decode = functools.partial(wire.decode_batch, rates=rates)
    for count in (1, BATCH):
        work = functools.partial(decode, images.payloads[:count])
        result[f"decode{count}_ms"] = 1e3 * statistics.median(seconds_of(work) for _ in range(times))
    return result


def one_client(bundle: Bundle, images: Images, address: str, rounds: int, requests: int) -> dict[str, Any]:
    """Measure the tail alone and round trips, in turns, in milliseconds; `added` is the difference of percentiles."""
    tail, latent = own_tail(bundle), images.latents[:1]
    alone, trips, around = [], [], []
    with triton.InferenceServerClient(address) as client:
        call = caller(client, bundle, images)
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


def many_clients(bundle: Bundle, images: Images, address: str, rounds: int) -> dict[str, Any]:
    """Measure images per second: the tail alone with batches of 8, and 32 clients that send one image at a time."""
    tail, latent = own_tail(bundle), images.latents[:BATCH]
    tail(latent)
    alone, served, lost, sent, batches = [], [], 0, 0, []
    for _ in range(rounds):
        alone.append(statistics.median(BATCH / tail(latent) for _ in range(6)))
        answers: list[Any] = []
        each = 5

        def send(number: int, answers: list[Any] = answers, each: int = each) -> None:
            with triton.InferenceServerClient(address) as client:
                call = caller(client, bundle, images, number)
                for _ in range(each):
                    with contextlib.suppress(triton.InferenceServerException):
                        answers.append(call().parameters["batch"].int64_param)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(CLIENTS)]

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


def report(bundle: Bundle, results: dict[str, Any]) -> None:
    """Print the results as a table, then as one line of JSON."""
    manifest = bundle.manifest
    load = results["load_before"]
    print(f"{manifest.model.name}, latent {list(manifest.latent.shape)}, {cores()} cores, load {load:.1f}")
    print(f"{'rate ' + results['rate']:<28} {results['sent_bytes']:8.0f} bytes")
    if "decode1_ms" in results:
        print(f"{'decoding 1 and 8, ms':<28} {results['decode1_ms']:8.2f} {results['decode8_ms']:8.2f}")
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
    rows += [("framing, bytes", results["framing"], f"<= {FRAMING}", results["framing"] <= FRAMING)]
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
