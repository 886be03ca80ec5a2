"""The events of the server, as records of the logger `bottlefit_jax.serve`; their fields are in `record.fields`.

The command writes them to standard error as JSON. A program that embeds the server gives the logger a handler of its
own, with a JsonFormatter if it likes.
"""

import asyncio
import contextlib
import functools
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger("bottlefit_jax.serve")
CALL_DELAY = 0.05  # seconds that the line of a call may wait for the lines of others


def log(event: str, *, level: int = logging.INFO, trace: bool = False, at: float | None = None, **fields: Any) -> None:
    """Log one event.

    Args:
        event: what happened, in a few words.
        level: one of logging's.
        trace: add the traceback of the exception that is being handled.
        at: when it happened, by time.time(); None is now.
        fields: what the record says besides; those that are None are left out.
    """
    if logger.isEnabledFor(level):
        known = {key: value for key, value in fields.items() if value is not None}
        if trace:
            logger.log(level, event, extra={"fields": known}, exc_info=True)
        else:  # without the search for the calling line, which takes longer than the rest and is not shown
            record = logger.makeRecord(logger.name, level, "", 0, event, (), None, extra={"fields": known})
            if at is not None:
                record.created, record.msecs = at, at % 1 * 1000
            logger.handle(record)


class CallLog:
    """The log of the calls: of those with the same method and status the first and every `one_in`-th; 0 is none.

    The lines are written CALL_DELAY seconds later, many at once; line by line they would cost several times as much.
    """

    def __init__(self, one_in: int):
        self._one_in = one_in
        self._counts: dict[tuple[str, str], int] = {}
        self._pending: list[tuple[float, int, dict[str, Any]]] = []

    def takes(self, method: str, status: str) -> bool:
        """Count a call, and return whether it is logged."""
        if self._one_in <= 1:
            return self._one_in == 1
        count = self._counts.get((method, status), 0)
        self._counts[method, status] = count + 1
        return count % self._one_in == 0

    def add(self, *, level: int = logging.INFO, **fields: Any) -> None:
        """Add the line of a call. Called in the event loop."""
        if not self._pending:
            asyncio.get_running_loop().call_later(CALL_DELAY, self.write)
        self._pending.append((time.time(), level, fields))

    def write(self) -> None:
        """Write the lines that were added."""
        pending, self._pending = self._pending, []
        with LineHandler.together():
            for at, level, fields in pending:
                log("call", level=level, at=at, **fields)


class LineHandler(logging.StreamHandler):
    """Writes each record at once, except within `together`. Where its stream is closed, serving goes on."""

    held = False

    @classmethod
    @contextlib.contextmanager
    def together(cls) -> Iterator[None]:
        """Collect the records within it, and write them at its end."""
        cls.held = True
        try:
            yield
        finally:
            cls.held = False
            for handler in logging.getLogger().handlers:
                if isinstance(handler, cls):
                    handler.flush()

    def flush(self) -> None:
        """Write what was collected, except within `together`."""
        if not self.held:
            with contextlib.suppress(OSError, ValueError):
                super().flush()


class JsonFormatter(logging.Formatter):
    """Formats a record, ours or a library's, as one line of JSON; `extra={"fields": {...}}` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line break at its end."""
        line = {
            "time": f"{_second(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.name != logger.name:
            line["logger"] = record.name
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


@functools.lru_cache(1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
