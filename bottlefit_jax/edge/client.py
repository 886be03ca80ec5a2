"""The device: takes an image, runs the head here and the tail on a server, and returns a Prediction.

with EdgeClient("bundles/digits", "localhost:8001") as client:
    print(client.infer("image.jpg"))
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.bundle import RAW, Manifest, read_bundle
from bottlefit_jax.edge import tls as tls_files
from bottlefit_jax.edge.adaptive import Adaptive, Outcome
from bottlefit_jax.edge.call_plan import Encoded, Preferences
from bottlefit_jax.edge.channel import Answer, Deadline
from bottlefit_jax.edge.connection import Connection
from bottlefit_jax.edge.device_head import DeviceHead
from bottlefit_jax.edge.image import ImageError, preprocess
from bottlefit_jax.edge.path import LOCAL, paths_of
from bottlefit_jax.edge.policy import FIXED, Policy
from bottlefit_jax.edge.prediction import BytesSent, Prediction, Route, Timings, bytes_sent, server_times
from bottlefit_jax.edge.runtimes import AUTO, RUNTIMES, check_file, choose, open_head
from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.errors import ProtocolError, Unavailable, UserError
from bottlefit_jax.protocol.classification import likeliest
from bottlefit_jax.protocol.names import OUTPUT
from bottlefit_jax.protocol.response import softmax
from bottlefit_jax.protocol.response_checks import classes_of, vector_of

__all__ = ["EdgeClient", "ImageError", "ProtocolError", "Unavailable"]

MAX_DEADLINE_MS, MAX_THREADS = 3_600_000, 1024
TOP = 5  # classes of a prediction


class EdgeClient:
    """Classifies images with a bundle's head here and its tail on a server. For one thread at a time."""

    def __init__(
        self,
        bundle: Path | str,
        server: str | None,
        *,
        deadline_ms: float = 2000,
        compress: bool = False,
        tls: bool = False,
        tls_ca: Path | str | None = None,
        tls_cert: Path | str | None = None,
        tls_key: Path | str | None = None,
        token: str | None = None,
        threads: int = 1,
        version: int | None = None,
        rate: str | None = None,
        top: int = TOP,
        full: bool = False,
        runtime: str = AUTO,
        providers: Sequence[str] = (),
        policy: str = FIXED,
        local: bool = False,
    ):
        """Read manifest.json and the head; connect to nothing yet.

        Args:
            bundle: the folder. Only manifest.json, the rates' tables and the file that runs here need to be in it.
            server: HOST:PORT; None where only `infer_local` is called.
            deadline_ms: milliseconds that an image may take, with retries.
            compress: compress requests by gRPC's gzip.
            tls: encrypt, and trust public authorities; implied by the next three.
            tls_ca: PEM file of the only authorities to trust.
            tls_cert: PEM file of the certificate that identifies this device to the server.
            tls_key: PEM file of its key.
            token: sent as a bearer token.
            threads: that the head may use.
            version: of the tail; None is the newest that the server has for this head.
            rate: the id of the rate that payloads are made at, or "raw"; None is the manifest's default. A server that
                takes no payloads of these rates gets raw latents, and a warning is logged.
            top: how many of the likeliest classes a prediction has, at most all.
            full: ask for the probabilities of all classes, which are a larger answer.
            runtime: what runs the head, a key of `runtimes.RUNTIMES`; "auto" is the first that is installed and for
                which the bundle has a head.
            providers: what ONNX Runtime computes the head with, keys of `onnx_session.PROVIDERS` in the order of
                preference; none: the fastest that there is.
            policy: "fixed" sends every image at `rate`; "auto" chooses a rate for each image, the most accurate that is
                likely to be answered within the deadline, and the local network if `local`. `infer_local` and
                `infer_latent` have no choice.
            local: with "auto": run the whole network here where the server's answer would come too late.

        Raises:
            UserError: an argument is invalid, or a file of the bundle is missing or damaged.
        """
        if not 0 < deadline_ms <= MAX_DEADLINE_MS:  # false for NaN
            raise UserError(f"deadline_ms is {deadline_ms}: give more than 0 and at most {MAX_DEADLINE_MS:,}")
        if not 1 <= threads <= MAX_THREADS:
            raise UserError(f"threads is {threads}: give 1 to {MAX_THREADS:,}")
        if version is not None and version < 1:
            raise UserError(f"version is {version}: give 1 or more, or none for the newest tail")
        if top < 1:
            raise UserError(f"top is {top}: give 1 or more")
        if policy not in (AUTO, FIXED):
            raise UserError(f"policy is {policy!r}: give {AUTO!r} or {FIXED!r}")
        if policy == AUTO and (server is None or rate is not None):
            raise UserError(f"policy {AUTO!r} needs a server, and chooses the rate itself")
        if local and policy != AUTO:
            raise UserError(f"local=True belongs to policy {AUTO!r}; infer_local needs nothing")
        self._folder, self._threads, self._deadline_seconds = Path(bundle), threads, deadline_ms / 1000
        self._network: Interpreter | None = None  # the whole network, once it runs here
        self._head: DeviceHead | None = None
        self.runtime = runtime  # AUTO until the bundle is read
        self._connection: Connection | None = None
        self._adaptive: Adaptive | None = None
        if server is None:
            self.manifest = read_bundle(bundle, verify=lambda manifest: []).manifest
            self._top = min(top, self.manifest.model.num_classes)
            return

        def needed(manifest: Manifest) -> tuple[str, ...]:
            self.runtime = choose(runtime, manifest, self._folder)
            return manifest.device_files(RUNTIMES[self.runtime].head)

        files = read_bundle(bundle, verify=needed)
        self.manifest = files.manifest
        head = open_head(self.runtime, files, threads=threads, providers=providers)
        if policy == AUTO and self.manifest.rates:
            rate = self.manifest.rates[0].id  # the policy names one for each image
        self._head = DeviceHead(head, files, rate)
        self._top = min(top, self.manifest.model.num_classes)
        encrypted = tls or any(path is not None for path in (tls_ca, tls_cert, tls_key))
        self._connection = Connection(
            self.manifest,
            server,
            preferences=Preferences(self._head.rates, 0 if full else self._top),
            files=tls_files.check_files(ca=tls_ca, cert=tls_cert, key=tls_key) if encrypted else None,
            token=token,
            compress=compress,
            version=version,
        )
        if policy == AUTO:
            self._adaptive = self._create_adaptive(local)

    def connect(self) -> None:
        """Check within the deadline that the server has a tail of this head. Without this, `infer` checks it.

        Raises:
            Unavailable: the server did not answer within the deadline.
            UserError: the tail belongs to another head, or the server refuses this device.
        """
        self._to_server().connect(Deadline(self._deadline_seconds))

    def load_local(self) -> None:
        """Load the whole network. Without this, the first `infer_local` loads it.

        Raises:
            UserError: the bundle has no file for local runs, or the file is missing or damaged.
        """
        self._local_network()

    def infer(self, image: Any) -> Prediction:
        """Classify an image with the head here and the tail on the server.

        Args:
            image: a path, a Pillow image, or a uint8 [H, W, 3] array in RGB order, of any size.

        Raises:
            ImageError: the image is invalid; the next one may be valid.
            Unavailable: the server did not answer within the deadline.
            ProtocolError: its answer to this image is an error or invalid.
            UserError: the tail belongs to another head, or the server refuses this device; the next image would fail
                too.
        """
        self._to_server()
        started = time.perf_counter()
        deadline = Deadline(self._deadline_seconds)
        assert self._head is not None
        pixels = preprocess(image, self.manifest.image)
        preprocessed = time.perf_counter()
        if self._adaptive is not None:
            outcome = self._adaptive.answer(pixels, deadline)
            return self._prediction_of(outcome, preprocessed - started, time.perf_counter() - started)
        latent = self._head.run(pixels)
        return self._send(latent, deadline, started, preprocessed, time.perf_counter())

    def infer_latent(self, latent: Any) -> Prediction:
        """Classify a latent that a head of one's own gave, with the tail on the server.

        Args:
            latent: [h, w, c] of the manifest's shape: float32 before the quantiser, or uint8 behind it.

        Raises:
            UserError: the latent has another shape or type, or is not finite; or as in `infer`.
            Unavailable, ProtocolError: as in `infer`.
        """
        self._to_server()
        started = time.perf_counter()
        return self._send(np.asarray(latent), Deadline(self._deadline_seconds), started, started, started)

    def _send(
        self, latent: np.ndarray, deadline: Deadline, started: float, preprocessed: float, ran: float
    ) -> Prediction:
        """Send what the head gave, and return the prediction; times as of `time.perf_counter`."""
        head, connection = self._head, self._to_server()
        assert head is not None
        latent = head.quantise(latent)
        quantized = ran if head.quantises else time.perf_counter()
        payload = head.encode(latent)
        encoded = time.perf_counter()
        answer = connection.infer(Encoded(latent.tobytes(), payload), deadline)
        top, probabilities = self._scores(answer)
        answered = time.perf_counter()
        queue, decode, tail = server_times(answer)
        timings = Timings(
            preprocess=1000 * (preprocessed - started),
            head=1000 * (ran - preprocessed),
            quantizer=1000 * (quantized - ran),
            encode=0.0 if payload is None else 1000 * (encoded - quantized),
            network=1000 * (answered - encoded) - (queue or 0) - (decode or 0) - (tail or 0),
            queue=queue,
            decode=decode,
            tail=tail,
            total=1000 * (answered - started),
        )
        route = Route(RAW if head.rate is None or payload is None else head.rate.id, "every image is sent at this rate")
        return self._prediction(top, timings, bytes_sent(answer), probabilities, route)

    def _create_adaptive(self, local: bool) -> Adaptive:
        """Return what chooses paths; the local network is loaded, and its and the head's times are measured."""
        assert self._head is not None
        assert self._connection is not None
        network = self._local_network() if local else None
        height, width = self.manifest.image.height, self.manifest.image.width
        return Adaptive(
            Policy(paths_of(self.manifest, local=local)),
            self._head,
            self._connection,
            None if network is None else lambda pixels: softmax(network.run(pixels)),
            example=np.zeros((height, width, 3), np.uint8),
        )

    def _prediction_of(self, outcome: Outcome, preprocess: float, total: float) -> Prediction:
        """Return the prediction of what the policy chose; times in seconds."""
        if outcome.answer is None:
            assert outcome.probabilities is not None
            top, probabilities = _classes(outcome.probabilities, self._top), outcome.probabilities
            sent, queue, decode, tail = BytesSent(0, 0, 0, 0, 0), 0.0, 0.0, 0.0
        else:
            top, probabilities = self._scores(outcome.answer)
            sent, (queue, decode, tail) = bytes_sent(outcome.answer), server_times(outcome.answer)
        head, encode = outcome.head + outcome.local, outcome.encode
        rest = total - preprocess - head - encode
        timings = Timings(
            preprocess=1000 * preprocess,
            head=1000 * head,
            quantizer=0.0,
            encode=1000 * encode,
            network=1000 * rest - (queue or 0) - (decode or 0) - (tail or 0),
            queue=queue,
            decode=decode,
            tail=tail,
            total=1000 * total,
        )
        choice = outcome.choice
        route = Route(outcome.path.name, choice.reason, 1000 * choice.expected, choice.probability)
        return self._prediction(top, timings, sent, probabilities, route)

    def infer_local(self, image: Any) -> Prediction:
        """Classify an image with the whole network on this device, from the bundle's file for local runs.

        Args:
            image: as in `infer`.

        Raises:
            ImageError: the image is invalid.
            UserError: as in `load_local`.
        """
        network, started = self._local_network(), time.perf_counter()
        pixels = preprocess(image, self.manifest.image)
        preprocessed = time.perf_counter()
        probabilities = softmax(network.run(pixels))
        ran = time.perf_counter()
        head, total = 1000 * (ran - preprocessed), 1000 * (ran - started)
        none = dict.fromkeys(("quantizer", "encode", "network", "queue", "decode", "tail"), 0.0)
        timings = Timings(total - head, head, **none, total=total)
        sent = BytesSent(0, 0, 0, 0, 0)
        route = Route(LOCAL, "every image runs here")
        return self._prediction(_classes(probabilities, self._top), timings, sent, probabilities, route)

    def close(self) -> None:
        """End the connection."""
        if self._adaptive is not None:
            self._adaptive.close()
        if self._connection is not None:
            self._connection.close()

    def __enter__(self) -> "EdgeClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _to_server(self) -> Connection:
        if self._connection is None:
            raise UserError("no server was given; without one there is only infer_local")
        return self._connection

    def _local_network(self) -> Interpreter:
        """Return the whole network; its file is read and verified at the first call, as most devices never need it."""
        if self._network is None:
            if self.manifest.local is None:
                raise UserError(f"{self._folder} has no network to run locally: export it with --local")
            name = self.manifest.local.litert
            path = read_bundle(self._folder, verify=lambda manifest: [name]).path(name)
            network = Interpreter(path, self._threads)
            check_file(network, name, self.manifest, (self.manifest.model.num_classes,), (np.float32,))
            self._network = network
        return self._network

    def _label(self, index: int) -> str:
        return self.manifest.labels[index] if self.manifest.labels else str(index)

    def _scores(self, answer: Answer) -> tuple[list[tuple[int, float]], np.ndarray | None]:
        """Return the likeliest classes of an answer, and the probabilities of all if the answer has them."""
        name, classes = answer.output
        if classes:
            return classes_of(answer.response, self.manifest, classes), None
        values = vector_of(answer.response, self.manifest, name)
        probabilities = softmax(values) if name == OUTPUT else values
        return _classes(probabilities, self._top), probabilities

    def _prediction(
        self,
        best: list[tuple[int, float]],
        timings: Timings,
        bytes_sent: BytesSent,
        probabilities: np.ndarray | None,
        route: Route,
    ) -> Prediction:
        top = tuple((self._label(index), index, probability) for index, probability in best)
        return Prediction(*top[0], timings, bytes_sent, top, probabilities, route)


def _classes(probabilities: np.ndarray, count: int) -> list[tuple[int, float]]:
    """Return the likeliest classes as pairs of index and probability."""
    return [(index, float(probabilities[index])) for index in likeliest(probabilities, count).tolist()]
