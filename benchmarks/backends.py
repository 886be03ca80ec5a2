"""A bundle's tail in everything here that the server can run it with: milliseconds and logits.

    python -m benchmarks.backends --bundle B [--batch 1 --batch 8] [--threads 2]
    python -m benchmarks.backends --model resnet152          # random weights and latents, as in benchmarks.tail

The ways are `serve --backend onnx` on the CPU and on a GPU (CUDA), `--backend jax` on the device that JAX has, and
`--backend openvino`. One that cannot be used is named, and left out. The latents are those of the golden images. A
round runs each way once, in turns; reported are medians over the rounds and the ratio to ONNX Runtime on the CPU within
each round. Logits are compared with those of the export, or, of a model, with those of ONNX Runtime on the CPU.
"""

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax import onnx_session
from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.bundle.golden import read_golden
from bottlefit_jax.errors import UserError
from bottlefit_jax.serve.options import cores
from bottlefit_jax.serve.tail import open_tail

CPU = "onnx, CPU"
Tail = Callable[[np.ndarray], np.ndarray]


def main(argv: list[str] | None = None) -> int:
    """Run the comparison, print a table and a line of JSON; return the exit code."""
    parser = argparse.ArgumentParser(description="A tail in all that the server can run it with.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--bundle", type=Path)
    what.add_argument("--model", choices=("densenet169", "resnet152"))
    parser.add_argument("--batch", type=int, action="append", help="default: 1, 8 and 32")
    parser.add_argument("--threads", type=int, default=cores(), help="of the CPU")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(argv)
    batches = options.batch or [1, 8, 32]
    try:
        if options.bundle:
            case = bundle_case(options.bundle, options.threads, max(batches))
        else:
            case = model_case(options.model, options.threads)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = [row for batch in batches for row in compare(case, batch, options.rounds)]
    print(f"{case.name}, {options.threads} threads; milliseconds of a batch")
    for row in rows:
        times = f"{row['median']:9.3f} ({min(row['ms']):.3f}..{max(row['ms']):.3f})  ratio {row['ratio']:.3f}"
        logits = f"logits {row['off']:.1e} off, {row['differ']} of {row['batch']} classes differ"
        print(f"batch {row['batch']:3}  {row['tail']:12} {times}  {logits}")
    print(json.dumps(rows))
    return 0


@dataclass(frozen=True)
class Case:
    """What to run in several ways.

    Attributes:
        name: of the network.
        latents: uint8 [N, h, w, c].
        logits: float32 [N, classes], what each way should give; None: what the CPU gives.
        tails: by way.
    """

    name: str
    latents: np.ndarray
    logits: np.ndarray | None
    tails: dict[str, Tail]


def bundle_case(folder: Path, threads: int, max_batch: int) -> Case:
    """Return a bundle's tail, opened as the server opens it, and its golden latents."""
    bundle = read_bundle(folder)
    if bundle.manifest.golden is None:
        raise UserError(f"{folder} has no golden images; export it again")
    golden = read_golden(bundle)
    open_as = functools.partial(open_tail, bundle, threads=threads, max_batch=max_batch)
    tails = open_all(
        {
            CPU: lambda: open_as(backend="onnx", providers=["cpu"]),
            "onnx, CUDA": lambda: open_as(backend="onnx", providers=["cuda"]),
            "jax": lambda: open_as(backend="jax"),
            "openvino": lambda: open_as(backend="openvino"),
        }
    )
    return Case(bundle.manifest.model.name, golden.sent, golden.logits, tails)


def model_case(name: str, threads: int) -> Case:
    """Return the tail of a network with random weights, and random latents."""
    import jax

    from benchmarks import tail
    from bottlefit_jax import models
    from export.tail import tail_function, tail_onnx

    bottleneck = tail.BOTTLENECKS[name]
    module = models.create(name, bottleneck=bottleneck)
    size = (tail.SIZE, tail.SIZE)
    function = tail_function(module, tail.random_variables(module), tail.SCALE, tail.ZERO_POINT, size)
    shape = (*module.latent_size(size), bottleneck["channels"])
    compiled = jax.jit(function)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tail.onnx"
        path.write_bytes(tail_onnx(function, shape).SerializeToString())
        tails = open_all(
            {
                CPU: lambda: _runner(onnx_session.open_session(path, threads=threads, providers=["cpu"])),
                "onnx, CUDA": lambda: _runner(onnx_session.open_session(path, threads=1, providers=["cuda"])),
                "jax": lambda: lambda latents: np.asarray(compiled(latents)),
            }
        )
    return Case(name, np.random.default_rng(0).integers(0, 256, (32, *shape), np.uint8), None, tails)


def open_all(ways: dict[str, Callable[[], Tail]]) -> dict[str, Tail]:
    """Return the tails that can be opened here; say why the others cannot."""
    tails = {}
    for name, way in ways.items():
        try:
            tails[name] = way()
        except UserError as error:
            if name == CPU:
                raise
            print(f"without {name}: {error}", file=sys.stderr)
    return tails


def compare(case: Case, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Time the tails in turns on one batch of the latents.

    Returns:
        A row for each tail: its milliseconds, their median, the median ratio to the CPU's, and how far its logits are
        from the export's, as a share of the largest.
    """
    which, tails = np.arange(batch) % len(case.latents), case.tails
    latents = case.latents[which]
    logits = {name: tail(latents) for name, tail in tails.items()}
    expected = logits[CPU] if case.logits is None else case.logits[which]
    times: dict[str, list[float]] = {name: [] for name in tails}
    for _ in range(rounds):
        for name, tail in tails.items():
            start = time.perf_counter()
            tail(latents)
            times[name].append(1e3 * (time.perf_counter() - start))
    return [
        {
            "tail": name,
            "batch": batch,
            "ms": times[name],
            "median": statistics.median(times[name]),
            "ratio": statistics.median(a / b for a, b in zip(times[name], times[CPU], strict=True)),
            "off": float(np.abs(logits[name] - expected).max() / np.abs(expected).max()),
            "differ": int((logits[name].argmax(1) != expected.argmax(1)).sum()),
        }
        for name in tails
    ]


def _runner(session: Any) -> Tail:
    output, latent = session.get_outputs()[0].name, session.get_inputs()[0].name
    return lambda latents: session.run([output], {latent: latents})[0]


if __name__ == "__main__":
    sys.exit(main())
