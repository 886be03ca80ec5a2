"""How many frames a second a device gets classified over a link with a delay: one at a time, and as a stream.

    python -m benchmarks.stream --bundle B [--delay-ms 5] [--frames 300]

The server is our command, the link is this process's proxy in front of it, and one machine runs all three, so its cores
are shared. Both ways take turns. Frames are noise of the head's size. `--grow` sends that many frames more as a stream
and prints the memory and the open files of this process before and after.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.serve import ours
from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.edge import EdgeClient
from bottlefit_jax.errors import UserError
from bottlefit_jax.links.proxy import ProcessLink

FAST_MBIT = 1000.0


def main(argv: list[str] | None = None) -> int:
    """Run the comparison and print one JSON object; return the exit code."""
    parser = argparse.ArgumentParser(description="A stream against one image at a time.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--delay-ms", type=float, default=5.0, help="each way")
    parser.add_argument("--rate-mbit", type=float, default=FAST_MBIT, help="of the link, each way")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--frames", type=int, default=300, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--grow", type=int, default=0, help="frames of a long stream, to watch memory and open files")
    options = parser.parse_args(argv)
    try:
        print(json.dumps(measure(options)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return the medians of both ways, and their ratio; frames a second."""
    bundle = read_bundle(options.bundle)
    size = bundle.manifest.image
    images = list(np.random.default_rng(0).integers(0, 256, (16, size.height, size.width, 3), np.uint8))
    link = ProcessLink()
    single, stream, grown = [], [], {}
    try:
        link.shape(options.rate_mbit, options.delay_ms)
        with ours(bundle) as address:
            host, port = link.through(int(address.rpartition(":")[2]))
            with EdgeClient(options.bundle, f"{host}:{port}", deadline_ms=60_000, policy="fixed") as client:
                client.connect()
                for number in range(options.rounds + 1):
                    turns = _one_by_one(client, images, options), _as_stream(client, images, options)
                    if number:  # the first round warms up
                        single.append(turns[0])
                        stream.append(turns[1])
                if options.grow:
                    grown = _grow(client, images, options)
    finally:
        link.close()
    ratio = statistics.median(fast / slow for fast, slow in zip(stream, single, strict=True))
    shape = {"delay_ms": options.delay_ms, "rate_mbit": options.rate_mbit, "in_flight": options.in_flight}
    medians = {"one_by_one_per_s": statistics.median(single), "stream_per_s": statistics.median(stream)}
    return {**shape, **medians, "ratio": ratio, **grown, "load": os.getloadavg()[0]}


def _one_by_one(client: EdgeClient, images: list[np.ndarray], options: argparse.Namespace) -> float:
    frames = max(options.frames // options.in_flight, 10)  # it is slower
    started = time.perf_counter()
    for number in range(frames):
        client.infer(images[number % len(images)])
    return frames / (time.perf_counter() - started)


def _as_stream(client: EdgeClient, images: list[np.ndarray], options: argparse.Namespace) -> float:
    frames = (images[number % len(images)] for number in range(options.frames))
    started = time.perf_counter()
    for result in client.stream(frames, in_flight=options.in_flight):
        if result.error is not None:
            raise UserError(f"frame {result.number}: {result.error}")
    return options.frames / (time.perf_counter() - started)


def _grow(client: EdgeClient, images: list[np.ndarray], options: argparse.Namespace) -> dict[str, object]:
    """Return resident MB and open files of this process after 1,000 frames and after all."""
    frames = (images[number % len(images)] for number in range(options.grow))
    seen = []
    for result in client.stream(frames, in_flight=options.in_flight):
        if result.number in (1000, options.grow):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            seen.append((round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1), len(os.listdir("/proc/self/fd"))))
    return {"grown_frames": options.grow, "megabytes_and_files": seen}


if __name__ == "__main__":
    sys.exit(main())
