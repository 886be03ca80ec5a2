"""Foreign weights in, and ours out.

    python -m bottlefit_jax.convert --model NAME --input FILE --output DIR [--weights NAME] [--labels FILE] [--bits N]
                                    [--mean R,G,B] [--std R,G,B] [--image-size N] [--teacher DIR]
                                    [--option KEY=VALUE ...] [--overwrite]
    python -m bottlefit_jax.convert --to torch --input DIR --output FILE.pth [--overwrite]

The first reads a file of PyTorch (torchvision's, BottleFit's, head-network-distillation's), safetensors, or a Keras
MobileNetV2 as .npz, and writes a folder that a config can name. The second writes such a folder, or the teacher/ or
student/ of a run, as a state dict: .pth, .pt or .safetensors. What the network needs besides its arrays goes with the
file, and the first command finds it there. Exit code 2: one line on standard error says what is wrong, and nothing was
written.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import argparse
import dataclasses
import hashlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bottlefit_jax import lock
from bottlefit_jax.cli import command
from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.errors import UserError
from bottlefit_jax.files import atomic_directory
from bottlefit_jax.paths import local_path

CHECKPOINT = "_CHECKPOINT_METADATA"  # Orbax puts it in every checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    _quieten()
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        if args.to is None:
            import_file(args)
        else:
            export_folder(args)
    except UserError as error:
        return print_error(error)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line and check what can be checked without JAX, which takes seconds to load.

    Raises:
        UserError: flags that are unknown, missing or do not go together; input or output that cannot be.
    """
    from bottlefit_jax.convert import files

    parser = Parser("bottlefit_jax.convert", __doc__)
    parser.add_argument("--to", choices=["torch"], help="write a finished network for PyTorch")
    parser.add_argument("--model", help="resnet152, densenet169, inception_v3, mobilenet_v2, custom_resnet152, ...")
    parser.add_argument("--input", type=Path, required=True, help="file of weights; with --to the folder of a network")
    parser.add_argument("--output", type=Path, required=True, help="folder; with --to a file")
    parser.add_argument("--weights", metavar="NAME", help="which set of weights, where the file holds several")
    parser.add_argument("--labels", help="names of the classes, one a line; without it 1000 classes are ImageNet's")
    parser.add_argument("--bits", type=int, choices=range(9), help="of a student's quantiser; 0: none")
    parser.add_argument("--mean", metavar="R,G,B", help="of the images it was trained with, 0 to 1")
    parser.add_argument("--std", metavar="R,G,B", help="likewise; without both, ImageNet's")
    parser.add_argument("--image-size", type=int, metavar="N", help="side of those images; else the model's own")
    parser.add_argument("--teacher", type=Path, help="converted teacher, where the file holds a head alone")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the model, as width=16")
    parser.add_argument("--overwrite", action="store_true", help="replace --output where it exists")
    args = parser.parse_args(argv)
    args.labels = None if args.labels is None else str(local_path(args.labels))
    args.option = dict(_option(text) for text in args.option)
    if args.to is None:
        files.check_readable(args.input)
        for flag in ("mean", "std"):
            setattr(args, flag, _pixels(flag, getattr(args, flag)))
        if args.image_size is not None and args.image_size < 1:
            raise UserError(f"--image-size is {args.image_size}; it must be at least 1")
    else:
        for flag in ("model", "weights", "labels", "bits", "mean", "std", "image_size", "teacher", "option"):
            if getattr(args, flag) not in (None, {}):
                name = flag.replace("_", "-")
                raise UserError(f"--{name} does not go with --to: the folder says what its network is")
        if not args.input.is_dir():
            raise UserError(f"no folder {args.input}: --to torch takes that of a converted or trained network")
        files.check_suffix(args.output)
    for flag, needed in (("teacher", Path.is_dir), ("labels", Path.is_file)):
        given = getattr(args, flag)
        if given is not None and not needed(Path(given)):
            raise UserError(f"--{flag} {given} is not there")
    _check_output(args.output, args.overwrite, folder=args.to is None)
    return args


def import_file(args: argparse.Namespace) -> None:
    """A file of weights becomes a folder."""
    from bottlefit_jax.convert import files
    from bottlefit_jax.convert.weight_sets import TOP

    file = files.read(args.input, args.weights)
    if args.model is None and not file.about:
        raise UserError("--model is missing, and the file does not say it; an example: --model resnet152")
    import bottlefit_jax.compare.designs  # noqa: F401  a student of the comparison has one of these
    from bottlefit_jax.convert import network
    from bottlefit_jax.training import checkpoint

    checkpoint.silence_echoes()
    given = network.Given(
        args.option, args.labels, args.bits, args.teacher, mean=args.mean, std=args.std, image_size=args.image_size
    )
    found = network.from_file(file, args.model, given)
    with args.input.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    meta = dataclasses.replace(found.meta, source={"file": args.input.name, "sha256": digest})
    with atomic_directory(args.output, overwrite=args.overwrite) as temporary:
        checkpoint.save_variables(temporary, found.variables, meta)
    kind = "student" if meta.bottleneck else "teacher"
    print(
        f"read {args.input} ({file.kind}): {meta.name}, a {kind} of {meta.num_classes:,} classes, "
        f"{network.parameters(found.variables):,} parameters"
    )
    if len(file.sets) > 1 or file.weights != TOP:
        others = f", chosen from {', '.join(file.sets)}" if len(file.sets) > 1 else ""
        print(f"weights: {file.weights}{others}")
    for note in found.notes:
        print(note)
    print(f"wrote {args.output}: --config.{kind}.weights={args.output} names it")


def export_folder(args: argparse.Namespace) -> None:
    """A folder becomes a file for PyTorch."""
    import bottlefit_jax.compare.designs  # noqa: F401  a student of the comparison has one of these
    from bottlefit_jax.convert import about, files, network
    from bottlefit_jax.training import checkpoint

    checkpoint.silence_echoes()
    variables, meta = checkpoint.load_variables(args.input)
    state_dict, notes = network.to_state_dict(variables, meta)
    with lock.hold(lock.beside(args.output), args.output):
        _check_output(args.output, args.overwrite, folder=False)  # again: another process may have written it meanwhile
        files.write(args.output, state_dict, about.write(meta, variables))
    print(
        f"read {args.input}: {meta.name}, a {'student' if meta.bottleneck else 'teacher'} of "
        f"{meta.num_classes:,} classes, {network.parameters(variables):,} parameters"
    )
    for note in [*notes, *network.notes_for_others(meta)]:
        print(note)
    print(f"wrote {args.output}: {len(state_dict):,} arrays under the names of torchvision and BottleFit")


def _option(text: str) -> tuple[str, int | bool | str]:
    """`KEY=VALUE`, the value as the integer or truth value that it spells."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UserError(f"--option {text!r} must be KEY=VALUE, such as padding=same")
    if value.lower() in ("true", "false"):
        return key, value.lower() == "true"
    return key, int(value) if value.isdecimal() else value


def _pixels(flag: str, text: str | None) -> tuple[float, float, float] | None:
    """`R,G,B` as numbers, None where it was not given."""
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--{flag} is {text!r}; it must be R,G,B such as 0.485,0.456,0.406") from None
    from bottlefit_jax.convert.about import check_pixels

    return check_pixels(f"--{flag}", values)


def _check_output(output: Path, overwrite: bool, *, folder: bool) -> None:
    """Raise UserError where the output is in the way, is not ours to replace, or could not be made."""
    if output.exists():
        if not overwrite:
            raise UserError(f"{output} exists: give another --output, or --overwrite to replace it")
        if folder and not output.is_dir():
            raise UserError(f"{output} is a file; --output is a folder here")
        if not folder and output.is_dir():
            raise UserError(f"{output} is a folder; --output is a file here")
        if folder and any(output.iterdir()) and not (output / CHECKPOINT).exists():
            raise UserError(f"{output} holds something else than a network, which --overwrite does not remove")
    above = next(parent for parent in output.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {output}: {above} is not a folder that can be written")


def _quieten() -> None:
    """Libraries raise what they would log; and the processor is all that is needed here."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from absl import logging as absl_logging

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    command.run(main, extra="train")
