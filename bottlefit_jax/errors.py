"""The errors of this package, and the one text for a file that cannot be written.

    BottleFitError        every error below; a command prints it as one line, without a traceback, and exits with 2
    ├── UserError         a value that is invalid: a flag, a config key, a file, a folder
    ├── Unavailable       a deadline passed, or no server answered; the next request may succeed
    ├── ProtocolError     a server answered with an error, or with something that cannot be used
    └── ParityError       exported files do not compute what the network computes; exit code 1

A message is one line that quotes the invalid value and says what would be valid. Any other exception that leaves a
command is a bug.
"""

import errno
import os
from pathlib import Path
from typing import Any

__all__ = [
    "BottleFitError",
    "ParityError",
    "ProtocolError",
    "Unavailable",
    "UserError",
    "first_line",
    "is_disk_full",
    "quote",
    "write_error",
]


class BottleFitError(Exception):
    """The base class of the errors that a user may cause or meet; its text is one line.

    Attributes:
        exit_code: of a command that ends with it.
    """

    exit_code = 2


class UserError(BottleFitError, ValueError):
    """An invalid value: a flag, a config key, a file, a folder."""


class Unavailable(BottleFitError):
    """No server answered within the deadline; the next request may succeed."""


class ProtocolError(BottleFitError):
    """A server answered with an error, or with something that cannot be used; the next request may succeed."""


class ParityError(BottleFitError):
    """Exported files do not compute what the network computes that they were made from."""

    exit_code = 1


def quote(value: Any) -> str:
    """Return a value as an error shows it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, as libraries write many; at most 300 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error is about a full disk or quota; a library's may only quote the system's text."""
    by_number = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return by_number or "No space left" in str(error) or "Disk quota exceeded" in str(error)


def write_error(path: Path, error: OSError) -> UserError:
    """Return the UserError that says why `path` cannot be written.

    Args:
        path: the file or folder, as a person knows it.
        error: what the system raised, for `path`, for a temporary file named after it, or for another file.
    """
    reason = "no space left on the disk" if is_disk_full(error) else error.strerror or str(error)
    if isinstance(error.filename, (str, bytes, os.PathLike)):
        file = os.fsdecode(error.filename)
        if path.name not in file and file != str(path.parent):
            reason = f"{file}: {reason}"
    return UserError(f"cannot write {path}: {reason}")
