"""What our commands do alike: flags, mistakes in one line, folders that appear whole. Standard library only."""

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from bottlefit_jax.errors import UserError, is_disk_full
from bottlefit_jax.paths import local_path


class Parser(argparse.ArgumentParser):
    """argparse whose mistakes are UserErrors."""

    def __init__(self, module: str, description: str | None):
        """Of `python -m MODULE`, described by its docstring; no flag can be shortened."""
        super().__init__(
            prog=f"python -m {module}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.register("type", Path, local_path)  # what `type=Path` means for every flag

    def error(self, message: str) -> NoReturn:
        """Instead of printing the usage and leaving."""
        raise UserError(f"{message}; --help lists the flags")


def tell(error: object) -> int:
    """Prints a mistake as one line on standard error, and returns the exit code that goes with it."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


@contextlib.contextmanager
def in_place_of(folder: Path) -> Iterator[Path]:
    """A folder beside to write to, which takes the place of `folder` if all goes well and else leaves no trace.

    Raises:
      UserError: it cannot be written, or the disk is full.
    """
    folder = folder.resolve()
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            os.replace(folder, temporary.with_name(f"{temporary.name}.old"))
        os.replace(temporary, folder)
    except UserError as error:  # a person knows the folder by the name that was given
        raise UserError(str(error).replace(str(temporary), str(folder))) from error
    except OSError as error:
        reason = "no space left on the disk" if is_disk_full(error) else error.strerror or str(error)
        raise UserError(f"cannot write {folder}: {reason}") from error
    finally:
        _remove(folder.parent, temporary.name)


def _remove(parent: Path, beginning: str) -> None:
    """Removes the folders in `parent` whose names begin so: the old one, and what Orbax leaves under its own names.

    After an error Orbax's threads still write for a moment, so one go is not always enough.
    """
    for _ in range(20):
        left = [path for path in parent.glob("*") if path.name.startswith(beginning)]
        if not left:
            return
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.1)
