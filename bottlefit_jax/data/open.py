"""One way in: the name of a data source -> the source."""

import os

from bottlefit_jax.data.digits import Digits
from bottlefit_jax.data.folder import Folder
from bottlefit_jax.data.labelled import TABLE, Labelled
from bottlefit_jax.data.source import SPLITS, Source, check_options
from bottlefit_jax.errors import UserError
from bottlefit_jax.images import printable


def _splits(root: str) -> list[str]:
    return [os.path.join(root, split) for split in SPLITS]


def open_source(name: str, *, split: str, root: str = "", on_bad_image: str = "error") -> Source:
    """Open one split of a data source, and find what is wrong with it before anything is compiled.

    Args:
        name: 'digits' (bundled), 'folder' (`root`/{train,val}/CLASS/*.jpg, or evaluation images with
            `root`/labels.csv beside them where there are no such folders), or a set that
            `python -m bottlefit_jax.prepare` wrote, under its TFDS name ('imagenet2012', 'imagenette/160px-v2').
        split: 'train' or 'val'.
        root: the folder of 'folder'; for a TFDS set its data_dir, where '' is TFDS's own default.
        on_bad_image: 'error' stops at an image that cannot be decoded; 'skip' leaves it out and counts it.

    Returns:
        The source.

    Raises:
        UserError: an argument is unknown, or the data is missing, empty or inconsistent.
    """
    check_options(split, on_bad_image)
    if name == "digits":
        return Digits(split=split, on_bad_image=on_bad_image)
    if name == "folder":
        # A table beside train/ or val/ belongs to something else: people keep a contest's there.
        is_table = os.path.isfile(os.path.join(root, TABLE)) and not any(map(os.path.isdir, _splits(root)))
        try:
            return (Labelled if is_table else Folder)(root, split=split, on_bad_image=on_bad_image)
        except OSError as error:
            raise UserError(f"{printable(error.filename or root)}: cannot be read ({error.strerror})") from None
    from bottlefit_jax.data.catalogue import Catalogue  # here, because importing TFDS takes a second

    return Catalogue(name, split=split, data_dir=root, on_bad_image=on_bad_image)
