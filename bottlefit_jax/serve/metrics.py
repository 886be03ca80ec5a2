"""The server's metrics, for Prometheus."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from bottlefit_jax import __version__

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
MODEL = ("model", "version")


class Metrics:
    """The metrics of one server, in a registry of its own: a process may have several servers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        common: dict[str, Any] = {"registry": self.registry, "namespace": "bottlefit"}
        times: dict[str, Any] = {"labelnames": MODEL, "buckets": SECONDS, **common}
        self.requests = Counter("requests", "ModelInfer requests by status", (*MODEL, "status"), **common)
        self.queue_seconds = Histogram("queue_seconds", "Time in the queue", **times)
        self.tail_seconds = Histogram("tail_seconds", "Time of the batch in the tail", **times)
        self.decode_seconds = Histogram("decode_seconds", "Time of the batch's payloads in the decoder", **times)
        self.total_seconds = Histogram("total_seconds", "Time from request to response", **times)
        self.batch = Histogram("batch_size", "Images run at once", MODEL, buckets=(1, 2, 4, 8, 16, 32, 64), **common)
        self.busy = Counter("busy_seconds", "Time in which batches were decoded and run", MODEL, **common)
        self.queue = Gauge("queue_length", "Requests that wait", MODEL, **common)
        self.received = Counter("received_bytes", "Bytes of ModelInfer requests", MODEL, **common)
        self.refused = Counter("refused_calls", "Calls without an answer, by status", ("method", "status"), **common)
        self.left_out = Gauge("bundles_left_out", "Folders of --bundles that are not served", **common)
        self.sent = Counter("sent_bytes", "Bytes of ModelInfer responses", MODEL, **common)
        self.expiry = Gauge(
            "certificate_expiry_timestamp_seconds", "When the certificate in this file expires", ("file",), **common
        )
        Info("build", "The server's version", **common).info({"version": __version__})
        ProcessCollector(registry=self.registry)  # open files, memory and processor time; on Linux alone
        self._models: dict[tuple[str, str], ModelMetrics] = {}

    def of(self, name: str, version: int | None) -> "ModelMetrics":
        """Return the metrics of one model; ("", None) is for requests without a loaded model.

        The labels are looked up once for each model, not for each request.
        """
        labels = name, "" if version is None else str(version)
        metrics = self._models.get(labels)
        if metrics is None:
            metrics = self._models[labels] = ModelMetrics(self, *labels)
        return metrics

    def ran(self, name: str, version: int) -> Callable[[int, float], None]:
        """Return what counts a batch of one model, with its images and seconds, from any thread."""
        sizes, busy = self.batch.labels(name, str(version)), self.busy.labels(name, str(version))

        def count(images: int, seconds: float) -> None:
            busy.inc(seconds)
            sizes.observe(images)

        return count

    def watch_queue(self, name: str, version: int, length: Callable[[], float]) -> None:
        """Read the queue's length whenever the metrics are read."""
        self.queue.labels(name, str(version)).set_function(length)

    def watch_models(self, loaded: Callable[[], Iterable[tuple[str, str, str, str]]]) -> None:
        """Export the models that are loaded whenever the metrics are read.

        Args:
            loaded: returns name, version, head's id and tail's id of each.
        """
        self.registry.register(_Loaded(loaded))


class _Loaded(Collector):
    def __init__(self, loaded: Callable[[], Iterable[tuple[str, str, str, str]]]):
        self._loaded = loaded

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("bottlefit_model_info", "Models that are loaded", labels=(*MODEL, "head", "tail"))
        for labels in self._loaded():
            family.add_metric(labels, 1)
        yield family


class ModelMetrics:
    """The metrics of one model and version."""

    def __init__(self, metrics: Metrics, *labels: str):
        self.queue = metrics.queue_seconds.labels(*labels)
        self.tail = metrics.tail_seconds.labels(*labels)
        self.decode = metrics.decode_seconds.labels(*labels)
        self.total = metrics.total_seconds.labels(*labels)
        self.received, self.sent = metrics.received.labels(*labels), metrics.sent.labels(*labels)
        self._requests, self._labels = metrics.requests, labels
        self._by_status: dict[str, Any] = {}

    def requests(self, status: str) -> Any:
        """Return the counter of the requests that ended with `status`."""
        counter = self._by_status.get(status)
        if counter is None:
            counter = self._by_status[status] = self._requests.labels(*self._labels, status)
        return counter
