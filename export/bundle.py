"""Turns a finished run into a bundle that a Pi, a Jetson and a server can load.

    python -m export.bundle --workdir runs/digits --output bundles/digits [--head float32|float16|int8]

A bundle is a folder: head.tflite and head.onnx for the device, tail.onnx and tail.stablehlo for the server, rates.json
with the code tables of its rates, manifest.json with everything that the two need to know, and parity.json, the result
of the parity check: what the files compute, compared with the network, and what each rate costs. rates.png draws that.
Exit codes: 0 the bundle was written; 1 the files diverge from the network, and nothing was written; 2 an argument, the
run or its data is invalid (one line on standard error), and nothing was written.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bottlefit_jax.cli import command
from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.errors import ParityError, UserError
from export.options import PRECISIONS, ExportOptions


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    _silence_libraries()
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        options.check_folders()
        from export.assemble import export_bundle  # JAX takes seconds, and the checks above do not need it

        exported = export_bundle(options)
        print(exported.parity.table())
        print(f"bundle: {options.output}")
        if options.triton is not None:
            print(f"Triton model repository: {options.triton}")
    except UserError as error:
        return print_error(error)
    except ParityError as error:
        print_error(error)
        return 1
    return 0


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser, default = Parser("export.bundle", __doc__), ExportOptions
    add = parser.group("what to export")
    add("--workdir", type=Path, required=True, metavar="FOLDER", help="a finished run with a student")
    add("--data", type=Path, metavar="FOLDER", help="where the run's images are now (default: where they were then)")
    add(
        "--calibration",
        type=int,
        default=default.calibration,
        metavar="N",
        help="training images that set the range of the latent, and those of an int8 head",
    )
    add(
        "--images",
        type=int,
        default=default.images,
        metavar="N",
        help="evaluation images in the parity check and for the rates, at most",
    )
    add = parser.group("the bundle")
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder of the bundle")
    add("--head", choices=PRECISIONS, default=default.head, help="what the device computes in")
    add("--local", action="store_true", help="add the whole student, for a device without a link")
    add(
        "--rates-from",
        type=Path,
        metavar="FOLDER",
        help="keep the rates of an earlier bundle of the same head (default: make new ones)",
    )
    add("--name", metavar="NAME", help="name of the model on a server (default: the name of the --output folder)")
    add("--version", type=int, default=default.version, metavar="N", help="version of the model on a server")
    add(
        "--triton",
        type=Path,
        metavar="FOLDER",
        help="add the tail to this Triton model repository as well (default: to none)",
    )
    add("--overwrite", action="store_true", help="replace --output, and what --triton has of that version or name")
    return parser


def parse(argv: Sequence[str]) -> ExportOptions:
    """Read the command line.

    Raises:
        UserError: flags that are unknown, missing or out of range.
    """
    return ExportOptions(**vars(make_parser().parse_args(argv)))


def _silence_libraries() -> None:
    """Keep what libraries log off the terminal: what matters they raise as well."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


if __name__ == "__main__":
    command.run(main, extra="export")
