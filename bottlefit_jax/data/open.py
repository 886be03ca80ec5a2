"""Opens a data source by its name, and the images of a run, which may come from several."""

import os
from collections.abc import Sequence

from bottlefit_jax.data.digits import Digits
from bottlefit_jax.data.folder import Folder
from bottlefit_jax.data.labelled import TABLE, Labelled
from bottlefit_jax.data.source import SPLITS, Source, check_options
from bottlefit_jax.data.unlabelled import Joined, Unlabelled
from bottlefit_jax.errors import UserError
from bottlefit_jax.paths import printable


def _splits(root: str) -> list[str]:
    return [os.path.join(root, split) for split in SPLITS]


def open_source(name: str, *, split: str, root: str = "", on_bad_image: str = "error") -> Source:
    """Open one split of a data source. Its layout is checked now, before anything is compiled.

    Args:
        name: 'digits' (part of scikit-learn), 'folder' (`root`/{train,val}/CLASS/*.jpg, or without these folders
            evaluation images beside `root`/labels.csv), or the TFDS name of a set that `python -m
            bottlefit_jax.prepare` wrote ('imagenet2012', 'imagenette/160px-v2').
        split: 'train' or 'val'.
        root: the folder of 'folder'; for a TFDS set its data_dir, where '' is TFDS's default.
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
        # A table beside train/ or val/ is for another purpose, such as a contest's.
        is_table = os.path.isfile(os.path.join(root, TABLE)) and not any(map(os.path.isdir, _splits(root)))
        try:
            return (Labelled if is_table else Folder)(root, split=split, on_bad_image=on_bad_image)
        except OSError as error:
            raise UserError(f"{printable(error.filename or root)}: cannot be read ({error.strerror})") from None
    from bottlefit_jax.data.catalogue import Catalogue  # here, because importing TFDS takes a second

    return Catalogue(name, split=split, data_dir=root, on_bad_image=on_bad_image)


def open_images(
    split: str,
    *,
    name: str,
    root: str = "",
    unlabelled: Sequence[str] = (),
    eval_name: str = "",
    eval_root: str = "",
    on_bad_image: str = "error",
) -> Source:
    """Open the images of one split of a run.

    Args:
        split: 'train': the labelled images and then those without labels; 'val': those of `eval_name`, or else of
            `name`, or else one in ten of those without labels, which then are not in 'train'.
        name: as in `open_source`; '' where there are no labelled images.
        root: as in `open_source`.
        unlabelled: folders of images without labels.
        eval_name: the data set to evaluate on, where it is another.
        eval_root: its root.
        on_bad_image: as in `open_source`.

    Raises:
        UserError: see `open_source` and `Unlabelled`; or there are no such images.
    """
    sources: list[Source] = []
    if split == "val":
        name, root = (eval_name, eval_root) if eval_name else (name, root)
    if name:
        sources.append(open_source(name, split=split, root=root, on_bad_image=on_bad_image))
    if unlabelled and not (split == "val" and name):
        hold_out = not (name or eval_name)
        sources.append(Unlabelled(unlabelled, split=split, hold_out=hold_out, on_bad_image=on_bad_image))
    if not sources:
        raise UserError(f"there are no {split} images: name and unlabelled are empty; one of them must be given")
    return sources[0] if len(sources) == 1 else Joined(sources)
