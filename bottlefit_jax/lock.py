"""Locks for files that two processes must not write at once. Standard library only.

A lock is a file that the operating system unlocks when its process ends, however it ends. The file names its holder,
and the holder removes it.
"""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bottlefit_jax import interrupt
from bottlefit_jax.errors import UserError, write_error

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["InUseError", "beside", "hold"]

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)  # of file systems without locks
HOLDER_BYTES = 300


class InUseError(UserError):
    """Another process holds the lock."""


@contextlib.contextmanager
def hold(path: Path, name: object, *, hint: str = "", wait: bool = False) -> Iterator[None]:
    """Hold a lock within the block.

    Args:
        path: the lock file; it and the folders above it are created.
        name: what the message calls the thing that is locked.
        hint: the end of the message: what else the user could do.
        wait: print a line and wait until the lock is free, instead of raising InUseError.

    Raises:
        InUseError: another process holds it; the message says which one, and since when.
        UserError: the lock file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path, name, hint, wait)
    except FileExistsError:  # mkdir's word for a file in the way
        raise write_error(path.parent, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))) from None
    except OSError as error:
        raise write_error(path.parent, OSError(error.errno, error.strerror)) from error
    if descriptor is None:
        yield
        return
    try:
        with interrupt.undone(lambda: path.unlink(missing_ok=True)):
            yield
    finally:
        path.unlink(missing_ok=True)  # before it is unlocked, so that no process locks a file that is then removed
        os.close(descriptor)


def beside(path: Path) -> Path:
    """Return the lock file of an output that may not exist yet: `.NAME.lock` in the same folder."""
    path = path.absolute()
    return path.with_name(f".{path.name}.lock")


def _acquire(path: Path, name: object, hint: str, wait: bool) -> int | None:
    """Return the descriptor of the locked file; None if the file system or the operating system has no locks."""
    waiting = False
    while fcntl is not None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waiting else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.read(descriptor, HOLDER_BYTES).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            if not wait:
                raise InUseError(f"{name} is in use by {holder}: wait until that has ended{hint}") from None
            print(f"waiting for {name}, which is in use by {holder}", flush=True)
            waiting = True
            continue
        except OSError as error:
            os.close(descriptor)
            if error.errno not in NO_LOCKS:
                raise
            break
        if not _is_same_file(path, descriptor):  # its last holder has just removed it
            os.close(descriptor)
            continue
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{_this_process()}\n".encode(), 0)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
    print(f"warning: no locks on the file system of {path}: a second run there would do harm", file=sys.stderr)
    return None


def _is_same_file(path: Path, descriptor: int) -> bool:
    """Return whether `path` still names the open file."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


def _this_process() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return f"process {os.getpid()} on {os.uname().nodename} since {since}"
