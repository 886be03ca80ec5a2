"""The device: takes an image, runs the head here and the tail on a server, and returns a Prediction.

with EdgeClient("bundles/digits", "localhost:8001") as client:
    print(client.infer("image.jpg"))
"""

import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.bundle import RAW, Manifest, read_bundle
from bottlefit_jax.edge import tls as tls_files
from bottlefit_jax.edge.adaptive import Adaptive
from bottlefit_jax.edge.budget import Budget
from bottlefit_jax.edge.call_plan import Encoded, Preferences
from bottlefit_jax.edge.channel import Deadline
from bottlefit_jax.edge.connection import Connection, logger
from bottlefit_jax.edge.device_head import DeviceHead
from bottlefit_jax.edge.image import ImageError, preprocess
from bottlefit_jax.edge.newest import Frame, in_turn, newest
from bottlefit_jax.edge.options import AUTO_IN_FLIGHT, IN_FLIGHT, MAX_IN_FLIGHT
from bottlefit_jax.edge.path import paths_of
from bottlefit_jax.edge.policy import FIXED, Policy
from bottlefit_jax.edge.prediction import Prediction, Route
from bottlefit_jax.edge.predictor import Predictor
from bottlefit_jax.edge.runtimes import AUTO, RUNTIMES, check_file, choose, open_head
from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.edge.sending import Sending
from bottlefit_jax.edge.stream import Finish, Result, classify, classify_sent
from bottlefit_jax.errors import ProtocolError, Unavailable, UserError
from bottlefit_jax.protocol.response import softmax

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
        policy: str = AUTO,
        local: bool = False,
        bytes_per_second: float | None = None,
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
            rate: the id of the rate that all payloads are made at, or "raw"; None leaves it to the policy. A server
                that takes no payloads of these rates gets raw latents, and a warning is logged.
            top: how many of the likeliest classes a prediction has, at most all.
            full: ask for the probabilities of all classes, which are a larger answer.
            runtime: what runs the head, a key of `runtimes.RUNTIMES`; "auto" is the first that is installed and for
                which the bundle has a head.
            providers: what ONNX Runtime computes the head with, keys of `onnx_session.PROVIDERS` in the order of
                preference; none: the fastest that there is.
            policy: "auto" chooses a rate for each image, the most accurate that is likely to be answered within the
                deadline, and the local network if `local`; "fixed" sends every image at the manifest's default, which
                is the cheapest of those that are accurate, and so do `infer_latent` and a bundle without rates.
            local: run the whole network here where the server's answer would come too late.
            bytes_per_second: that the policy may send, all of each request counted; bytes of 10 seconds are saved up.

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
        if server is None or rate is not None:
            policy = FIXED
        budget = None if bytes_per_second is None else Budget(bytes_per_second)
        if budget is not None and policy != AUTO:
            raise UserError(f"bytes_per_second belongs to policy {AUTO!r}, without a rate")
        if local and policy != AUTO:
            raise UserError(f"local=True needs a server and policy {AUTO!r}, without a rate; infer_local needs nothing")
        self._folder, self._threads, self._deadline_seconds = Path(bundle), threads, deadline_ms / 1000
        self._network: Interpreter | None = None  # the whole network, once it runs here
        self._head: DeviceHead | None = None
        self.runtime = runtime  # AUTO until the bundle is read
        self._connection: Connection | None = None
        self._adaptive: Adaptive | None = None
        if server is None:
            self.manifest = read_bundle(bundle, verify=lambda manifest: []).manifest
            self._predictor = Predictor(self.manifest, top)
            return

        def needed(manifest: Manifest) -> tuple[str, ...]:
            self.runtime = choose(runtime, manifest, self._folder)
            return manifest.device_files(RUNTIMES[self.runtime].head)

        files = read_bundle(bundle, verify=needed)
        self.manifest = files.manifest
        head = open_head(self.runtime, files, threads=threads, providers=providers)
        if policy == AUTO and self.manifest.rates and self.manifest.default_rate == RAW:
            rate = self.manifest.rates[0].id  # the policy names one for each image
        self._head = DeviceHead(head, files, rate)
        self._predictor = Predictor(self.manifest, top)
        encrypted = tls or any(path is not None for path in (tls_ca, tls_cert, tls_key))
        self._connection = Connection(
            self.manifest,
            server,
            preferences=Preferences(self._head.rates, 0 if full else self._predictor.top),
            files=tls_files.check_files(ca=tls_ca, cert=tls_cert, key=tls_key) if encrypted else None,
            token=token,
            compress=compress,
            version=version,
            calls=MAX_IN_FLIGHT,
        )
        if policy == AUTO and (local or self.manifest.rates):
            self._adaptive = self._create_adaptive(local, budget)

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
        if self._adaptive is None:
            return self._send(self._prepare(image))
        return self._begin(image)()

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
        deadline = Deadline(self._deadline_seconds)
        return self._send(self._encode(np.asarray(latent), deadline, started, started, started))

    def stream(self, images: Iterable[Any], *, in_flight: int | None = None, drop: bool = False) -> Generator[Result]:
        """Classify images while others are on their way to the server, and yield their results in order.

        A thread takes the images and runs the head. A deadline counts from when an image was taken. An image whose
        deadline passes, or that is invalid, is a result with an error, and the stream goes on. Without a server one
        image is classified at a time.

        Args:
            images: each as in `infer`; the iterator is closed at the end.
            in_flight: images that were begun and are not yet yielded, at most; None is 16 with policy "auto", else 8.
                With it no more requests, or 8, have no answer yet, those included whose deadline is over.
            drop: the images come by themselves, as a camera's: take the newest, and drop those that there is no time
                for.

        Raises:
            UserError: no further image can be classified, as in `infer`; or `in_flight` is out of range.
            Unavailable: `images` says that there are no more.
        """
        if in_flight is None:
            in_flight = IN_FLIGHT if self._adaptive is None else AUTO_IN_FLIGHT
        if not 1 <= in_flight <= MAX_IN_FLIGHT:
            raise UserError(f"in_flight is {in_flight}: give 1 to {MAX_IN_FLIGHT}")
        frames = newest(images) if drop else in_turn(images)
        if self._connection is None:
            return classify(frames, self._begin_local, in_flight=1)
        if self._adaptive is not None:
            self._adaptive.policy.paced = drop
            self._adaptive.allow(in_flight)
            return classify(frames, lambda frame: self._begin(frame.image, frame.since), in_flight=in_flight)
        return classify_sent(
            frames,
            lambda frame: self._prepare(frame.image, frame.since),
            self._connection.infer,
            self._predictor.of_answer,
            in_flight=in_flight,
        )

    def _begin_local(self, frame: Frame) -> Finish:
        prediction = self.infer_local(frame.image)
        return lambda: prediction

    def _begin(self, image: Any, since: float | None = None) -> Finish:
        """Give an image the path that the policy chooses; the rest waits for what becomes of it.

        Args:
            image: as in `infer`.
            since: when it was taken, on the monotonic clock; None: now. Its deadline is counted from then.
        """
        assert self._adaptive is not None
        adaptive, started, deadline = self._adaptive, time.monotonic(), Deadline(self._deadline_seconds, since=since)
        pixels = preprocess(image, self.manifest.image)
        seconds = time.monotonic() - started
        begun = adaptive.begin(pixels, deadline)

        def finish() -> Prediction:
            outcome = adaptive.finish(begun)
            return self._predictor.of_outcome(outcome, seconds, outcome.ended - started)

        return finish

    def _prepare(self, image: Any, since: float | None = None) -> Sending:
        """Return what is sent of an image; arguments as of `_begin`."""
        started, deadline = time.perf_counter(), Deadline(self._deadline_seconds, since=since)
        assert self._head is not None
        pixels = preprocess(image, self.manifest.image)
        preprocessed = time.perf_counter()
        return self._encode(self._head.run(pixels), deadline, started, preprocessed, time.perf_counter())

    def _encode(
        self, latent: np.ndarray, deadline: Deadline, started: float, preprocessed: float, ran: float
    ) -> Sending:
        """Return what is sent of what the head gave; times as of `time.perf_counter`."""
        head = self._head
        assert head is not None
        latent = head.quantise(latent)
        quantized = ran if head.quantises else time.perf_counter()
        payload = head.encode(latent)
        encoded = quantized if payload is None else time.perf_counter()
        route = Route(RAW if head.rate is None or payload is None else head.rate.id, "every image is sent at this rate")
        image = Encoded(latent.tobytes(), payload)
        return Sending(image, deadline, route, started, preprocessed, ran, quantized, encoded)

    def _send(self, sending: Sending) -> Prediction:
        answer = self._to_server().infer(sending.image, sending.deadline)
        return self._predictor.of_answer(sending, answer, time.perf_counter())

    def _create_adaptive(self, local: bool, budget: Budget | None) -> Adaptive:
        """Return what chooses paths; the local network is loaded, and its and the head's times are measured."""
        assert self._head is not None
        assert self._connection is not None
        network = self._local_network() if local else None
        height, width = self.manifest.image.height, self.manifest.image.width
        adaptive = Adaptive(
            Policy(paths_of(self.manifest, local=local), budget=budget),
            self._head,
            self._connection,
            None if network is None else lambda pixels: softmax(network.run(pixels)),
            example=np.zeros((height, width, 3), np.uint8),
        )
        if (reason := adaptive.hopeless(self._deadline_seconds)) is not None:
            logger.warning("%s: no image will be answered in time", reason)
        return adaptive

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
        return self._predictor.of_local(probabilities, preprocessed - started, time.perf_counter() - preprocessed)

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
