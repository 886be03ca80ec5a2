"""Paths: how one is read from a flag or a config, and how one is shown."""

import argparse
import os
import re
from pathlib import Path

from bottlefit_jax.errors import UserError

__all__ = ["PathError", "cache_folder", "local_path", "printable"]

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")  # of gs://bucket/run, s3://, http://, file://


class PathError(UserError, argparse.ArgumentTypeError):
    """An invalid path. It is an ArgumentTypeError, since argparse shows the text of no other error."""


def local_path(text: str) -> Path:
    """Return the path that a person wrote, with `~` and `~NAME` expanded.

    Args:
        text: the value of a flag or of a config key.

    Raises:
        PathError: it is empty, a URL, has a zero byte, or names an unknown home folder.
    """
    if not text:
        raise PathError("the path is empty; '.' is the folder that you are in")
    if SCHEME.match(text):
        raise PathError(f"{text!r} is not on this machine; only paths such as /data/run work: copy or mount it")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise PathError(f"{text!r} names a home folder that is not known; write the whole path") from None
    if "\0" in text:
        raise PathError(f"{text!r} has a zero byte, which no path can have")
    return path


def cache_folder() -> Path:
    """Return the folder of what a later run need not make again: below XDG_CACHE_HOME, which services set, or ~/.cache.

    A service without a home folder has nothing but that variable.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    # its specification says to ignore a relative path; an unknown home folder leaves `~`, which is expanded no further
    parent = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~/.cache"))
    return parent / "bottlefit-jax"


def printable(path: str | bytes | os.PathLike) -> str:
    r"""Return a path as text that UTF-8 can encode: bytes that are not UTF-8 become escapes such as `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
