"""Keeps the messages of C++ libraries out of a command's output.

Only commands do this: file descriptors belong to the whole process, so a library call must not redirect them.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_redirected = threading.Lock()


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Discard what is written to stdout and stderr meanwhile, by C++ libraries too. Exceptions pass."""
    with _redirected, open(os.devnull, "w") as null, contextlib.ExitStack() as stack:
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
