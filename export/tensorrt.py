"""Builds a TensorRT engine of a bundle's head or tail, on the machine that will run it.

    python -m export.tensorrt --bundle BUNDLE [--part head|tail] [--output FILE.plan] [--precision fp16|fp32]
                              [--batch MIN,OPT,MAX] [--overwrite]

An engine fits one GPU and one TensorRT version, so a bundle does not contain one. TensorRT's Python package builds it
if it is installed, else trtexec from PATH or from JetPack's folder. Without either, the command prints the line to run
on the Jetson and builds nothing. The head takes float32 images of 0 to 255 and gives the latent as float32, so that
TensorRT 8.2 (the last one for the Jetson Nano) can build it; the caller quantises the latent with the manifest's
numbers. The tail takes uint8, which needs TensorRT 10. TensorRT 11 has no fp16 switch: use --precision fp32 there.

Written from the documentation of TensorRT 8.2, 10 and 11, and tested with fakes that record the calls. It was not run
with a real TensorRT, and the numbers of an engine were not compared with those of the bundle.

Exit codes: 0 an engine was built; 1 nothing was built because there is no TensorRT here, and the line to run elsewhere
was printed; 2 an argument is invalid or TensorRT refused the graph (one line on standard error), nothing was written.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bottlefit_jax.cli import command
from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.errors import UserError
from export.engine import DEFAULT_BATCH, PARTS, PRECISIONS, EngineOptions, NotBuiltError, build_engine


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    try:
        print(build_engine(parse(sys.argv[1:] if argv is None else argv)))
    except UserError as error:
        return print_error(error)
    except NotBuiltError as error:
        print(error)
        return 1
    return 0


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser, default = Parser("export.tensorrt", __doc__), EngineOptions
    add = parser.group("what to build")
    add("--bundle", type=Path, required=True, metavar="FOLDER", help="the bundle")
    add("--part", choices=PARTS, default=default.part, help="what runs in the engine")
    add("--precision", choices=PRECISIONS, default=default.precision, help="what the engine computes in")
    sizes = ",".join(map(str, DEFAULT_BATCH))
    add(
        "--batch",
        type=_batch,
        metavar="MIN,OPT,MAX",
        help=f"with --part tail: latents that the engine takes at once (default: {sizes})",
    )
    add = parser.group("where to write it")
    add("--output", type=Path, metavar="FILE", help="the engine (default: head.plan or tail.plan, here)")
    add("--overwrite", action="store_true", help="replace --output where it exists")
    return parser


def parse(argv: Sequence[str]) -> EngineOptions:
    """Read the command line.

    Raises:
        UserError: flags that are unknown, missing, out of range or do not go together.
    """
    return EngineOptions(**vars(make_parser().parse_args(argv)))


def _batch(text: str) -> tuple[int, ...]:
    """Read MIN,OPT,MAX for argparse."""
    sizes = text.split(",")
    if len(sizes) != 3 or not all(size.isdecimal() for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is not MIN,OPT,MAX, as 1,8,32")
    return tuple(map(int, sizes))


if __name__ == "__main__":
    command.run(main, extra="export")
