"""Files and folders that appear as a whole or not at all. Standard library only.

Nothing here changes the process: no signal handler, no working directory, no environment; any thread may call it.
"""

import contextlib
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bottlefit_jax import interrupt, lock
from bottlefit_jax.errors import UserError, write_error

__all__ = ["atomic_directory", "atomic_file", "sha256_of", "write_text"]

_CHUNK = 1 << 20  # bytes read at once


def sha256_of(path: Path) -> tuple[str, int]:
    """Return the hexadecimal sha256 of a file, and its size in bytes.

    Raises:
        OSError: the file cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:  # hashlib.file_digest is not in Python 3.10
        while data := stream.read(_CHUNK):
            digest.update(data)
            size += len(data)
    return digest.hexdigest(), size


@contextlib.contextmanager
def atomic_file(path: Path, *, exclusive: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` if the block succeeds, and is removed otherwise.

    Args:
        path: where a reader finds either the old file or the whole new one, also after a crash.
        exclusive: raise an error while another process writes the same file.

    Raises:
        UserError: the file cannot be written, the disk is full, or another process is writing it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}.part")
    locked = lock.hold(lock.beside(path), path) if exclusive else contextlib.nullcontext()
    with locked, interrupt.undone(lambda: temporary.unlink(missing_ok=True)):
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
        except OSError as error:
            raise write_error(path, error) from error
        finally:
            with contextlib.suppress(OSError):  # the cause of the first error may also prevent this
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 by `atomic_file`; a surrogate is written as its escape.

    Args:
        path: as in `atomic_file`.
        text: the whole content.

    Raises:
        UserError: as `atomic_file`.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def atomic_directory(folder: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; it replaces `folder` if the block succeeds, else it is removed.

    Args:
        folder: where a reader finds either the old folder or the whole new one. One process at a time writes it.
        overwrite: replace it if it exists; otherwise an existing folder is an error.

    Raises:
        UserError: the folder cannot be written, the disk is full, or another process is writing it.
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
        except UserError as error:  # the message must name the folder that was given, not the temporary one
            raise UserError(str(error).replace(str(temporary), str(folder))) from error
        except OSError as error:
            raise write_error(folder, error) from error
        finally:
            _remove(folder.parent, temporary.name)


def _flush(path: Path) -> None:
    """Wait until the file's bytes are on the disk; otherwise its new name could lead to an empty file after a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(parent: Path, prefix: str) -> None:
    """Remove the folders in `parent` whose names begin with `prefix`: the replaced one, and Orbax's own temporary ones.

    After an error Orbax's threads still write for a moment, so one attempt is not always enough.
    """
    for _ in range(20):
        remaining = [path for path in parent.glob("*") if path.name.startswith(prefix)]
        if not remaining:
            return
        for path in remaining:
            shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.1)
