"""Files and folders that appear whole or not at all, and what a full disk is called. Standard library only."""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from bottlefit_jax import interrupt, lock
from bottlefit_jax.errors import UserError


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, ours or a library's that only quotes the system, is about a full disk or quota."""
    by_number = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return by_number or "No space left" in str(error) or "Disk quota exceeded" in str(error)


def write_error(path: Path, error: OSError) -> UserError:
    """The error that says why `path` cannot be written."""
    reason = "no space left on the disk" if is_disk_full(error) else error.strerror or str(error)
    return UserError(f"cannot write {path}: {reason}")


@contextlib.contextmanager
def atomic_file(path: Path, *, exclusive: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces `path` if all goes well and else is removed.

    Args:
        path: a reader finds the old file or the whole new one there, also after a crash.
        exclusive: refuse to start while another process writes the same file.

    Raises:
        UserError: the file cannot be written, the disk is full, or another process is writing it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    held = lock.hold(lock.beside(path), path) if exclusive else contextlib.nullcontext()
    with held, interrupt.undone(lambda: temporary.unlink(missing_ok=True)):
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
        except OSError as error:
            raise write_error(path, error) from error
        finally:
            with contextlib.suppress(OSError):  # what kept us from writing may keep us from removing
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 by `atomic_file`; a surrogate is written as its escape."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def atomic_directory(folder: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, which takes its place if all goes well and else is removed.

    Args:
        folder: one process at a time writes a new one.
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
            raise write_error(folder, error) from error
        finally:
            _remove(folder.parent, temporary.name)


def _flush(path: Path) -> None:
    """Wait until the file's bytes are on the disk: after a crash its new name must not lead to an empty file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(parent: Path, beginning: str) -> None:
    """Remove the folders in `parent` whose names begin so: the old one, and what Orbax leaves under its own names.

    After an error Orbax's threads still write for a moment, so one attempt is not always enough.
    """
    for _ in range(20):
        left = [path for path in parent.glob("*") if path.name.startswith(beginning)]
        if not left:
            return
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.1)
