"""The head's milliseconds on one core: our LiteRT files against PyTorch eager and onnxruntime, in turns in one process.

    pip install 'bottlefit-jax[bench,export]'
    python -m benchmarks.head                 # the paper's encoder: ResNet-152's version 2, 12 channels, 224 px
    python -m benchmarks.head --skip-torch    # without PyTorch

The head of our own encoder, design `patch` with a latent of the same size, takes its turns among them.

Weights are drawn by a fixed rule, a tenth of the batch norms' scales negative. Before anything is timed, all sides must
give the same latent. Ours take a raw uint8 image; PyTorch and onnxruntime take a normalised float32 tensor, which is
less work. The process stays on one core and measures its CPU time, which other load on the machine disturbs little. A
round gives one number per side, the median of a few runs. Reported are medians over the rounds, and the ratios within
each round.
"""

import argparse
import copy
import functools
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime

from bottlefit_jax import models
from bottlefit_jax.codec import quantizer
from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.errors import UserError
from bottlefit_jax.models.network import Network
from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.paths import local_path
from bottlefit_jax.recipe import IMAGENET_MEAN, IMAGENET_STD
from export import litert
from export.folding import fold_encoder
from export.head import float_head, integer_head
from export.onnx_graph import to_onnx
from export.tracing import plain_convolutions

MODEL, CHANNELS, SIZE = "resnet152", 12, 224
SHAPE = (1, SIZE, SIZE, 3)
CALIBRATION = 16  # images
RUNS = 5  # of a side in a round, after one that is not counted
WHOLE_ROUNDS = 5  # of those with the whole ResNet-152
INT8, FLOAT32, FLOAT16 = "LiteRT int8", "LiteRT float32", "LiteRT float16"
PATCH_INT8, PATCH_FLOAT32 = "LiteRT int8, patch", "LiteRT float32, patch"
ORT, EAGER, CHANNELS_LAST = "onnxruntime float32", "PyTorch eager NCHW", "PyTorch channels_last"
QUANTIZED, WHOLE = "LiteRT float32 + quantiser", "whole ResNet-152, onnxruntime"
TARGETS = (  # side, what it is compared with, the largest allowed ratio
    (INT8, EAGER, 0.25),
    (INT8, CHANNELS_LAST, 0.65),
    (INT8, ORT, 0.5),
    (INT8, WHOLE, 0.04),  # its latent is quantised already
    (QUANTIZED, WHOLE, 0.04),
    (PATCH_INT8, INT8, 0.5),
    (PATCH_FLOAT32, FLOAT32, 0.5),
)
INT8_BYTES = 25_000

Side = Callable[[], Any]


def main(argv: list[str] | None = None) -> int:
    """Run the comparison, print it as a table, and return the exit code."""
    parser = argparse.ArgumentParser(description="The head on one core: LiteRT, PyTorch eager, onnxruntime.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--skip-torch", action="store_true", help="without PyTorch")
    parser.add_argument("--skip-whole", action="store_true", help="without the whole ResNet-152")
    parser.add_argument("--json", type=local_path, help="also write the result to this file")
    options = parser.parse_args(argv)
    if not options.skip_torch and importlib.util.find_spec("torch") is None:
        print("this comparison needs torch: pip install 'bottlefit-jax[bench]', or --skip-torch", file=sys.stderr)
        return 2
    try:
        module, variables = create_encoder()
        files = export_files(module, variables)
        sides = create_sides(module, variables, files, with_torch=not options.skip_torch)
        patch = export_files(*create_encoder("patch"))
        patch = {PATCH_INT8: patch[INT8], PATCH_FLOAT32: patch[FLOAT32]}
        sides |= patch_sides(patch)
        whole = {} if options.skip_whole else {WHOLE: whole_network()}
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    times = take_turns(sides, options.rounds)
    if whole:
        chosen = {name: sides[name] for name in (INT8, QUANTIZED)}
        times_whole = take_turns({**chosen, **whole}, WHOLE_ROUNDS)
    else:
        times_whole = {}
    result = {
        "milliseconds": times,
        "with_whole": times_whole,
        "bytes": {name: len(blob) for name, blob in (files | patch).items()},
    }
    report(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def create_encoder(design: str = "bottlefit") -> tuple[Network, dict[str, Any]]:
    """Return the student and its encoder's variables."""
    module = models.create(MODEL, bottleneck={"channels": CHANNELS, "design": design, "bits": 8})
    init = functools.partial(module.init, method="encode")
    variables = jax.tree.map(np.array, jax.jit(init)(jax.random.key(0), jnp.zeros(SHAPE)))
    rng = np.random.default_rng(0)
    for collection, key, draw in (
        ("params", "scale", lambda n: rng.uniform(0.5, 1.5, n) * np.where(rng.random(n) < 0.1, -1, 1)),
        ("params", "bias", lambda n: rng.normal(0, 0.2, n)),
        ("batch_stats", "mean", lambda n: rng.normal(0, 0.2, n)),
        ("batch_stats", "var", lambda n: rng.uniform(0.5, 1.5, n)),
    ):
        for layer in variables[collection]["encoder"].values():
            if key in layer:
                layer[key] = draw(layer[key].size).astype(np.float32)
    return module, variables


def images(count: int) -> np.ndarray:
    """Random crops of scikit-learn's two photographs, `[count, SIZE, SIZE, 3]` uint8."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = load_sample_images().images  # two of 427 x 640
    corners = [(int(rng.integers(427 - SIZE)), int(rng.integers(640 - SIZE))) for _ in range(count)]
    return np.stack([photographs[n % 2][y : y + SIZE, x : x + SIZE] for n, (y, x) in enumerate(corners)])


def export_files(module: Network, variables: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the three LiteRT files, as a bundle has them."""
    folded = fold_encoder(module, variables, mean=IMAGENET_MEAN, std=IMAGENET_STD, image_size=(SIZE, SIZE))
    float32 = litert.to_tflite(float_head(folded), SHAPE)
    int8 = litert.to_int8(litert.to_tflite(integer_head(folded), SHAPE), list(images(CALIBRATION)))
    return {INT8: int8, FLOAT32: float32, FLOAT16: litert.to_float16(float32)}


def create_sides(
    module: Network, variables: Mapping[str, Any], files: Mapping[str, bytes], *, with_torch: bool
) -> dict[str, Side]:
    """Check that all sides make the same latent of an image, and return a function that makes it for each."""
    image = images(CALIBRATION + 1)[-1]
    normalised = np.asarray(normalise(jnp.asarray(image[None]), IMAGENET_MEAN, IMAGENET_STD))
    want = np.asarray(module.apply(variables, normalised, method="encode"))[0]
    interpreters = {name: Interpreter(blob) for name, blob in files.items()}
    sides: dict[str, Side] = {name: functools.partial(made.run, image) for name, made in interpreters.items()}

    def quantised() -> np.ndarray:
        latent = interpreters[FLOAT32].run(image)
        return quantizer.quantize(latent, quantizer.dynamic_range(latent))

    def encode(tensor: jax.Array) -> jax.Array:
        with plain_convolutions():
            return module.apply(variables, tensor, method="encode")  # pyright: ignore

    ort = start_onnx(encode, normalised)
    sides[ORT] = ort
    latents = {name: sides[name]() for name in (FLOAT32, FLOAT16)} | {ORT: ort()[0][0]}
    device = interpreters[INT8]
    latents[INT8] = (sides[INT8]() - np.float32(device.zero_point)) * np.float32(device.scale)
    if with_torch:
        for name, side in start_torch(module, variables, normalised).items():
            sides[name] = side
            latents[name] = side()[0].permute(1, 2, 0).numpy()
    check(latents, want)
    return sides | {QUANTIZED: quantised}


def patch_sides(files: Mapping[str, bytes]) -> dict[str, Side]:
    """Functions that make the latent of the patch encoder, after a check that it is the network's."""
    module, variables = create_encoder("patch")
    image = images(CALIBRATION + 1)[-1]
    normalised = normalise(jnp.asarray(image[None]), IMAGENET_MEAN, IMAGENET_STD)
    interpreters = {name: Interpreter(blob) for name, blob in files.items()}
    latents = {name: made.run(image) for name, made in interpreters.items()}
    device = interpreters[PATCH_INT8]
    latents[PATCH_INT8] = (latents[PATCH_INT8] - np.float32(device.zero_point)) * np.float32(device.scale)
    check(latents, np.asarray(module.apply(variables, normalised, method="encode"))[0])
    return {name: functools.partial(made.run, image) for name, made in interpreters.items()}


def check(latents: Mapping[str, np.ndarray], want: np.ndarray) -> None:
    """Raise UserError where a side makes another latent than the network."""
    for name, latent in latents.items():
        error = np.sqrt(np.square(latent - want).mean() / np.square(want).mean())
        if not error < {INT8: 0.1, PATCH_INT8: 0.1, FLOAT16: 1e-2}.get(name, 1e-4):
            raise UserError(f"{name} makes another latent: its error is {100 * error:.2g} % (root mean square)")


def start_onnx(function: Callable[..., Any], tensor: np.ndarray) -> Side:
    """Onnxruntime with a thread of its own process, on this input."""
    spec = {"input": jax.ShapeDtypeStruct(tensor.shape, jnp.float32)}
    model = to_onnx(function, spec, ["output"], name="benchmark", dynamic_batch=False)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"input": tensor})


def start_torch(module: Network, variables: Mapping[str, Any], normalised: np.ndarray) -> dict[str, Side]:
    """Return the encoder in plain PyTorch with these weights, in both memory layouts."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    params, stats = (variables[collection]["encoder"] for collection in ("params", "batch_stats"))
    layers: list[nn.Module] = []
    for number, layer in enumerate(module.design.encoder):
        if layer.kind == "conv":
            kernel = torch.from_numpy(params[str(number)]["kernel"].transpose(3, 2, 0, 1).copy())
            made = nn.Conv2d(*kernel.shape[1::-1], layer.kernel, layer.stride, layer.padding, bias=False)
            made.weight = nn.Parameter(kernel)
        elif layer.kind == "norm":
            values = {**params[str(number)], **stats[str(number)]}
            made = nn.BatchNorm2d(values["scale"].size)
            names = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
            made.load_state_dict({key: torch.from_numpy(values[ours]) for key, ours in names.items()}, strict=False)
        else:
            made = nn.ReLU(inplace=True) if layer.kind == "relu" else nn.MaxPool2d(3, 2, 1)
        layers.append(made)

    def side(layout: torch.memory_format) -> Side:
        encoder = nn.Sequential(*layers).eval().requires_grad_(False)
        encoder = copy.deepcopy(encoder).to(memory_format=layout)
        image = torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=layout)
        return torch.inference_mode()(lambda: encoder(image))

    return {EAGER: side(torch.contiguous_format), CHANNELS_LAST: side(torch.channels_last)}


def whole_network() -> Side:
    """Return the whole network by onnxruntime, which runs it faster than PyTorch."""
    module = models.create(MODEL)
    tensor = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros(SHAPE))

    def logits(tensor: jax.Array) -> jax.Array:
        with plain_convolutions():
            return module.apply(variables, tensor)[0]  # pyright: ignore

    return start_onnx(logits, tensor)


def take_turns(sides: Mapping[str, Side], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of CPU time of each side, one number for each round."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            run()
            times[name].append(statistics.median(cpu_milliseconds(run) for _ in range(RUNS)))
    return times


def cpu_milliseconds(run: Side) -> float:
    """Return the CPU time that this process spends in `run()`."""
    start = time.process_time_ns()
    run()
    return (time.process_time_ns() - start) / 1e6


def report(result: Mapping[str, Any]) -> None:
    """Print milliseconds, file sizes and ratios, and which targets are met."""
    print(f"the encoder of {MODEL}, {CHANNELS} channels, {SIZE} px, one thread{'':<12} median ms (range)")
    for name, values in (result["milliseconds"] | result["with_whole"]).items():
        size = f"{result['bytes'][name]:>8,} bytes" if name in result["bytes"] else ""
        print(f"{name:<32} {size:<20} {statistics.median(values):9.3f}   ({min(values):.3f}..{max(values):.3f})")
    print(f"{'ratio':<64} {'at most':>8}")
    for side, other, allowed in TARGETS:
        times = result["with_whole" if other == WHOLE else "milliseconds"]
        if other in times:
            ratios = [a / b for a, b in zip(times[side], times[other], strict=True)]
            judge(f"{side} / {other}", ratios, allowed)
    judge(f"bytes of {INT8}", [result["bytes"][INT8]], INT8_BYTES)


def judge(name: str, values: list[float], allowed: float) -> None:
    """Print one line of the table of targets."""
    middle, digits = statistics.median(values), 3 if allowed < 1 else 0
    spread = f"({min(values):.{digits}f}..{max(values):.{digits}f})" if len(values) > 1 else ""
    verdict = "met" if middle <= allowed else "missed"
    print(f"{name:<58} {middle:>8.{digits}f} {spread:<16} {allowed:>8g}  {verdict}")


if __name__ == "__main__":
    sys.exit(main())
