"""What the server tells of itself: Prometheus metrics, and a log of JSON lines on standard error."""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

logger = logging.getLogger("bottlefit_jax.serve")
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
MODEL = ("model", "version")


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
        self.batch = Histogram("batch_size", "Pictures run at once", MODEL, buckets=(1, 2, 4, 8, 16, 32, 64), **kept)
        self.queue = Gauge("queue_length", "Requests that wait", MODEL, **kept)
        self.received = Counter("received_bytes", "Bytes of ModelInfer requests", MODEL, **kept)
        self.refused = Counter("refused_calls", "Calls without an answer, by status", ("method", "status"), **kept)
        self.left_out = Gauge("bundles_left_out", "Folders of --bundles that cannot be served", **kept)
        self.sent = Counter("sent_bytes", "Bytes of ModelInfer responses", MODEL, **kept)

    def watch_queue(self, name: str, version: int, length: Callable[[], float]) -> None:
        """Reads the queue's length whenever the metrics are read."""
        self.queue.labels(name, str(version)).set_function(length)


class JsonFormatter(logging.Formatter):
    """A record, ours or a library's, as one line of JSON; `extra={"fields": {...}}` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.name != logger.name:
            line["logger"] = record.name
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_json() -> None:
    """Sends every logger of the process to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.raiseExceptions = False  # where standard error is gone, serving goes on
    logger.setLevel(logging.INFO)


def log(event: str, *, level: int = logging.INFO, trace: bool = False, **fields: Any) -> None:
    """One event; fields that are None are left out. `trace` adds the traceback of the exception being handled."""
    if logger.isEnabledFor(level):
        known = {key: value for key, value in fields.items() if value is not None}
        logger.log(level, event, extra={"fields": known}, exc_info=trace)
