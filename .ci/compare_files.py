"""Compares an sdist and a wheel with the files of the commit that they were built from.

    python .ci/compare_files.py TRACKED DIST

TRACKED has a path in each line; DIST has one *.tar.gz and one *.whl. Exit codes: 0 they agree; 1 a file is missing or
is too much.
"""

import sys
import tarfile
import zipfile
from pathlib import Path

IN_WHEEL = {"bottlefit_jax/": "bottlefit_jax/", "configs/": "bottlefit_jax/configs/", "export/": "export/"}
NOT_IN_SDIST = (".ci/", ".gitignore")
GENERATED = ("PKG-INFO", "setup.cfg", "bottlefit_jax.egg-info/")


def main(tracked_file: Path, dist: Path) -> int:
    """Print the differences, or how many files there are, and return the exit code."""
    tracked = set(tracked_file.read_text().splitlines())
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    with tarfile.open(sdist) as archive:
        packed = {item.name.partition("/")[2] for item in archive if item.isfile()}
    with zipfile.ZipFile(wheel) as archive:
        installed = {name for name in archive.namelist() if ".dist-info/" not in name}
    packed = {name for name in packed if not name.startswith(GENERATED)}
    expected = {
        wheels + name.removeprefix(ours)
        for name in tracked
        for ours, wheels in IN_WHEEL.items()
        if name.startswith(ours)
    }
    wrong = [
        *(f"{sdist.name}: {name}" for name in sorted(packed ^ {n for n in tracked if not n.startswith(NOT_IN_SDIST)})),
        *(f"{wheel.name}: {name}" for name in sorted(installed ^ expected)),
    ]
    for line in wrong:
        print(f"error: missing or too much: {line}", file=sys.stderr)
    print(f"{len(packed)} files in the sdist, {len(installed)} in the wheel")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
