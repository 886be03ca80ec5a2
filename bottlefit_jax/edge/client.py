"""The device: takes an image, runs the head here and the tail on a server, and returns a Prediction.

with EdgeClient("bundles/digits", "localhost:8001") as client:
    print(client.infer("image.jpg"))
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.bundle import Manifest, read_bundle
from bottlefit_jax.codec import quantizer
from bottlefit_jax.edge import tls as tls_files
from bottlefit_jax.edge.channel import Answer, Deadline
from bottlefit_jax.edge.connection import Connection
from bottlefit_jax.edge.image import ImageError, preprocess
from bottlefit_jax.edge.interpreter import Interpreter
from bottlefit_jax.errors import ProtocolError, Unavailable, UserError
from bottlefit_jax.protocol.response_checks import logits_of, microseconds

__all__ = ["BytesSent", "EdgeClient", "ImageError", "Prediction", "ProtocolError", "Timings", "Unavailable"]

MAX_DEADLINE_MS, MAX_THREADS = 3_600_000, 1024


@dataclass(frozen=True)
class Timings:
    """The time of each step, in milliseconds.

    Attributes:
        preprocess: decoding, and resizing to the network's input.
        head: the head; the whole network in a local run.
        quantizer: from the head's output to the latent; 0 for an int8 head, whose output is the latent.
        network: from the request to the answer, with retries, without `queue` and `tail` where these are known.
        queue, tail: on the server; None where the server does not report them.
        total: all of it.
    """

    preprocess: float
    head: float
    quantizer: float
    network: float
    queue: float | None
    tail: float | None
    total: float


@dataclass(frozen=True)
class BytesSent:
    """The bytes that the device sent for one image; `total` is the sum of the other three byte counts.

    Attributes:
        latent: the values themselves, one byte each.
        protocol: the rest of the serialised request.
        transport: all else that was written to TCP: HTTP/2, TLS, and what was sent again. Negative where gRPC's
            compression saved more than that. None where the system does not count it.
        total: of the image.
        segments: TCP segments, acknowledgements included. Each also has about 52 bytes of TCP and IPv4 headers,
            which are in none of these numbers. None where the system does not count them.
    """

    latent: int
    protocol: int
    transport: int | None
    total: int
    segments: int | None


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: the name of the likeliest class; its index where the bundle has no labels.
        index: of the likeliest class.
        probability: its softmax.
        timings: of each step.
        bytes_sent: by the device.
        probabilities: [classes] float32, the softmax.
    """

    label: str
    index: int
    probability: float
    timings: Timings
    bytes_sent: BytesSent
    probabilities: np.ndarray = field(repr=False, compare=False)


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
    ):
        """Read manifest.json and the head; connect to nothing yet.

        Args:
            bundle: the folder. Only manifest.json and the file that runs here need to be in it.
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

        Raises:
            UserError: an argument is invalid, or a file of the bundle is missing or damaged.
        """
        if not 0 < deadline_ms <= MAX_DEADLINE_MS:  # false for NaN
            raise UserError(f"deadline_ms is {deadline_ms}: give more than 0 and at most {MAX_DEADLINE_MS:,}")
        if not 1 <= threads <= MAX_THREADS:
            raise UserError(f"threads is {threads}: give 1 to {MAX_THREADS:,}")
        if version is not None and version < 1:
            raise UserError(f"version is {version}: give 1 or more, or none for the newest tail")
        self._folder, self._threads, self._deadline_seconds = Path(bundle), threads, deadline_ms / 1000
        self._network: Interpreter | None = None  # the whole network, once it runs here
        self._head: Interpreter | None = None
        self._connection: Connection | None = None
        if server is None:
            self.manifest = read_bundle(bundle, verify=lambda manifest: []).manifest
            return
        files = read_bundle(bundle, verify=lambda manifest: manifest.device_files())
        self.manifest = files.manifest
        self._head = Interpreter(files.path(self.manifest.head_file("litert").file), threads)
        _check_head(self._head, self.manifest)
        self._affine = _affine(self.manifest)
        encrypted = tls or any(path is not None for path in (tls_ca, tls_cert, tls_key))
        self._connection = Connection(
            self.manifest,
            server,
            files=tls_files.check_files(ca=tls_ca, cert=tls_cert, key=tls_key) if encrypted else None,
            token=token,
            compress=compress,
            version=version,
        )

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
        connection, started = self._to_server(), time.perf_counter()
        deadline = Deadline(self._deadline_seconds)
        assert self._head is not None
        pixels = preprocess(image, self.manifest.image)
        preprocessed = time.perf_counter()
        latent = self._head.run(pixels)
        ran = quantized = time.perf_counter()
        if self._head.scale is None:
            latent = quantizer.quantize(latent, self._affine, bits=self.manifest.latent.bits)
            quantized = time.perf_counter()
        answer = connection.infer(latent.tobytes(), deadline)
        probabilities = _softmax(logits_of(answer.response, self.manifest))
        answered = time.perf_counter()
        queue, tail = _server_times(answer)
        timings = Timings(
            preprocess=1000 * (preprocessed - started),
            head=1000 * (ran - preprocessed),
            quantizer=1000 * (quantized - ran),
            network=1000 * (answered - quantized) - (queue or 0) - (tail or 0),
            queue=queue,
            tail=tail,
            total=1000 * (answered - started),
        )
        return self._prediction(probabilities, timings, _bytes_sent(answer, latent.nbytes))

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
        probabilities = _softmax(network.run(pixels))
        ran = time.perf_counter()
        head, total = 1000 * (ran - preprocessed), 1000 * (ran - started)
        timings = Timings(total - head, head, quantizer=0.0, network=0.0, queue=0.0, tail=0.0, total=total)
        return self._prediction(probabilities, timings, BytesSent(0, 0, 0, 0, 0))

    def top(self, prediction: Prediction, count: int) -> list[tuple[str, int, float]]:
        """Return the `count` likeliest classes of a prediction as (label, index, probability), the likeliest first."""
        best = np.argsort(-prediction.probabilities, kind="stable")[:count]
        return [(self._label(int(index)), int(index), float(prediction.probabilities[index])) for index in best]

    def close(self) -> None:
        """End the connection."""
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
            _check_file(network, name, self.manifest, (self.manifest.model.num_classes,), (np.float32,))
            self._network = network
        return self._network

    def _label(self, index: int) -> str:
        return self.manifest.labels[index] if self.manifest.labels else str(index)

    def _prediction(self, probabilities: np.ndarray, timings: Timings, bytes_sent: BytesSent) -> Prediction:
        best = int(probabilities.argmax())
        return Prediction(self._label(best), best, float(probabilities[best]), timings, bytes_sent, probabilities)


def _check_head(head: Interpreter, manifest: Manifest) -> None:
    """Raise UserError where the head's file does not match the manifest."""
    latent, name = manifest.latent, manifest.head_file("litert").file
    _check_file(head, name, manifest, latent.shape, (np.uint8, np.float32))
    if head.scale is not None and (
        head.zero_point != latent.zero_point or not np.isclose(head.scale, latent.scale, rtol=1e-5, atol=0)
    ):
        raise UserError(
            f"{name} quantises with scale {head.scale:g} and zero point {head.zero_point}, "
            f"its manifest says {latent.scale:g} and {latent.zero_point}"
        )


def _check_file(file: Interpreter, name: str, manifest: Manifest, shape: tuple, dtypes: tuple) -> None:
    """Raise UserError where a LiteRT file has another input or output than the manifest says."""
    image = (manifest.image.height, manifest.image.width, 3)
    if file.input_shape != image or file.output_shape != tuple(shape) or file.output_dtype not in dtypes:
        raise UserError(
            f"{name} makes {file.output_dtype} {list(file.output_shape)} of an image of {list(file.input_shape)}; "
            f"its manifest says {list(shape)} of {list(image)}"
        )


def _affine(manifest: Manifest) -> quantizer.Affine:
    """Return the manifest's quantisation of the latent, which the tail undoes."""
    latent = manifest.latent
    return quantizer.Affine(np.float32(latent.scale), np.int32(latent.zero_point), np.float32(0))


def _server_times(answer: Answer) -> tuple[float | None, float | None]:
    """Return the milliseconds in queue and tail; None where the server reports none, or more than the answer took."""
    queue, tail = (microseconds(answer.response, name) for name in ("queue_us", "tail_us"))
    if tail is None or (queue or 0) + tail > 1e6 * answer.seconds:
        return None, None
    return None if queue is None else queue / 1000, tail / 1000


def _bytes_sent(answer: Answer, latent: int) -> BytesSent:
    """Return the bytes of an answer's request, from its size and from TCP's counters around it."""
    request = answer.request_bytes
    before, after = answer.before, answer.after
    if before is None or after is None or before.connection != after.connection:
        return BytesSent(latent, request - latent, None, request, None)
    total = after.bytes - before.bytes
    return BytesSent(latent, request - latent, total - request, total, after.segments - before.segments)


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of [classes] float32 logits."""
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()
