"""What the command changes in its own process.

Only `__main__.py` imports this: a program that embeds the server keeps its standard error, its logging, its limits.
"""

import contextlib
import logging
import os
import re
import threading
from collections.abc import Iterator

from bottlefit_jax.serve.log import JsonFormatter, LineHandler, logger

FILES = 65_536  # connections that should be possible, one file each; often 1,024 are until a process asks for more
# a line of gRPC's core: E0000 00:00:1732593929.123456   4242 tcp_posix.cc:123] text
CORE = re.compile(r"([IWEF])\d{4} [\d:.]+ +\d+ (\S+:\d+)\] (.*)")
LEVELS = {"I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}


def raise_file_limit() -> int | None:
    """Raise the limit of open files to FILES, or to what the system allows; return it, None where there is none."""
    try:
        import resource
    except ImportError:  # no POSIX
        return None
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    aim = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    if limit != resource.RLIM_INFINITY and limit < aim:
        resource.setrlimit(resource.RLIMIT_NOFILE, (aim, most))
        return aim
    return None if limit == resource.RLIM_INFINITY else limit


@contextlib.contextmanager
def json_stderr() -> Iterator[None]:
    """Turn everything on standard error into lines of JSON: all logging, and what libraries write to descriptor 2.

    gRPC's core writes to the descriptor, so the descriptor is a pipe meanwhile. At the end everything is as before.
    Where standard error is closed, there is no log.
    """
    try:
        stderr = os.dup(2)
    except OSError:
        yield
        return
    read, write = os.pipe()
    os.dup2(write, 2)
    os.close(write)
    with os.fdopen(stderr, "w", errors="backslashreplace") as stream, _logging_to(LineHandler(stream)):
        reader = threading.Thread(target=_log_lines, args=(read,), name="stderr", daemon=True)
        reader.start()
        try:
            yield
        finally:
            os.dup2(stderr, 2)  # closes the last end to write: the reader ends
            reader.join()


@contextlib.contextmanager
def _logging_to(handler: logging.Handler) -> Iterator[None]:
    """Send the records of all loggers to `handler` as JSON, ours from INFO on and others' from WARNING on."""
    root = logging.getLogger()
    # raiseExceptions would print a traceback where standard error is closed; the others collect what no line shows
    flags = ("raiseExceptions", "logThreads", "logProcesses", "logMultiprocessing")
    before = {flag: getattr(logging, flag) for flag in flags}
    handlers, level, own_level = root.handlers[:], root.level, logger.level
    handler.setFormatter(JsonFormatter())
    for flag in flags:
        setattr(logging, flag, False)
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)
        logger.setLevel(own_level)
        for flag, value in before.items():
            setattr(logging, flag, value)


def _log_lines(read: int) -> None:
    """Log each line that comes out of a pipe."""
    with os.fdopen(read, errors="backslashreplace") as lines:
        for line in lines:
            match = CORE.fullmatch(line.rstrip())
            if match:
                core = logging.getLogger("grpc")
                core.log(LEVELS[match[1]], "%s", match[3], extra={"fields": {"source": match[2]}})
            elif line.strip():
                logging.getLogger("stderr").warning("%s", line.rstrip())
