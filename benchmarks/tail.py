"""The tail's milliseconds on one thread of onnxruntime: our ONNX file against PyTorch's own export, in turns.

    pip install 'bottlefit-jax[bench,export]'
    python -m benchmarks.tail                          # DenseNet-169 and ResNet-152 at 224 px, batch 1 and 8
    python -m benchmarks.tail --model resnet152 --batch 1

Both files have the same weights (ours through `convert.to_torch`), take the same uint8 latents, undo the quantiser, and
must give the same logits before anything is timed. A round runs both once, in changing order; reported are the medians
over the rounds and the ratio within each round.
"""

import argparse
import dataclasses
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from flax import traverse_util

from bottlefit_jax import convert, models
from bottlefit_jax.errors import UserError
from bottlefit_jax.models.network import Network
from bottlefit_jax.paths import local_path
from export.tail import tail_function, tail_onnx

BOTTLENECKS = {"densenet169": {"channels": 3}, "resnet152": {"channels": 12, "version": 2}}
SIZE = 224
SCALE, ZERO_POINT = 0.02, 131
TOLERANCE = 1e-4  # relative, of the logits
TARGET = 1.1


def main(argv: list[str] | None = None) -> int:
    """Run the comparison, print it, and return the exit code."""
    parser = argparse.ArgumentParser(description="ONNX tails: ours against PyTorch's own export.")
    parser.add_argument("--model", choices=list(BOTTLENECKS), action="append", help="default: all")
    parser.add_argument("--batch", type=int, action="append", help="default: 1 and 8")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=local_path, help="also write the result to this file")
    options = parser.parse_args(argv)
    if importlib.util.find_spec("torch") is None:
        print("this comparison needs torch: pip install 'bottlefit-jax[bench]'", file=sys.stderr)
        return 2
    rows = []
    try:
        for name in options.model or BOTTLENECKS:
            sides = Sides.create(name)
            for batch in options.batch or (1, 8):
                rows.append({"model": name, "batch": batch, **compare(sides, batch, options.rounds)})
                report(rows[-1])
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


@dataclasses.dataclass(frozen=True)
class Sides:
    """Both files in onnxruntime, and the shape (h, w, c) of their latents."""

    ours: onnxruntime.InferenceSession
    torch: onnxruntime.InferenceSession
    latent_shape: tuple[int, ...]

    @classmethod
    def create(cls, name: str) -> "Sides":
        """Export the tail of this model twice."""
        from benchmarks import torch_tails

        bottleneck = BOTTLENECKS[name]
        module = models.create(name, bottleneck=bottleneck)
        variables = random_variables(module)
        shape = (*module.latent_size((SIZE, SIZE)), bottleneck["channels"])
        model = tail_onnx(tail_function(module, variables, SCALE, ZERO_POINT, (SIZE, SIZE)), shape)
        state = convert.to_torch(name, variables, bottleneck=bottleneck)
        make = torch_tails.resnet_tail if name.startswith("resnet") else torch_tails.densenet_tail
        depth = int(name.removeprefix("resnet").removeprefix("densenet"))
        theirs = torch_tails.export(make(depth, module.design, state, SCALE, ZERO_POINT), shape)
        return cls(session_of(model.SerializeToString()), session_of(theirs), shape)


def random_variables(module: Network) -> dict[str, Any]:
    """Return a student's variables, drawn so that no layer's values vanish or overflow."""
    rng = np.random.default_rng(0)
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    shapes: Any = traverse_util.flatten_dict(jax.eval_shape(module.init, jax.random.key(0), image))

    def draw(leaf: str, shape: tuple[int, ...]) -> np.ndarray:
        if leaf == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        if leaf == "scale":
            return rng.uniform(0.3, 0.9, shape) * np.where(rng.random(shape) < 0.1, -1, 1)
        return rng.uniform(0.5, 1.5, shape) if leaf == "var" else rng.normal(0, 0.2, shape)

    drawn = {path: draw(path[-1], leaf.shape).astype(np.float32) for path, leaf in shapes.items()}
    return traverse_util.unflatten_dict(drawn)


def session_of(model: bytes) -> onnxruntime.InferenceSession:
    """Return a model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def compare(sides: Sides, batch: int, rounds: int) -> dict[str, Any]:
    """Check that both give the same logits, then times them in turns.

    Returns:
        Milliseconds of each round on each side, their ratios, and by how much the logits differ.
    """
    latent = np.random.default_rng(batch).integers(0, 256, (batch, *sides.latent_shape), np.uint8)
    runs = {
        name: lambda session=session: session.run(["logits"], {"latent": latent})[0]
        for name, session in (("ours", sides.ours), ("torch", sides.torch))
    }
    ours, theirs = (np.asarray(run()) for run in runs.values())
    off = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if not off < TOLERANCE:
        raise UserError(f"the logits of the two files differ by {off:.2e} of the largest: they are not the same tail")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in sorted(runs, reverse=bool(number % 2)):
            times[name].append(milliseconds(runs[name]))
    ratios = [a / b for a, b in zip(times["ours"], times["torch"], strict=True)]
    return {"logits_differ": off, "milliseconds": times, "ratios": ratios}


def milliseconds(work: Callable[[], Any]) -> float:
    """Return the wall time of `work()`."""
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def report(row: dict[str, Any]) -> None:
    """Print one comparison."""
    print(
        f"tail of {row['model']}, {SIZE} px, {BOTTLENECKS[row['model']]['channels']} channels, batch {row['batch']}, "
        f"one thread: logits agree to {row['logits_differ']:.1e}"
    )
    for name, label in (("torch", "PyTorch's export"), ("ours", "ours")):
        values = row["milliseconds"][name]
        print(f"{label:<18} {statistics.median(values):8.2f} ms   ({min(values):.2f}..{max(values):.2f})")
    ratios = row["ratios"]
    verdict = "met" if statistics.median(ratios) <= TARGET else "missed"
    print(
        f"{'ratio':<18} {statistics.median(ratios):8.3f}      ({min(ratios):.3f}..{max(ratios):.3f}), "
        f"at most {TARGET}: {verdict}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
