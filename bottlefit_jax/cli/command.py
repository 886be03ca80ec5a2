"""What our commands do alike: the outermost frame, flags, mistakes in one line.

Standard library only, and quick to import: a command's file imports nothing else before `run` has been called.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from bottlefit_jax import __version__, interrupt
from bottlefit_jax.errors import BottleFitError, UserError
from bottlefit_jax.paths import local_path

ROOT = Path(__file__).parents[2]  # of a clone, where it is one


def run(main: Callable[[], int], *, extra: str) -> NoReturn:
    """Run a command as the whole of this process, from its first moment to its exit code.

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
        code = print_error(error)
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("bottlefit_jax", "export"):
            raise
        code = print_error(missing(error, extra))
    except Exception:
        if not (problem := _platform_problem()):
            raise
        code = print_error(problem)
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


def print_error(error: object) -> int:
    """Print a mistake as one line on standard error, and return the exit code that goes with it."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
