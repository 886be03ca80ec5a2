"""Writes a set as ArrayRecord in TFDS's layout, once: training then needs neither TensorFlow nor a million small files.

    python -m bottlefit_jax.prepare --name imagenette --data_dir D                  # of TFDS's catalogue
    python -m bottlefit_jax.prepare --name myset --folder ROOT --data_dir D         # ROOT/{train,val}/CLASS/*.jpg

A catalogue set is downloaded and converted by TFDS, which needs TensorFlow (`pip install 'bottlefit-jax[prepare]'`). A
folder needs nothing more: its files are stored as they are, after each was checked. Either way the set appears in D
complete or not at all. Afterwards `config.dataset.name=NAME config.dataset.root=D` trains on it.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

from collections.abc import Sequence

from bottlefit_jax.cli import command
from bottlefit_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code, 2 for what the user got wrong."""
    parser = command.Parser("bottlefit_jax.prepare", __doc__)
    parser.add_argument("--name", required=True, help="a set of TFDS's catalogue, or with --folder any new name")
    parser.add_argument("--data_dir", required=True, help="where to write; what config.dataset.root is set to later")
    parser.add_argument("--folder", default="", help="a folder with {train,val}/CLASS/*.jpg to take the images from")
    try:
        options = parser.parse_args(argv)
        from bottlefit_jax.data.tfds_writer import write_catalogue_set, write_folder_set
        from bottlefit_jax.images import printable

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
