"""Turns a finished run into a bundle that a Pi, a Jetson and a server can load.

    python -m export.bundle --workdir runs/digits --output bundles/digits [--head float32|float16|int8]

A bundle is a folder: head.tflite and head.onnx for the device, tail.onnx and tail.stablehlo for the server,
manifest.json with all that the two need to know, and parity.json, the proof that the files do what the network does.
Exit codes: 0 done; 1 the files do not do what the network does, and nothing was written; 2 something given cannot be
used (one line on standard error), and nothing was written.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.cli import command
from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.errors import ParityError, UserError
from bottlefit_jax.files import atomic_directory

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # as in manifest.schema.json
PRECISIONS = ("float32", "float16", "int8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    _quieten()
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        from export.assemble import export  # JAX takes seconds: what is above needs none
        from export.triton import check_fits, write_repository

        with atomic_directory(args.output, overwrite=args.overwrite) as folder:
            told = export(args, folder)
            if args.triton is not None:
                check_fits(read_bundle(folder, verify=False), args.triton, overwrite=args.overwrite)
        print(told)
        print(f"bundle: {args.output}")
        if args.triton is not None:
            write_repository(read_bundle(args.output), args.triton, overwrite=args.overwrite)
            print(f"Triton model repository: {args.triton}")
    except UserError as error:
        return print_error(error)
    except ParityError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line and check what can be checked without JAX.

    Raises:
        UserError: flags that are unknown, missing or out of range; an output that is in the way.
    """
    parser = Parser("export.bundle", __doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="of a finished run with a student")
    parser.add_argument("--output", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--head", choices=PRECISIONS, default="int8", help="what the device computes in (int8)")
    parser.add_argument("--local", action="store_true", help="add the whole student, for a device without a link")
    parser.add_argument("--triton", type=Path, help="add it to this Triton model repository as well")
    parser.add_argument("--data", type=Path, help="where the run's images lie now, if not where they lay then")
    parser.add_argument("--calibration", type=int, default=200, help="training images that set the range (200)")
    parser.add_argument("--images", type=int, default=1000, help="evaluation images of the proof, at most (1000)")
    parser.add_argument("--name", help="of the model on a server; otherwise the folder's name")
    parser.add_argument("--version", type=int, default=1, help="of the model on a server (1)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace --output, and what --triton has of that version or name"
    )
    args = parser.parse_args(argv)
    args.name = args.name or args.output.absolute().name
    for flag, what in (("calibration", "training images"), ("images", "evaluation images"), ("version", "")):
        if getattr(args, flag) < 1:
            raise UserError(f"--{flag} is {getattr(args, flag)}; it must be at least 1 {what}".rstrip())
    if not NAME.fullmatch(args.name):
        raise UserError(f"--name {args.name!r} is not for a server: letters, digits, '.', '_' and '-', at most 64")
    if not args.workdir.is_dir():
        raise UserError(f"no run at {args.workdir}")
    if args.output.exists():
        if not args.overwrite:
            raise UserError(f"{args.output} exists: give another --output, or --overwrite to replace it")
        if not args.output.is_dir() or (any(args.output.iterdir()) and not (args.output / "manifest.json").exists()):
            raise UserError(f"{args.output} is no bundle, so --overwrite does not remove it")
    if args.triton is not None:
        from export.triton import check_free

        check_free(args.triton, args.name, args.version, overwrite=args.overwrite)
    return args


def _quieten() -> None:
    """Libraries raise what they would log."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


if __name__ == "__main__":
    command.run(main, extra="export")
