"""The gradients of convolutions on a CPU: those of `models.convolution` against XLA's own.

    taskset -c 0 python -m benchmarks.convolution            # batches of 32, float32, one core

The gradient is taken by the kernel for ordinary convolutions and by the image for depthwise ones, because those are the
ones that we rewrite. Both sides run in turns in one process. Reported are the median CPU time and the median of the
ratios, which other load disturbs little. Both must give the same gradient before they are timed.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.input import cpu_seconds
from bottlefit_jax.models.convolution import convolve
from bottlefit_jax.training import sharding


class Case(NamedTuple):
    """A convolution: where it occurs, side of its square input, channels in and out, kernel, stride, padding."""

    where: str
    side: int
    channels: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    depthwise: bool = False


CASES = (
    Case("decoder, 128 px", 18, 128, 128, 2, 1, 1),
    Case("decoder, 48 px", 7, 64, 64, 2, 1, 1),
    Case("ResNet-50 layer1, 224 px", 56, 256, 64, 1, 1, 0),
    Case("ResNet-50 layer2, 224 px", 28, 128, 128, 3, 1, 1),
    Case("ResNet-50 layer3, 224 px", 14, 256, 256, 3, 1, 1),
    Case("reference encoder, 224 px", 224, 3, 64, 7, 2, 3),
    Case("patch encoder, 224 px", 224, 3, 48, 4, 4, 0),
    Case("MobileNetV2 features3, 224 px", 56, 144, 144, 3, 1, 1, depthwise=True),
    Case("MobileNetV2 features8, 224 px", 14, 384, 384, 3, 1, 1, depthwise=True),
)


def main(argv: list[str] | None = None) -> int:
    """Run the comparison and print it as a table; return the exit code."""
    parser = argparse.ArgumentParser(description="Gradients of convolutions on a CPU: ours against XLA's.")
    parser.add_argument("--batch", type=int, default=32, help="images")
    parser.add_argument("--rounds", type=int, default=7, help="turns of both sides")
    options = parser.parse_args(argv)
    sharding.start_devices()
    print("| convolution | forward, ms | gradient, XLA's, ms | ours, ms | ratio (range) |")
    print("| :--- | ---: | ---: | ---: | ---: |")
    for case in CASES:
        print(compare(case, options.batch, options.rounds), flush=True)
    return 0


def compare(case: Case, batch: int, rounds: int) -> str:
    """Return a row of the table.

    Raises:
        AssertionError: the two gradients differ.
    """
    rng = np.random.default_rng(0)
    inputs = 1 if case.depthwise else case.channels
    x = jnp.asarray(rng.standard_normal((batch, case.side, case.side, case.channels)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((case.kernel, case.kernel, inputs, case.outputs)), jnp.float32)
    pads, groups = ((case.padding, case.padding),) * 2, case.channels if case.depthwise else 1

    def xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
        strides, numbers = (case.stride, case.stride), ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, strides, pads, dimension_numbers=numbers, feature_group_count=groups
        )

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(x, kernel, case.stride, pads, groups)

    def gradient_of(function: Callable) -> Callable[[], jax.Array]:
        by_input = jax.jit(lambda x, kernel, g: jax.vjp(lambda x: function(x, kernel), x)[1](g)[0])
        by_kernel = jax.jit(lambda x, kernel, g: jax.vjp(lambda kernel: function(x, kernel), kernel)[1](g)[0])
        return lambda: (by_input if case.depthwise else by_kernel)(x, kernel, given)

    given = jnp.asarray(rng.standard_normal(jax.eval_shape(xla, x, kernel).shape), jnp.float32)
    forward = jax.jit(ours)
    sides = {"forward": lambda: forward(x, kernel), "xla": gradient_of(xla), "ours": gradient_of(ours)}
    results = {name: np.asarray(work()) for name, work in sides.items()}  # and compiles them
    np.testing.assert_allclose(results["ours"], results["xla"], atol=1e-4 * float(np.abs(results["xla"]).max()))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            times[name].append(1e3 * cpu_seconds(lambda work=work: jax.block_until_ready(work())))
    ratios = [b / a for a, b in zip(times["xla"], times["ours"], strict=True)]
    forward_ms, xla_ms, ours_ms = (statistics.median(times[name]) for name in ("forward", "xla", "ours"))
    what = "depthwise" if case.depthwise else f"{case.channels} → {case.outputs}"
    name = f"{case.where}: {case.kernel}×{case.kernel}/{case.stride}, {what}"
    ratio = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}..{max(ratios):.2f})"
    return f"| {name} | {forward_ms:.1f} | {xla_ms:.1f} | {ours_ms:.1f} | {ratio} |"


if __name__ == "__main__":
    sys.exit(main())
