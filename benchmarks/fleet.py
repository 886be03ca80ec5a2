"""Does the fleet simulation say what a real server does with 32 real clients? Both with the same images and links.

    python -m benchmarks.fleet --bundle B --images FOLDER --traces FOLDER [--loads 4 1.2 0.8] [--devices 32]
        [--seconds 60] [--deadline-ms 400] [--delay-ms 5] [--tail-ms 60 --more-ms 15] [--local-ms 60]
        [--slower-links 10]

The server is `bottlefit_jax.serve` in a process of its own, the devices are EdgeClients with the policy, in four
processes. Each has its own link on loopback, which replays its trace from its offset, and takes its images at the times
at which the simulation takes them. A load is the mean of seconds between two images of a device.

So that two cores can hold a fleet, the tail is slow and not busy: benchmarks/slow_tail.py lets it sleep for the rest of
its time, and so does the local network with `--local-ms`, without which the devices have none. gRPC, the queue,
batches, deadlines, decoder, clients, heads, payloads and links are real. What this does not show is a tail that
competes with the server's own work for the processor. The links are slower than the traces say, as the payloads of a
small bundle are smaller than those of a large one.

The simulation gets what was measured in the same run: the mean of the head, the tail's time for one image and for each
further one, the payloads of the images at each rate. One client over a fast link before the run shows what gRPC and
both processes add to a call; half of it is added to the link's delay in each direction.

Images in time, their mean latency and the busy share must agree within 10 %. That is asked of loads at which the server
answers a good part of the images; far above its capacity, where a hundredth of them is in time without a local network,
a quotient says nothing. Other work on the machine delays the real side: on Linux `chrt -r 1` in front of the command
gives it precedence, for a fifth of two cores. `late_ms` is the most by which an image was taken late.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from benchmarks.fleet_devices import Setting, device_class
from benchmarks.serve import serving
from benchmarks.slow_tail import Batch, read_batches
from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.edge.device_head import DeviceHead
from bottlefit_jax.edge.image import preprocess
from bottlefit_jax.edge.path import LOCAL, paths_of
from bottlefit_jax.edge.path import Path as PredictionPath
from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.errors import BottleFitError, UserError
from bottlefit_jax.links.flags import check_limits
from bottlefit_jax.links.fleet import FleetOutcome, simulate_fleet
from bottlefit_jax.links.inputs import read_images
from bottlefit_jax.links.options import FleetOptions, SimulateOptions
from bottlefit_jax.links.proxy import ProcessLink
from bottlefit_jax.links.run import Answer, Run
from bottlefit_jax.links.trace import Trace, read_traces
from bottlefit_jax.links.world import Outcome, Times

PROCESSES, CALLS, FAST_MBIT = 4, 60, 1000.0
ALLOWED = 0.1  # relative difference
CHECKED = IN_TIME, MEAN, BUSY = "in time, %", "mean of answers in time, ms", "busy, %"
TOO_LATE_MS = 60.0
TIMES = ("head_ms", "local_ms", "tail_ms", "more_ms")
POINTS = "% of images"  # rows whose shares are too small for a quotient
SECONDS, MS = (0.01, 3600), (0.1, 60_000)
LIMITS = {  # flag -> smallest and largest value
    "devices": (PROCESSES, 1000),
    "seconds": SECONDS,
    "deadline_ms": MS,
    "delay_ms": (0, 60_000),
    "tail_ms": MS,
    "more_ms": MS,
    "local_ms": MS,
    "slower_links": (0.001, 1000),
}
STILL = Trace("any", (0.0,), (1.0,))  # a Run names one; here each device has another


def main(argv: list[str] | None = None) -> int:
    """Run all loads, print a table for each, and return 1 where one does not agree."""
    parser = argparse.ArgumentParser(description="The fleet simulation against real processes.")
    add = parser.add_argument
    for flag in ("--bundle", "--images", "--traces"):
        add(flag, type=Path, required=True)
    add("--loads", type=float, nargs="+", default=[4.0, 1.2, 0.8], help="seconds between two images of a device, mean")
    add("--devices", type=int, default=32)
    defaults = {"--seconds": 60.0, "--deadline-ms": 400.0, "--delay-ms": 5.0, "--tail-ms": 60.0, "--more-ms": 15.0}
    for flag, default in defaults.items():
        add(flag, type=float, default=default)
    add("--slower-links", type=float, default=10.0, metavar="TIMES", help="than the traces say")
    add("--local-ms", type=float, help="give the devices the local network, which takes so long")
    options = parser.parse_args(argv)
    try:
        check_limits(vars(options), LIMITS)
        for every in options.loads:
            check_limits({"loads": every}, {"loads": SECONDS})
        paths_of(read_bundle(options.bundle).manifest, local=options.local_ms is not None)
        with tempfile.TemporaryDirectory() as folder:
            traces = _slower(options, Path(folder))
            agreed = [_compare(options, every, traces) for every in options.loads]
            return int(not all(agreed))
    except BottleFitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _slower(options: argparse.Namespace, folder: Path) -> Path:
    """Write the traces with lower rates into a folder, and return it."""
    read_traces(options.traces)  # which finds what is wrong with them
    files = sorted(options.traces.glob("*.csv")) if options.traces.is_dir() else [options.traces]
    for file in files:
        heading, *rows = filter(None, file.read_text().splitlines())
        pairs = (row.split(",") for row in rows)
        lines = [heading, *(f"{seconds},{float(rate) / options.slower_links}" for seconds, rate in pairs)]
        (folder / file.name).write_text("\n".join(lines) + "\n")
    return folder


def _compare(options: argparse.Namespace, every: float, traces: Path) -> bool:
    """Run and simulate one load, print both, and return whether they agree."""
    load, idle = os.getloadavg()[0], _idle_seconds()
    began = time.monotonic()
    real, measured = _real(options, every, traces)
    spare = (_idle_seconds() - idle) / (time.monotonic() - began) / (os.cpu_count() or 1)
    simulated = simulate_fleet(
        FleetOptions(options.devices, every=every),
        SimulateOptions(
            options.bundle,
            traces,
            options.deadline_ms,
            delay_ms=options.delay_ms + measured["call_ms"] / 2,
            seconds=options.seconds,
        ),
        read_traces(traces),
        _paths(options),
        Times(*(None if (ms := measured[name]) is None else ms / 1e3 for name in TIMES)),  # pyright: ignore
        servers=1,
    )
    print(f"{options.devices} devices, an image every {every:g} s each, {options.seconds:g} s, deadline ", end="")
    print(f"{options.deadline_ms:g} ms; load average before {load:.1f}, idle processors {100 * spare:.0f} %")
    print(", ".join(f"{name} {_shown(value)}" for name, value in measured.items()))
    if measured["late_ms"] > TOO_LATE_MS:
        print("the machine was too busy: images were taken late, and what follows says little of the simulation")
    return print_comparison(real, simulated)


def _real(options: argparse.Namespace, every: float, traces: Path) -> tuple[FleetOutcome, dict[str, Any]]:
    """Run the devices against the server; return what became of the images, and what was measured of the parts."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        batches = Path(folder) / "batches"
        words = [sys.executable, "-m", "benchmarks.slow_tail", "--tail-ms", str(options.tail_ms)]
        words += ["--more-ms", str(options.more_ms), "--batches", str(batches), "--"]
        words += ["--bundle", str(options.bundle), "--port", "0", "--log-calls", "0"]
        _, address = stack.enter_context(serving(words))
        alone = _alone(options, address)
        port = int(address.rpartition(":")[2])
        processes = [
            stack.enter_context(_devices(_setting(options, every, traces, port, number))) for number in range(PROCESSES)
        ]
        for process in processes:
            if _line(process) != "ready\n":
                raise UserError("a process of devices did not start")
        failed = _failed(address)
        begins = time.monotonic() + 1.0
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{begins}\n")
            process.stdin.flush()
        found = [device for process in processes for device in json.loads(_line(process) or "[]")]
        failed = _failed(address) - failed
        ran = [batch for batch in read_batches(batches) if batch.began >= begins]
    errors = [device["error"] for device in found if device["error"] is not None]
    if errors or len(found) < options.devices:
        raise UserError(f"{len(errors)} devices failed: {errors[0] if errors else 'no results'}")
    measured = _measured(options, found, ran) | alone
    return _outcome(options, found, ran, measured["decode_ms"], failed), measured


def _setting(options: argparse.Namespace, every: float, traces: Path, port: int, number: int) -> Setting:
    return Setting(
        bundle=str(options.bundle),
        images=str(options.images),
        traces=str(traces),
        port=port,
        numbers=list(range(number, options.devices, PROCESSES)),
        devices=options.devices,
        every=every,
        deadline_ms=options.deadline_ms,
        delay_ms=options.delay_ms,
        seconds=options.seconds,
        local_ms=options.local_ms,
    )


@contextlib.contextmanager
def _devices(setting: Setting) -> Iterator[subprocess.Popen[str]]:
    """Start a process of devices; it has ended at the end of the context."""
    words = [sys.executable, "-m", "benchmarks.fleet_devices", setting.to_json()]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def _shown(value: Any) -> str:
    """Return a measured value in a few digits."""
    if isinstance(value, dict):
        return "/".join(_shown(each) for each in value.values())
    return "none" if value is None else f"{value:.2f}"


def _idle_seconds() -> float:
    """Return the seconds that the processors have been idle, all together."""
    return float(Path("/proc/uptime").read_text().split()[1])


def _line(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline() if process.stdout else ""


def _alone(options: argparse.Namespace, address: str) -> dict[str, Any]:
    """Return medians of one client: what a call takes beside link, queue, decoder and tail; and the local network."""
    images = read_images(options.images)
    with ProcessLink() as link:
        link.shape(FAST_MBIT, 0)
        host, port = link.through(int(address.rpartition(":")[2]))
        with device_class(options.local_ms)(options.bundle, f"{host}:{port}", policy="fixed") as client:
            calls = [client.infer(images[number % len(images)]).timings.network for number in range(CALLS)]
            locally = 0 if options.local_ms is None else CALLS
            runs = [client.infer_local(images[number % len(images)]).timings.total for number in range(locally)]
    return {"call_ms": statistics.median(calls), "local_ms": statistics.median(runs) if runs else None}


def _failed(address: str) -> int:
    """Return how many requests the server has refused, dropped or seen cancelled."""
    with triton.InferenceServerClient(address) as client:
        statistics_of: Any = client.get_inference_statistics()
    return sum(each.inference_stats.fail.count for each in statistics_of.model_stats)


def _measured(options: argparse.Namespace, found: Sequence[dict], batches: Sequence[Batch]) -> dict[str, Any]:
    """Return the means of what was measured in the run: times in ms, and bytes by path."""
    answers = [answer for device in found for answer in device["answers"] if answer["path"] is not None]
    remote = [answer for answer in answers if answer["path"] != LOCAL]
    if not remote or not batches:
        raise UserError(
            "the server answered no image: give --loads, --deadline-ms or --slower-links that leave it time"
        )
    decode = statistics.fmean(answer["decode"] for answer in remote)
    sizes = sorted({batch.images for batch in batches})
    more, one = np.polyfit([batch.images - 1 for batch in batches], [1e3 * batch.seconds for batch in batches], 1)
    if len(sizes) < 2:
        more, one = options.more_ms, statistics.fmean(1e3 * batch.seconds for batch in batches)
    return {
        "head_ms": statistics.fmean(answer["head"] for answer in remote),
        "tail_ms": float(one) + decode,
        "more_ms": float(more),
        "decode_ms": decode,
        "batch_ms": {
            size: 1e3 * statistics.fmean(each.seconds for each in batches if each.images == size) for size in sizes
        },
        "overhead_bytes": statistics.fmean(answer["bytes"] - answer["payload"] for answer in remote),
        "late_ms": 1e3 * max(device["late"] for device in found),
    }


def _paths(options: argparse.Namespace) -> list[PredictionPath]:
    """Return the bundle's paths with the payloads that the images have."""
    bundle = read_bundle(options.bundle)
    head = DeviceHead(Interpreter(bundle.path(bundle.manifest.head_file("litert").file)), bundle)
    latents = [
        head.quantise(head.run(preprocess(image, bundle.manifest.image))) for image in read_images(options.images)
    ]

    def measured(path: PredictionPath) -> PredictionPath:
        if path.work == LOCAL:
            return path
        sizes = [len(head.encode(latent, path.name) or b"") for latent in latents]
        return replace(path, bytes_mean=float(np.mean(sizes)), bytes_p95=float(np.percentile(sizes, 95)))

    return [measured(path) for path in paths_of(bundle.manifest, local=options.local_ms is not None)]


def _outcome(
    options: argparse.Namespace, found: Sequence[dict], batches: Sequence[Batch], decode_ms: float, failed: int
) -> FleetOutcome:
    """Return what became of the images of all devices."""
    paths = paths_of(read_bundle(options.bundle).manifest, local=options.local_ms is not None)
    top1, deadline = {path.name: path.top1 for path in paths}, options.deadline_ms / 1e3
    outcomes = []
    for device in found:
        answers = [Answer(0.0, answer["seconds"], answer["path"]) for answer in device["answers"]]
        run = Run("auto", STILL, options.delay_ms, device["images"], answers, device["sent"])
        outcomes.append(run.outcome(deadline, top1))
    busy = sum(batch.seconds + decode_ms / 1e3 for batch in batches)
    return FleetOutcome(
        servers=1,
        seconds=options.seconds,
        images=Outcome.of_all(outcomes),
        refused=failed,
        busy=min(100 * busy / options.seconds, 100.0),
        batch=statistics.fmean(batch.images for batch in batches),
    )


def print_comparison(real: FleetOutcome, simulated: FleetOutcome) -> bool:
    """Print both side by side; return whether what is checked agrees."""
    one, other = _row(real), _row(simulated)
    print("| | real | simulated | difference |")
    print("| :--- | ---: | ---: | ---: |")
    agrees = True
    for name in dict.fromkeys([*one, *other]):
        values = one.get(name, 0.0), other.get(name, 0.0)
        difference = values[1] - values[0]
        if name.endswith(POINTS):
            words = f"{difference:+.2f} points"
        else:
            words = f"{100 * difference / max(values[0], 1e-9):+.1f} %"
        if name in CHECKED and abs(difference) > ALLOWED * values[0]:
            agrees, words = False, f"{words}, DIFFERS"
        print(f"| {name} | {values[0]:,.2f} | {values[1]:,.2f} | {words} |")
    print(flush=True)
    return agrees


def _row(outcome: FleetOutcome) -> dict[str, float]:
    """Return the values of a column by their names."""
    values = outcome.to_json()
    return {
        "images": float(outcome.images.images),
        IN_TIME: values["in_time"],
        "top-1, %": values["top1"],
        MEAN: 1e3 * statistics.fmean(outcome.images.times or [0.0]),
        "p50, ms": values["p50_ms"],
        "p95, ms": values["p95_ms"],
        "bytes of an image": values["bytes"],
        BUSY: values["busy"],
        "mean batch": values["batch"],
        "refused, % of images": values["refused"],
        **{f"answered by {name}, % of images": share for name, share in values["paths"].items()},
    }


if __name__ == "__main__":
    sys.exit(main())
