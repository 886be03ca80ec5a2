"""Measures on this machine how long a bundle's parts take, for simulations."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.edge.device_head import DeviceHead
from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.links.world import Times
from bottlefit_jax.serve.tail import open_tail

RUNS, WARM_UP = 20, 3
BATCH = 8  # images of the larger batch that is measured


def measure_times(folder: Path, *, slower: float = 1.0) -> Times:
    """Return medians of head, whole network, tail, and of each further image of a batch in the tail, on one core.

    Args:
        folder: of the bundle.
        slower: how many times as long the device is assumed to compute.

    Raises:
        UserError: a file of the bundle is missing or damaged.
    """
    bundle = read_bundle(folder)
    manifest = bundle.manifest
    image = np.random.default_rng(0).integers(0, 256, (manifest.image.height, manifest.image.width, 3), np.uint8)
    head = DeviceHead(Interpreter(bundle.path(manifest.head_file("litert").file)), bundle)
    local = None if manifest.local is None else Interpreter(bundle.path(manifest.local.litert))
    tail = open_tail(bundle, backend="onnx", threads=1, max_batch=BATCH)
    latent = np.full((1, *manifest.latent.shape), manifest.latent.zero_point, np.uint8)
    one, batch = _median(lambda: tail(latent)), _median(lambda: tail(latent.repeat(BATCH, 0)))
    return Times(
        head=slower * _median(lambda: head.encode(head.quantise(head.run(image)))),
        local=None if local is None else slower * _median(lambda: local.run(image)),
        tail=one,
        more=max(batch - one, 0.0) / (BATCH - 1),
    )


def _median(compute: Callable[[], Any]) -> float:
    """Return the median of the seconds that a computation takes."""
    for _ in range(WARM_UP):
        compute()
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        compute()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
