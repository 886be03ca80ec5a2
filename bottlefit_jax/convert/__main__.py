"""Foreign weights in, and ours out.

    python -m bottlefit_jax.convert --model NAME --input FILE --output DIR [--weights NAME] [--labels FILE] [--bits N]
                                    [--mean R,G,B] [--std R,G,B] [--image-size N] [--teacher DIR]
                                    [--option KEY=VALUE ...] [--overwrite]
    python -m bottlefit_jax.convert --to torch --input DIR --output FILE.pth [--overwrite]

The first reads a file of PyTorch (torchvision's, BottleFit's, head-network-distillation's, an EfficientNet-Lite of
efficientnet_lite_pytorch), safetensors, or a Keras MobileNetV2 as .npz, and writes a folder that a config can name.
The second writes such a folder, or the teacher/ or student/ of a run, as a state dict: .pth, .pt or .safetensors. The
file also holds the network's description (classes, normalisation, bottleneck), which the first command reads again.
Exit code 2: one line on standard error names the mistake, and nothing was written.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bottlefit_jax import lock
from bottlefit_jax.cli import command
from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.convert.options import ExportOptions, Given, ImportOptions
from bottlefit_jax.errors import UserError
from bottlefit_jax.files import atomic_directory, sha256_of
from bottlefit_jax.paths import local_path

if TYPE_CHECKING:
    from bottlefit_jax.training.network_meta import NetworkMeta

CHECKPOINT = "_CHECKPOINT_METADATA"  # Orbax puts it in every checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    _quieten()
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        if isinstance(options, ImportOptions):
            import_file(options)
        else:
            export_folder(options)
    except UserError as error:
        return print_error(error)
    return 0


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("bottlefit_jax.convert", __doc__)
    add = parser.group("what to convert")
    add("--input", type=Path, required=True, metavar="PATH", help="file of weights; with --to, the folder of a network")
    add("--output", type=Path, required=True, metavar="PATH", help="folder to write; with --to, a file")
    add("--to", choices=["torch"], help="write a finished network for PyTorch (default: read weights of others)")
    add("--overwrite", action="store_true", help="replace --output where it exists")
    add("--weights", metavar="NAME", help="which set of weights, where the file holds several (default: the only one)")
    add = parser.group("the network, where the file does not describe it")
    add("--model", metavar="NAME", help="resnet152, densenet169, custom_resnet152, ... (default: the file's)")
    add(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the model, such as width=16; once or more often (default: the file's, or the model's own)",
    )
    add(
        "--teacher",
        type=Path,
        metavar="FOLDER",
        help="converted teacher, where the file has a head alone (default: none)",
    )
    add("--bits", type=int, choices=range(9), help="bits of a student's quantiser; 0: none (default: the file's, or 8)")
    add("--labels", metavar="FILE", help="names of the classes, one a line (default: ImageNet's for 1000 classes)")
    add("--image-size", type=int, metavar="PX", help="side of the images, pixels (default: the model's own)")
    add(
        "--mean",
        metavar="R,G,B",
        help="mean of the images that it was trained with, scaled to 0..1 (default: the file's, or ImageNet's)",
    )
    add("--std", metavar="R,G,B", help="their standard deviation, likewise (default: the file's, or ImageNet's)")
    return parser


def parse(argv: Sequence[str]) -> ImportOptions | ExportOptions:
    """Read the command line and check what can be checked without JAX, which takes seconds to load.

    Raises:
        UserError: flags are unknown, missing or incompatible; the input cannot be read or the output not be written.
    """
    args = make_parser().parse_args(argv)
    options = _import_options(args) if args.to is None else _export_options(args)
    _check_output(options)
    return options


def _import_options(args: argparse.Namespace) -> ImportOptions:
    """Check the flags of an import and return them."""
    from bottlefit_jax.convert import files

    files.check_readable(args.input)
    given = Given(
        options=dict(_option(text) for text in args.option),
        labels=None if args.labels is None else str(local_path(args.labels)),
        bits=args.bits,
        teacher=args.teacher,
        mean=_pixels("mean", args.mean, least=0.0),
        std=_pixels("std", args.std, least=1e-6),
        image_size=args.image_size,
    )
    if given.image_size is not None and given.image_size < 1:
        raise UserError(f"--image-size is {given.image_size}; it must be at least 1")
    if given.teacher is not None and not given.teacher.is_dir():
        raise UserError(f"--teacher {given.teacher} is not a folder")
    if given.labels is not None and not Path(given.labels).is_file():
        raise UserError(f"--labels {given.labels} is not a file")
    return ImportOptions(args.input, args.output, args.model, args.weights, given, args.overwrite)


def _export_options(args: argparse.Namespace) -> ExportOptions:
    """Check the flags of an export and return them."""
    from bottlefit_jax.convert import files

    for flag in ("model", "weights", "labels", "bits", "mean", "std", "image_size", "teacher", "option"):
        if getattr(args, flag) not in (None, []):
            name = flag.replace("_", "-")
            raise UserError(f"--{name} does not go with --to: the folder states what its network is")
    if not args.input.is_dir():
        raise UserError(f"no folder {args.input}: --to torch takes that of a converted or trained network")
    files.check_suffix(args.output)
    return ExportOptions(args.input, args.output, args.overwrite)


def import_file(options: ImportOptions) -> None:
    """Convert a file of weights to a folder that a config can name, and print what was done.

    Raises:
        UserError: the file, the model or what the user states about it is invalid; see `network.from_file`.
    """
    from bottlefit_jax.convert import files
    from bottlefit_jax.convert.weight_sets import TOP

    file = files.read(options.input, options.weights)
    if options.model is None and file.about is None:
        raise UserError("--model is missing, and the file does not state it; an example: --model resnet152")
    from bottlefit_jax.convert import network
    from bottlefit_jax.training import checkpoint

    checkpoint.silence_echoes()
    converted = network.from_file(file, options.model, options.given)
    digest, _ = sha256_of(options.input)
    meta = dataclasses.replace(converted.meta, source={"file": options.input.name, "sha256": digest})
    with atomic_directory(options.output, overwrite=options.overwrite) as temporary:
        checkpoint.save_variables(temporary, converted.variables, meta)
    parameters = network.count_parameters(converted.variables)
    print(f"read {options.input} ({file.kind}): {_describe(meta, parameters)}")
    if len(file.sets) > 1 or file.weights != TOP:
        others = f", chosen from {', '.join(file.sets)}" if len(file.sets) > 1 else ""
        print(f"weights: {file.weights}{others}")
    for note in converted.notes:
        print(note)
    key = "student" if meta.bottleneck else "teacher"
    print(f"wrote {options.output}: --config.{key}.weights={options.output} names it")


def export_folder(options: ExportOptions) -> None:
    """Convert the folder of a finished network to a file for PyTorch, and print what was done.

    Raises:
        UserError: the folder holds no finished network, or the file cannot be written.
    """
    from bottlefit_jax.convert import about, files, network
    from bottlefit_jax.training import checkpoint

    checkpoint.silence_echoes()
    variables, meta = checkpoint.load_variables(options.input)
    state_dict, notes = network.to_state_dict(variables, meta)
    with lock.hold(lock.beside(options.output), options.output):
        _check_output(options)  # again: another process may have written it meanwhile
        files.write(options.output, state_dict, about.write(meta, variables))
    print(f"read {options.input}: {_describe(meta, network.count_parameters(variables))}")
    for note in [*notes, *network.notes_for_others(meta)]:
        print(note)
    print(f"wrote {options.output}: {len(state_dict):,} arrays under the names of torchvision and BottleFit")


def _describe(meta: "NetworkMeta", parameters: int) -> str:
    kind = "student" if meta.bottleneck else "teacher"
    return f"{meta.name}, a {kind} of {meta.num_classes:,} classes, {parameters:,} parameters"


def _option(text: str) -> tuple[str, int | bool | str]:
    """Split `KEY=VALUE`, and return the value as an integer, a truth value or else text."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UserError(f"--option {text!r} must be KEY=VALUE, such as padding=same")
    if value.lower() in ("true", "false"):
        return key, value.lower() == "true"
    return key, int(value) if value.isdecimal() else value


def _pixels(flag: str, text: str | None, *, least: float) -> tuple[float, float, float] | None:
    """Return `R,G,B` as three numbers, for images scaled to 0..1; None without the flag.

    Args:
        flag: its name, for the message.
        text: its value.
        least: the smallest valid number.
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--{flag} is {text!r}; it must be R,G,B such as 0.485,0.456,0.406") from None
    if len(values) != 3:
        raise UserError(f"--{flag} is {values}; it needs three numbers, for red, green and blue")
    if not all(least <= value <= 1 for value in values):
        raise UserError(f"--{flag} is {values}; images are scaled to 0..1, so each must lie from {least:g} to 1")
    return values[0], values[1], values[2]


def _check_output(options: ImportOptions | ExportOptions) -> None:
    """Raise UserError where the output exists and must not be replaced, or cannot be written."""
    output, folder = options.output, isinstance(options, ImportOptions)
    if output.exists():
        if not options.overwrite:
            raise UserError(f"{output} exists: give another --output, or --overwrite to replace it")
        if folder and not output.is_dir():
            raise UserError(f"{output} is a file; --output is a folder here")
        if not folder and output.is_dir():
            raise UserError(f"{output} is a folder; --output is a file here")
        if folder and any(output.iterdir()) and not (output / CHECKPOINT).exists():
            raise UserError(f"{output} is a folder without a network, which --overwrite does not remove")
    above = next(parent for parent in output.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {output}: {above} is not a folder that can be written")


def _quieten() -> None:
    """Silence logs of errors that libraries also raise, and choose the CPU, which is enough here."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from absl import logging as absl_logging

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    command.run(main, extra="train")
