"""Paths that a person gives, in a flag or a config: `~` is the home folder, and only this machine's files are read."""

import argparse
import re
from pathlib import Path

from bottlefit_jax.errors import UserError

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")  # of gs://bucket/run, s3://, http://, file://


class PathError(UserError, argparse.ArgumentTypeError):
    """A path that cannot be one; argparse shows the text of an ArgumentTypeError, and of no other error."""


def local_path(text: str) -> Path:
    """The path that a person wrote, `~` and `~NAME` expanded.

    Raises:
        PathError: it is empty, is the address of another place, or has a home folder that nobody knows.
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
