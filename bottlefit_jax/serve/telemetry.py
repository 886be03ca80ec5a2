"""What the server tells of itself: Prometheus metrics, and a log of JSON lines on standard error."""

import asyncio
import contextlib
import functools
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

logger = logging.getLogger("bottlefit_jax.serve")
TOGETHER = 0.05  # seconds that the line of a call may wait for others
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
MODEL = ("model", "version")
# a line of gRPC's core: E0000 00:00:1732593929.123456   4242 tcp_posix.cc:123] text
CORE = re.compile(r"([IWEF])\d{4} [\d:.]+ +\d+ (\S+:\d+)\] (.*)")
LEVELS = {"I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}


class Metrics:
    """One registry per server, so that two servers in a process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kept: dict[str, Any] = {"registry": self.registry, "namespace": "bottlefit"}
        self.requests = Counter("requests", "ModelInfer requests by status", (*MODEL, "status"), **kept)
        self.seconds = {
            "queue": Histogram("queue_seconds", "Time in the queue", MODEL, buckets=SECONDS, **kept),
            "tail": Histogram("tail_seconds", "Time of the batch in the tail", MODEL, buckets=SECONDS, **kept),
            "total": Histogram("total_seconds", "Time from request to response", MODEL, buckets=SECONDS, **kept),
        }
        self.batch = Histogram("batch_size", "Images run at once", MODEL, buckets=(1, 2, 4, 8, 16, 32, 64), **kept)
        self.queue = Gauge("queue_length", "Requests that wait", MODEL, **kept)
        self.received = Counter("received_bytes", "Bytes of ModelInfer requests", MODEL, **kept)
        self.refused = Counter("refused_calls", "Calls without an answer, by status", ("method", "status"), **kept)
        self.left_out = Gauge("bundles_left_out", "Folders of --bundles that cannot be served", **kept)
        self.sent = Counter("sent_bytes", "Bytes of ModelInfer responses", MODEL, **kept)
        self._models: dict[tuple[str, str], ModelMetrics] = {}

    def of(self, name: str, version: int | None) -> "ModelMetrics":
        """Those of one model, looked up once: a request does not pay for its labels. ("", None): of no loaded model."""
        labels = name, "" if version is None else str(version)
        found = self._models.get(labels)
        if found is None:
            found = self._models[labels] = ModelMetrics(self, *labels)
        return found

    def watch_queue(self, name: str, version: int, length: Callable[[], float]) -> None:
        """Read the queue's length whenever the metrics are read."""
        self.queue.labels(name, str(version)).set_function(length)


class ModelMetrics:
    """The metrics of one model and version."""

    def __init__(self, metrics: Metrics, *labels: str):
        self.queue, self.tail, self.total = (
            metrics.seconds[name].labels(*labels) for name in ("queue", "tail", "total")
        )
        self.received, self.sent = metrics.received.labels(*labels), metrics.sent.labels(*labels)
        self._requests, self._labels = metrics.requests, labels
        self._by_status: dict[str, Any] = {}

    def requests(self, status: str) -> Any:
        """The counter of the requests that ended with `status`."""
        found = self._by_status.get(status)
        if found is None:
            found = self._by_status[status] = self._requests.labels(*self._labels, status)
        return found


class CallLog:
    """The lines of calls: of those with the same method and status the first and every `one_in`-th; 0: none.

    They are written TOGETHER seconds later, many at once: line by line they would cost the server several times that.
    """

    def __init__(self, one_in: int):
        self._one_in = one_in
        self._seen: dict[tuple[str, str], int] = {}
        self._kept: list[tuple[float, int, dict[str, Any]]] = []

    def takes(self, method: str, status: str) -> bool:
        """Whether this call has a line."""
        if self._one_in <= 1:
            return self._one_in == 1
        seen = self._seen.get((method, status), 0)
        self._seen[method, status] = seen + 1
        return seen % self._one_in == 0

    def add(self, *, level: int = logging.INFO, **fields: Any) -> None:
        """A line, from the event loop."""
        if not self._kept:
            asyncio.get_running_loop().call_later(TOGETHER, self.write)
        self._kept.append((time.time(), level, fields))

    def write(self) -> None:
        """Write what was added."""
        kept, self._kept = self._kept, []
        with _Lines.together():
            for at, level, fields in kept:
                log("call", level=level, at=at, **fields)


class _Lines(logging.StreamHandler):
    """Writes each record at once, but for those within `together`."""

    held = False

    @classmethod
    @contextlib.contextmanager
    def together(cls) -> Iterator[None]:
        """Write the records that come meanwhile at its end."""
        cls.held = True
        try:
            yield
        finally:
            cls.held = False
            for handler in logging.getLogger().handlers:
                with contextlib.suppress(OSError, ValueError):  # where standard error is gone, serving goes on
                    handler.flush()

    def flush(self) -> None:
        """Not now, where more come."""
        if not self.held:
            with contextlib.suppress(OSError, ValueError):  # where standard error is gone, serving goes on
                super().flush()


class JsonFormatter(logging.Formatter):
    """A record, ours or a library's, as one line of JSON; `extra={"fields": {...}}` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
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


def log_json(stream: TextIO | None = None) -> None:
    """Send every logger of the process to `stream`, or standard error, as JSON."""
    handler = _Lines(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.raiseExceptions = False  # where standard error is gone, serving goes on
    # what no line shows, and each record would look up
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logger.setLevel(logging.INFO)


@contextlib.contextmanager
def all_json() -> Iterator[None]:
    """As `log_json`, and what libraries write to file descriptor 2 becomes lines of JSON as well.

    For a command: it changes the descriptor for the whole process, until it ends.
    """
    try:
        real = os.dup(2)
    except OSError:  # closed: there is no log
        yield
        return
    read, write = os.pipe()
    os.dup2(write, 2)
    os.close(write)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with os.fdopen(real, "w", errors="backslashreplace") as stream:
        log_json(stream)
        reader = threading.Thread(target=_log_lines, args=(read,), name="stderr", daemon=True)
        reader.start()
        try:
            yield
        finally:
            os.dup2(real, 2)  # closes the last end to write: the reader ends
            reader.join()
            root.handlers, root.level = handlers, level


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


def log(event: str, *, level: int = logging.INFO, trace: bool = False, at: float | None = None, **fields: Any) -> None:
    """One event; fields that are None are left out.

    Args:
        trace: adds the traceback of the exception being handled.
        at: when it was, by time.time(); None: now.
    """
    if logger.isEnabledFor(level):
        known = {key: value for key, value in fields.items() if value is not None}
        if trace:
            logger.log(level, event, extra={"fields": known}, exc_info=True)
        else:  # without the search for the line that called, which takes longer than the rest and is not shown
            record = logger.makeRecord(logger.name, level, "", 0, event, (), None, extra={"fields": known})
            if at is not None:
                record.created, record.msecs = at, at % 1 * 1000
            logger.handle(record)
