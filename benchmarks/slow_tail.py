"""The real server with a tail that takes as long as is asked, however fast or busy the machine is.

    python -m benchmarks.slow_tail --tail-ms 60 --more-ms 15 --batches FILE -- --bundle B --port 0

What is after `--` goes to `bottlefit_jax.serve`. Its gRPC, queue, deadlines and decoder stay as they are. The tail of
ONNX Runtime runs, then a sleep fills the rest of the time: it takes `--tail-ms` for one image and `--more-ms` for each
further image of a batch. FILE gets a line for each batch: when it began (time.monotonic), seconds, images.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from bottlefit_jax.bundle import Bundle
from bottlefit_jax.serve.tail import BACKENDS, Backend, Tail

NAME = "slow"


class Batch(NamedTuple):
    """A batch that the tail ran: when it began, seconds of time.monotonic; the seconds that it took; its images."""

    began: float
    seconds: float
    images: int


def read_batches(file: Path) -> list[Batch]:
    """Return what the server wrote."""
    rows = (line.split() for line in file.read_text().splitlines())
    return [Batch(float(began), float(seconds), int(images)) for began, seconds, images in rows]


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal, and return the exit code."""
    parser = argparse.ArgumentParser(description="The server with a slow tail.")
    parser.add_argument("--tail-ms", type=float, required=True, help="of one image")
    parser.add_argument("--more-ms", type=float, required=True, help="of each further image of a batch")
    parser.add_argument("--batches", type=Path, required=True)
    parser.add_argument("serve", nargs="+", help="flags of bottlefit_jax.serve")
    options = parser.parse_args(argv)
    with options.batches.open("w", buffering=1) as log:

        def load(bundle: Bundle, threads: int, max_batch: int, providers: Sequence[str]) -> Tail:
            tail = BACKENDS["onnx"].load(bundle, threads, max_batch, providers)
            return slowed(tail, options.tail_ms / 1e3, options.more_ms / 1e3, log)

        BACKENDS[NAME] = Backend(load, BACKENDS["onnx"].platform, BACKENDS["onnx"].library)
        from bottlefit_jax.serve.__main__ import main as serve  # after the row above, which its flags name

        return serve([*options.serve, "--backend", NAME])


def slowed(tail: Tail, seconds: float, more: float, log: TextIO) -> Tail:
    """Return a tail that takes at least so long, and writes down its batches."""

    def run(latent: np.ndarray) -> np.ndarray:
        began, images = time.monotonic(), len(latent)
        logits = tail(latent)
        time.sleep(max(began + seconds + (images - 1) * more - time.monotonic(), 0.0))
        log.write(f"{began} {time.monotonic() - began} {images}\n")
        return logits

    return run


if __name__ == "__main__":
    sys.exit(main())
