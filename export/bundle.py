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


def parse(argv: Sequence[str]) -> ExportOptions:
    """Read the command line.

    Raises:
        UserError: flags that are unknown, missing or out of range.
    """
    parser = Parser("export.bundle", __doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="of a finished run with a student")
    parser.add_argument("--output", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--head", choices=PRECISIONS, default="int8", help="what the device computes in (int8)")
    parser.add_argument("--local", action="store_true", help="add the whole student, for a device without a link")
    parser.add_argument("--triton", type=Path, help="add the tail to this Triton model repository as well")
    parser.add_argument("--data", type=Path, help="where the run's images are now, if they were moved")
    parser.add_argument("--calibration", type=int, default=200, help="training images that set the ranges (200)")
    parser.add_argument("--images", type=int, default=1000, help="most evaluation images for the parity check (1000)")
    parser.add_argument(
        "--rates-from", type=Path, metavar="BUNDLE", help="keep the rates of an earlier bundle of the same head"
    )
    parser.add_argument("--name", help="of the model on a server; otherwise the folder's name")
    parser.add_argument("--version", type=int, default=1, help="of the model on a server (1)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace --output, and what --triton has of that version or name"
    )
    return ExportOptions(**vars(parser.parse_args(argv)))


def _silence_libraries() -> None:
    """Keep what libraries log off the terminal: what matters they raise as well."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


if __name__ == "__main__":
    command.run(main, extra="export")
