"""What all commands have in common: how a process begins and ends, flags, one-line errors.

Standard library only, and quick to import: a command imports its other modules inside its `main`, so that a missing
package is one line.
"""

import argparse
import contextlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from bottlefit_jax import __version__, interrupt
from bottlefit_jax.cli import flag_help, silence
from bottlefit_jax.errors import BottleFitError, UserError
from bottlefit_jax.paths import local_path

__all__ = ["AddFlag", "Parser", "called_as", "described", "missing", "outcome", "print_error", "program", "run"]

ROOT = Path(__file__).parents[2]  # the repository, if this is a clone
AddFlag = Callable[..., argparse.Action]  # as `ArgumentParser.add_argument`
_program: ContextVar[str | None] = ContextVar("program", default=None)


def run(main: Callable[[], int], *, extra: str) -> NoReturn:
    """Run a command as the whole of this process, and end the process with its exit code.

    SIGINT and SIGTERM end it at once (see `interrupt`).

    Args:
        main: imports what it needs, reads `sys.argv` and returns the exit code.
        extra: the extra of this package that installs what `main` imports.
    """
    interrupt.watch()
    silence.allow()
    sys.exit(outcome(main, arguments=sys.argv[1:], extra=extra))


def outcome(main: Callable[[], int], *, arguments: Sequence[str], extra: str) -> int:
    """Run a command, or print the version if the arguments ask for it.

    An error of ours, a missing package and a missing device are one line on standard error and exit code 2.

    Args:
        main: as in `run`.
        arguments: the command line without the program.
        extra: as in `run`.

    Returns:
        The exit code.
    """
    if _asks_for_version(arguments):
        print(f"bottlefit-jax {__version__}")
        return 0
    os.environ["MPLBACKEND"] = "agg"  # commands draw into files; a notebook's backend is not always installed
    try:
        return main()
    except BottleFitError as error:
        return print_error(error)
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("bottlefit_jax", "export"):
            raise
        return print_error(missing(error, extra))
    except Exception:
        if not (problem := _platform_problem()):
            raise
        return print_error(problem)


@contextlib.contextmanager
def called_as(name: str) -> Iterator[None]:
    """Within it, usage lines and reports call the command `name` instead of `python -m MODULE`."""
    token = _program.set(name)
    try:
        yield
    finally:
        _program.reset(token)


def program(module: str) -> str:
    """Return what a person typed to start the command: `python -m MODULE`, or the name that `called_as` gave."""
    return _program.get() or f"python -m {module}"


def described(description: str, module: str) -> str:
    """Return a module's docstring with `python -m MODULE` replaced by what a person typed."""
    return re.sub(rf"python -m {re.escape(module)}(?![.\w])", program(module), description)


def missing(error: ImportError, extra: str) -> str:
    """Explain why a package cannot be imported, and what would install it if it is missing.

    Args:
        error: what the import raised.
        extra: the extra of this package that installs it.

    Returns:
        One line.
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
    """Return whether --version is given without a value: with a value it is a flag of the export."""
    return any(
        flag == "--version" and following[:1] == "-" for flag, following in itertools.pairwise([*arguments, "-"])
    )


def _platform_problem() -> str | None:
    """Return why JAX cannot start, if JAX_PLATFORMS names devices that JAX does not find."""
    platforms, jax = os.environ.get("JAX_PLATFORMS"), sys.modules.get("jax")
    if not platforms or jax is None:
        return None
    try:
        jax.devices()
    except Exception:  # an AssertionError or a RuntimeError, by version and platform
        return f"JAX_PLATFORMS is {platforms!r}, and JAX finds no such device: unset it, or install JAX for that device"
    return None


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose flags stand in groups, and that raises UserError for an invalid command line.

    Flags cannot be abbreviated. `cli.flag_help` says how their help is written.

    Attributes:
        groups: the flags of each group, whose title is the key; in the order in which they were added.
    """

    def __init__(self, module: str, description: str | None):
        """Make the parser of a command.

        Args:
            module: the one that `python -m` runs.
            description: the module's docstring, which --help prints.
        """
        super().__init__(
            prog=program(module),
            description=None if description is None else described(description, module),
            allow_abbrev=False,
            add_help=False,
        )
        self.groups: dict[str, list[argparse.Action]] = {}
        self.register("type", Path, local_path)  # what `type=Path` means for every flag
        super().add_argument("-h", "--help", action="help")

    def group(self, title: str) -> AddFlag:
        """Begin a group of flags, or go on with it.

        Args:
            title: what --help prints above the flags, such as "the server".

        Returns:
            What adds a flag to the group: it takes the arguments of `add_argument`.
        """
        actions = self.groups.setdefault(title, [])

        def add(*names: str, **settings: Any) -> argparse.Action:
            actions.append(super(Parser, self).add_argument(*names, **settings))
            return actions[-1]

        return add

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Add a flag to the group "flags"; commands of ours give each of theirs a group with a better title."""
        return self.group("flags")(*names, **settings)

    def format_help(self) -> str:
        """Return what --help prints."""
        return flag_help.format_help(self.prog, self.description, self.groups)

    def error(self, message: str) -> NoReturn:
        """Raise UserError, where argparse would print the usage and exit."""
        raise UserError(f"{message}; --help lists the flags")


def print_error(error: object) -> int:
    """Print an error or its text as one line on standard error, and return its exit code."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return error.exit_code if isinstance(error, BottleFitError) else 2
