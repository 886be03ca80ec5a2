"""Stores a dataset as ArrayRecord in TFDS's layout: training then reads a few large files, without TensorFlow.

    python -m bottlefit_jax.prepare --name imagenette --data_dir D                  # of TFDS's catalogue
    python -m bottlefit_jax.prepare --name myset --folder ROOT --data_dir D         # ROOT/{train,val}/CLASS/*.jpg

TFDS downloads and converts a catalogue set, which needs TensorFlow (`pip install 'bottlefit-jax[prepare]'`). The files
of a folder are checked and stored unchanged, without TensorFlow. The set appears in D as a whole or not at all. Train
on it with `--config.dataset.name=NAME --config.dataset.root=D`. Exit codes: 0 done; 2 an argument is invalid (one line
on standard error), and nothing was written.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

from collections.abc import Sequence

from bottlefit_jax.cli import command
from bottlefit_jax.errors import UserError
from bottlefit_jax.paths import printable


def make_parser() -> command.Parser:
    """Return the parser of the command line."""
    parser = command.Parser("bottlefit_jax.prepare", __doc__)
    add = parser.group("what to store")
    add(
        "--name",
        required=True,
        metavar="NAME",
        help="a set of TFDS's catalogue; with --folder, the name of the new set",
    )
    add(
        "--folder",
        default="",
        metavar="FOLDER",
        help="store the images of this folder, {train,val}/CLASS/*.jpg (default: the set of TFDS's catalogue)",
    )
    add = parser.group("where to store it")
    add(
        "--data_dir",
        required=True,
        metavar="FOLDER",
        help="where the set is written; training reads it with --config.dataset.root=FOLDER",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    try:
        options = make_parser().parse_args(argv)
        from bottlefit_jax.data.tfds_writer import write_catalogue_set, write_folder_set

        if options.folder:
            path = write_folder_set(options.folder, options.name, data_dir=options.data_dir)
        else:
            path = write_catalogue_set(options.name, data_dir=options.data_dir)
    except UserError as error:
        return command.print_error(error)
    print(printable(path))
    return 0


if __name__ == "__main__":
    command.run(main, extra="train")
