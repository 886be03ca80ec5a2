"""One process at a time where two would destroy each other's files. Standard library only.

A lock is a file that the system unlocks when its process ends, however it ends. It says who holds it, and is removed
by who held it.
"""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bottlefit_jax import interrupt
from bottlefit_jax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)  # what file systems without locks answer
HOLDER_BYTES = 300


class InUseError(UserError):
    """Another process works on it."""


@contextlib.contextmanager
def hold(path: Path, name: object, *, hint: str = "", wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` for as long as the context lasts.

    Args:
        path: made, with the folders above it.
        name: what a person calls the thing that is locked.
        hint: what else could be done, at the end of the message.
        wait: until it is free, with a line that says so.

    Raises:
        InUseError: another process holds it; the message says which, and since when.
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path, name, hint, wait)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left on the disk of {path.parent}") from error
        # mkdir's own words for a file in the way are "File exists"
        reason = os.strerror(errno.ENOTDIR) if isinstance(error, FileExistsError) else error.strerror or error
        raise UserError(f"cannot write {path.parent}: {reason}") from error
    if descriptor is None:
        yield
        return
    try:
        with interrupt.undone(lambda: path.unlink(missing_ok=True)):
            yield
    finally:
        path.unlink(missing_ok=True)  # before it is free, so that nobody locks what is about to go
        os.close(descriptor)


def beside(path: Path) -> Path:
    """The lock file of an output that is not there yet."""
    path = path.absolute()
    return path.with_name(f".{path.name}.lock")


def _acquire(path: Path, name: object, hint: str, wait: bool) -> int | None:
    """The open lock file, locked; None where the file system, or the system, has no locks."""
    told = False
    while fcntl is not None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if told else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.read(descriptor, HOLDER_BYTES).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            if not wait:
                raise InUseError(f"{name} is in use by {holder}: wait until that has ended{hint}") from None
            print(f"waiting for {name}, which is in use by {holder}", flush=True)
            told = True
            continue
        except OSError as error:
            os.close(descriptor)
            if error.errno not in NO_LOCKS:
                raise
            break
        if not _is_still(path, descriptor):  # who held it has just removed it
            os.close(descriptor)
            continue
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{_self()}\n".encode(), 0)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
    print(f"warning: no locks on the file system of {path}: a second run there would do harm", file=sys.stderr)
    return None


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the file that is open is the one of that name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


def _self() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return f"process {os.getpid()} on {os.uname().nodename} since {since}"
