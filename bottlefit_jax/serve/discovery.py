"""Finds the bundles on the disk: those that were named, and those in folders of bundles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bottlefit_jax.bundle import Bundle, read_bundle
from bottlefit_jax.errors import UserError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class BundlesOnDisk:
    """What find_bundles finds.

    Attributes:
        bundles: those with a valid manifest; their other files are not verified.
        damaged: folders with an invalid manifest or missing files -> why.
        skipped: folders that are hidden or have no manifest -> why.
    """

    bundles: list[Bundle] = field(default_factory=list)
    damaged: dict[Path, UserError] = field(default_factory=dict)
    skipped: dict[Path, UserError] = field(default_factory=dict)


def find_bundles(bundles: Sequence[Path], parents: Sequence[Path]) -> BundlesOnDisk:
    """Read the manifests on the disk.

    Args:
        bundles: folders of one bundle each.
        parents: folders that hold bundles, PARENT/BUNDLE or PARENT/NAME/VERSION.
    """
    result = BundlesOnDisk()
    named = {folder.resolve() for folder in bundles}
    visible, hidden = [*bundles], []
    for parent in parents:
        try:
            for folder in _candidates(parent):
                # a hidden folder is a copy that another program has not finished, or keeps aside
                is_hidden = any(part.startswith(".") for part in folder.relative_to(parent).parts)
                (hidden if is_hidden else visible).append(folder)
        except OSError as error:
            result.skipped[parent] = UserError(f"{parent} cannot be read: {error.strerror}")
    for folder in dict.fromkeys(folder.resolve() for folder in visible):
        try:
            result.bundles.append(read_bundle(folder, verify=False))
        except UserError as error:
            missing = folder not in named and not (folder / MANIFEST).exists()
            (result.skipped if missing else result.damaged)[folder] = error
    visited = {bundle.folder for bundle in result.bundles} | result.damaged.keys()
    for folder in hidden:
        if folder.resolve() not in visited:  # a visible link may lead to it
            result.skipped[folder.resolve()] = UserError(f"{folder} is hidden: rename it to have it served")
    return result


def _candidates(parent: Path) -> Iterator[Path]:
    """Yield the folders with a manifest, and those without one that neither are hidden nor hold bundles."""
    for folder in _folders(parent):
        inside = [] if (folder / MANIFEST).exists() else _folders(folder)
        if any((path / MANIFEST).exists() for path in inside):
            yield from (path for path in inside if (path / MANIFEST).exists() or not path.name.startswith("."))
        elif (folder / MANIFEST).exists() or not folder.name.startswith("."):
            yield folder


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir())
