"""Keeps the messages of C++ libraries out of a command's output.

File descriptors belong to the whole process. So they are redirected only in a process that is one of our commands, not
in a user's program that calls the same functions.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_lock = threading.RLock()  # what silences may call what silences
_is_command = False


def allow() -> None:
    """Let `silenced` redirect from now on, because this process is one of our commands."""
    global _is_command
    _is_command = True


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Discard what is written to stdout and stderr meanwhile, by C++ libraries too; see `allow`. Exceptions pass."""
    if not _is_command:
        yield
        return
    with _lock, open(os.devnull, "w") as null, contextlib.ExitStack() as stack:
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            try:
                copy = os.dup(number)
            except OSError:  # it is closed
                continue
            stack.callback(os.close, copy)
            stack.callback(os.dup2, copy, number)
            if stream is not None:
                stream.flush()
            os.dup2(null.fileno(), number)
        with contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
            yield
