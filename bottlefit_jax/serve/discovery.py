"""Where bundles lie: those that were named, and those in folders of bundles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bottlefit_jax.bundle import Bundle, read_bundle
from bottlefit_jax.errors import UserError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Found:
    """Bundles by their manifests, and the folders that cannot be served, each with the reason.

    `damaged` ones have a manifest that is not valid, or lack files; `skipped` ones are hidden or have no manifest.
    """

    bundles: list[Bundle] = field(default_factory=list)
    damaged: dict[Path, UserError] = field(default_factory=dict)
    skipped: dict[Path, UserError] = field(default_factory=dict)


def find_bundles(folders: Sequence[Path], parents: Sequence[Path]) -> Found:
    """Read the manifests on the disk; what other files hold is not read.

    Args:
        folders: bundles.
        parents: folders of bundles, PARENT/BUNDLE or PARENT/NAME/VERSION.
    """
    found = Found()
    visible, hidden = [*folders], []
    for parent in parents:
        try:
            for folder in _candidates(parent):
                # another program's copy, half made or kept aside
                is_hidden = any(part.startswith(".") for part in folder.relative_to(parent).parts)
                (hidden if is_hidden else visible).append(folder)
        except OSError as error:
            found.skipped[parent] = UserError(f"{parent} cannot be read: {error.strerror}")
    for folder in dict.fromkeys(folder.resolve() for folder in visible):
        try:
            found.bundles.append(read_bundle(folder, verify=False))
        except UserError as error:
            missing = folder not in folders and not (folder / MANIFEST).exists()
            (found.skipped if missing else found.damaged)[folder] = error
    served = {bundle.folder for bundle in found.bundles} | found.damaged.keys()
    for folder in hidden:
        if folder.resolve() not in served:  # a link that is not hidden may lead to it
            found.skipped[folder.resolve()] = UserError(f"{folder} is hidden: rename it to have it served")
    return found


def _candidates(parent: Path) -> Iterator[Path]:
    """Folders with a manifest; also those without, unless they are hidden or hold bundles."""
    for folder in _folders(parent):
        inside = [] if (folder / MANIFEST).exists() else _folders(folder)
        if any((path / MANIFEST).exists() for path in inside):
            yield from (path for path in inside if (path / MANIFEST).exists() or not path.name.startswith("."))
        elif (folder / MANIFEST).exists() or not folder.name.startswith("."):
            yield folder


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir())
