"""Where the models of a bundle are in a Triton model repository, and whether those places are free.

Standard library only: the command checks it before anything else is imported.
"""

from pathlib import Path

from bottlefit_jax.errors import UserError
from bottlefit_jax.protocol.names import PAYLOAD_SUFFIX

CONFIG = "config.pbtxt"
DECODE_SUFFIX = "-decode"


def check_free(folder: Path, name: str, version: int, *, overwrite: bool) -> None:
    """Raise UserError if that version of the model `name` cannot be added to the repository `folder`."""
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not above.is_dir():
        raise UserError(f"cannot write {folder / name}: {above} is not a folder")
    for place in (folder / name, *payload_models(folder, name)):
        if not place.exists() and not place.is_symlink():
            continue
        if place.is_symlink() or not place.is_dir() or (any(place.iterdir()) and not (place / CONFIG).exists()):
            raise UserError(
                f"{place} is not a model of a Triton repository, so it is not replaced: give another folder"
            )
        if (place / str(version)).exists() and not overwrite:
            raise UserError(
                f"{place} has version {version}: another --version adds one with the same head, --overwrite replaces it"
            )


def payload_models(folder: Path, name: str) -> tuple[Path, Path]:
    """Return the places of the ensemble and of its first step."""
    return folder / f"{name}{PAYLOAD_SUFFIX}", folder / f"{name}{DECODE_SUFFIX}"
