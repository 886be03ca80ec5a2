"""What our commands do alike: the outermost frame, flags, mistakes in one line, folders that appear whole.

Standard library only, and quick to import: a command's file imports nothing else before `run` has been called.
"""

import argparse
import contextlib
import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from bottlefit_jax import __version__, interrupt, lock
from bottlefit_jax.errors import BottleFitError, UserError, is_disk_full
from bottlefit_jax.paths import local_path

ROOT = Path(__file__).parents[2]  # of a clone, where it is one


def run(main: Callable[[], int], *, extra: str) -> NoReturn:
    """Runs a command as the whole of this process, from its first moment to its exit code.

    SIGINT and SIGTERM end it at once (see `interrupt`), a mistake or a missing package is one line and exit code 2.

    Args:
      main: imports what it needs, reads `sys.argv` and returns the exit code.
      extra: of the package, which brings what the command needs.
    """
    if _asks_for_version(sys.argv[1:]):
        print(f"bottlefit-jax {__version__}")
        sys.exit(0)
    interrupt.watch()
    os.environ["MPLBACKEND"] = "agg"  # commands draw into files; a notebook's backend is not always installed
    try:
        code = main()
    except BottleFitError as error:
        code = tell(error)
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("bottlefit_jax", "export"):
            raise
        code = tell(missing(error, extra))
    except Exception:
        if not (problem := _platform_problem()):
            raise
        code = tell(problem)
    sys.exit(code)


def missing(error: ImportError, extra: str) -> str:
    """What to do where a package cannot be imported: it is missing, or it is there and broken.

    Args:
      error: what the import raised.
      extra: of our package, which brings it.
    """
    if not isinstance(error, ModuleNotFoundError):
        return f"cannot import {error.name or error.path or 'a package'}: {error}"
    clone, python = (ROOT / "Makefile").exists(), ROOT / ".venv" / "bin" / "python"
    if clone and python.exists() and Path(sys.prefix) != python.parents[1]:
        how = f"use {python}, or pip install -e '{ROOT}[{extra}]'"
    elif clone:
        how = f"pip install -e '{ROOT}[{extra}]', or `make demo`, which makes a .venv/bin/python that has it"
    else:
        how = f"pip install 'bottlefit-jax[{extra}]'"
    return f"{error.name} is not installed for {sys.executable}: {how}"


def _asks_for_version(arguments: Sequence[str]) -> bool:
    """Whether --version is there without a value: with one it is the export's, of the model."""
    return any(given == "--version" and after[:1] == "-" for given, after in itertools.pairwise([*arguments, "-"]))


def _platform_problem() -> str | None:
    """Why nothing can be computed here at all: JAX_PLATFORMS names devices that JAX does not find."""
    platforms, jax = os.environ.get("JAX_PLATFORMS"), sys.modules.get("jax")
    if not platforms or jax is None:
        return None
    try:
        jax.devices()
    except Exception:  # an AssertionError or a RuntimeError, by version and platform
        return f"JAX_PLATFORMS is {platforms!r}, and JAX finds no such device: unset it, or install JAX for that device"
    return None


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
def in_place_of(folder: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A folder beside to write to, which takes the place of `folder` if all goes well and else leaves no trace.

    Args:
      folder: of which one process at a time writes a new one.
      overwrite: replace it where it exists; else one that has appeared meanwhile is an error.

    Raises:
      UserError: it cannot be written, the disk is full, or another process is writing it.
    """
    folder = folder.resolve()
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    with lock.hold(lock.beside(folder), folder), interrupt.undone(lambda: _remove(folder.parent, temporary.name)):
        try:
            if folder.exists() and not overwrite:
                raise UserError(f"{folder} exists: it has just been written by another process")
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


@contextlib.contextmanager
def file_in_place_of(file: Path) -> Iterator[Path]:
    """As `in_place_of`, for a file."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    with lock.hold(lock.beside(file), file), interrupt.undone(lambda: temporary.unlink(missing_ok=True)):
        try:
            yield temporary
            os.replace(temporary, file)
        except OSError as error:
            reason = "no space left on the disk" if is_disk_full(error) else error.strerror or str(error)
            raise UserError(f"cannot write {file}: {reason}") from error
        finally:
            temporary.unlink(missing_ok=True)


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
