"""Does the simulation say what real processes do? Both on the same traces, method by method.

    python -m benchmarks.agreement --bundle B --images FOLDER --traces FILE FILE FILE [--deadline-ms 100] [--fps 30]
        [--seconds 30] [--without-local]

Each trace is replayed between real processes by `links.bench`, then simulated with the times that were measured there:
the medians of head and local network on the device, and of decoder and tail on the server. The two must agree within 5
points of images in time. The machine should have nothing else to do.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.edge import EdgeClient
from bottlefit_jax.errors import BottleFitError
from bottlefit_jax.links.inputs import read_images
from bottlefit_jax.links.options import SimulateOptions
from bottlefit_jax.links.proxy import ProcessLink
from bottlefit_jax.links.servers import edge_server
from bottlefit_jax.links.simulate import simulate

ALLOWED = 5.0  # points of images in time
COUNT, DELAY_MS = 40, 5.0


def main(argv: list[str] | None = None) -> int:
    """Run the comparison, print a table, and return 1 where it does not agree."""
    parser = argparse.ArgumentParser(description="The simulation against real processes.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--traces", type=Path, nargs="+", required=True)
    parser.add_argument("--deadline-ms", type=float, default=100.0)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--without-local", action="store_true")
    options = parser.parse_args(argv)
    try:
        return _compare(options)
    except BottleFitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _compare(options: argparse.Namespace) -> int:
    times = _times(options)
    print(f"head {times['head_ms']:.2f} ms, local {times['local_ms']:.2f} ms, tail {times['tail_ms']:.2f} ms")
    print("| trace | method | real: in time | simulated | real: top-1 | simulated |")
    print("| :--- | :--- | ---: | ---: | ---: | ---: |")
    largest = 0.0
    for trace in options.traces:
        real, simulated = _real(options, trace), _simulated(options, trace, times)
        for method, row in real.items():
            other = simulated[method]
            largest = max(largest, abs(row["in_time"] - other["in_time"]))
            values = (row["in_time"], other["in_time"], row["top1"], other["top1"])
            print(f"| {trace.stem} | {method} | {' | '.join(f'{value:.2f}' for value in values)} |", flush=True)
    print(f"largest difference: {largest:.2f} points; at most {ALLOWED:g} are allowed")
    return int(largest > ALLOWED)


def _times(options: argparse.Namespace) -> dict[str, float]:
    """Return the medians of what a device and its server take, over a fast link."""
    images = read_images(options.images)
    has_local = read_bundle(options.bundle).manifest.local is not None and not options.without_local
    with ProcessLink() as link:
        link.shape(1000.0, 0)
        with edge_server(options.bundle, link) as server:
            host, port = link.through(server.port)
            with EdgeClient(options.bundle, f"{host}:{port}", policy="fixed") as client:
                found = [client.infer(images[number % len(images)]).timings for number in range(COUNT)]
                local = [
                    client.infer_local(images[number % len(images)]).timings for number in range(COUNT * has_local)
                ]
    return {
        "head_ms": statistics.median(each.preprocess + each.head + each.quantizer + each.encode for each in found),
        # gRPC's part of a call is counted with the server: the link has no delay
        "tail_ms": statistics.median(
            each.network + (each.queue or 0) + (each.decode or 0) + (each.tail or 0) for each in found
        ),
        "local_ms": statistics.median(each.total for each in local) if local else float("nan"),
    }


def _real(options: argparse.Namespace, trace: Path) -> dict[str, dict]:
    with tempfile.TemporaryDirectory() as folder:
        argv = ["--bundle", options.bundle, "--images", options.images, "--output", folder, "--trace", trace]
        argv += ["--deadline-ms", options.deadline_ms, "--fps", options.fps, "--seconds", options.seconds]
        argv += ["--delays", DELAY_MS, *(["--without-local"] if options.without_local else [])]
        subprocess.run([sys.executable, "-m", "bottlefit_jax.links.bench", *map(str, argv)], check=True)
        return json.loads((Path(folder) / "bench.json").read_text())["total"]


def _simulated(options: argparse.Namespace, trace: Path, times: dict[str, float]) -> dict[str, dict]:
    known = {name: value for name, value in times.items() if np.isfinite(value)}
    found = simulate(
        SimulateOptions(
            options.bundle,
            trace,
            options.deadline_ms,
            delay_ms=DELAY_MS,
            fps=options.fps,
            seconds=options.seconds,
            without_local=options.without_local,
            **known,
        )
    )
    return {"auto": found["auto"], **found["fixed"], **({"local": found["local"]} if found["local"] else {})}


if __name__ == "__main__":
    sys.exit(main())
