"""The device: an image goes in, its head runs here, its tail on a server, and a Prediction comes out.

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
from bottlefit_jax.edge.connection import Connection
from bottlefit_jax.edge.image import ImageError, prepare
from bottlefit_jax.edge.interpreter import Interpreter
from bottlefit_jax.edge.link import Answer, Deadline
from bottlefit_jax.errors import ProtocolError, Unavailable, UserError
from bottlefit_jax.protocol.request import infer_request
from bottlefit_jax.protocol.response_checks import logits_of, microseconds

__all__ = ["BytesSent", "EdgeClient", "ImageError", "Prediction", "ProtocolError", "Timings", "Unavailable"]

LONGEST_DEADLINE_MS, MOST_THREADS = 3_600_000, 1024


@dataclass(frozen=True)
class Timings:
    """Milliseconds.

    `quantizer` is 0 for an int8 head, whose output is the latent. `network` is from the request's leaving to its
    answer, retries included, without `queue` and `tail`; where the server does not tell those, they are None and
    `network` holds them. A local run is all `head`.
    """

    prepare: float
    head: float
    quantizer: float
    network: float
    queue: float | None
    tail: float | None
    total: float


@dataclass(frozen=True)
class BytesSent:
    """Bytes of one image that left the device; `total` is the sum of the three.

    Attributes:
        latent: the values themselves, one byte each.
        protocol: the rest of the serialised request.
        transport: all else that TCP was given: HTTP/2, TLS, and whatever was sent again. Below 0 where gRPC's
            compression saved more than that. None where the system does not tell.
        segments: TCP segments, acknowledgements included: each has some 52 bytes of TCP and IPv4 headers, which no
            number here counts. None where the system does not tell.
    """

    latent: int
    protocol: int
    transport: int | None
    total: int
    segments: int | None


@dataclass(frozen=True)
class Prediction:
    """`probability` is the softmax at `index`; `label` is its name, or the index where the bundle has none."""

    label: str
    index: int
    probability: float
    timings: Timings
    bytes_sent: BytesSent
    probabilities: np.ndarray = field(repr=False, compare=False)  # float32 [classes]


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
        """Read manifest.json and the head; connects nothing yet.

        Args:
            bundle: the folder. Only manifest.json and the file that runs here need to be in it.
            server: HOST:PORT; None where only `infer_local` is called.
            deadline_ms: milliseconds that an image may take, retries included.
            compress: requests, by gRPC's gzip.
            tls: encrypt, and trust public authorities; implied by the next three.
            tls_ca: PEM file of the only authorities to trust.
            tls_cert, tls_key: PEM files that prove to the server who this is.
            token: sent as a bearer token.
            threads: that the head may use.
            version: of the tail; None is the newest that the server has for this head.

        Raises:
            UserError: something of it cannot be used.
        """
        if not 0 < deadline_ms <= LONGEST_DEADLINE_MS:  # neither is NaN
            raise UserError(f"deadline_ms is {deadline_ms}: give more than 0 and at most {LONGEST_DEADLINE_MS:,}")
        if not 1 <= threads <= MOST_THREADS:
            raise UserError(f"threads is {threads}: give 1 to {MOST_THREADS:,}")
        if version is not None and version < 1:
            raise UserError(f"version is {version}: give 1 or more, or none for the newest tail")
        self._folder, self._threads, self._deadline = Path(bundle), threads, deadline_ms / 1000
        self._whole: Interpreter | None = None
        self._head: Interpreter | None = None
        self._connection: Connection | None = None
        if server is None:
            self.manifest = read_bundle(bundle, verify=lambda manifest: []).manifest
            return
        found = read_bundle(bundle, verify=lambda manifest: [manifest.head.litert])
        self.manifest = found.manifest
        self._head = Interpreter(found.path(self.manifest.head.litert), threads)
        _check_head(self._head, self.manifest)
        encrypted = tls or any(path is not None for path in (tls_ca, tls_cert, tls_key))
        files = tls_files.check_files(ca=tls_ca, cert=tls_cert, key=tls_key) if encrypted else None
        self._connection = Connection(
            self.manifest, server, files=files, token=token, compress=compress, version=version
        )

    def connect(self) -> None:
        """Find out within the deadline whether the server's tail belongs to the head; `infer` does it otherwise.

        Raises:
            Unavailable: the server did not answer within the deadline.
            UserError: the tail belongs to another head, or the server refuses us.
        """
        self._server().connect(Deadline(self._deadline))

    def infer(self, image: Any) -> Prediction:
        """Classifies an image: a path, a Pillow image, or a uint8 [H, W, 3] array in RGB order, of any size.

        Raises:
            ImageError: the image cannot be used.
            Unavailable: the server did not answer within the deadline.
            ProtocolError: its answer to this image is an error or nonsense.
            UserError: the tail belongs to another head, or the server refuses us; the next image would end alike.
        """
        connection, began = self._server(), time.perf_counter()
        deadline = Deadline(self._deadline)
        assert self._head is not None
        pixels = prepare(image, self.manifest.image)
        prepared = time.perf_counter()
        latent = self._head.run(pixels)
        ran = quantized = time.perf_counter()
        if self._head.scale is None:
            latent = quantizer.quantize(latent, _affine(self.manifest), bits=self.manifest.latent.bits)
            quantized = time.perf_counter()
        request = infer_request(self.manifest, latent)
        answer = connection.infer(request, deadline)
        probabilities = _softmax(logits_of(answer.response, self.manifest))
        answered = time.perf_counter()
        queue, tail = _on_the_server(answer)
        timings = Timings(
            prepare=1000 * (prepared - began),
            head=1000 * (ran - prepared),
            quantizer=1000 * (quantized - ran),
            network=1000 * (answered - quantized) - (queue or 0) - (tail or 0),
            queue=queue,
            tail=tail,
            total=1000 * (answered - began),
        )
        return self._prediction(probabilities, timings, _bytes_sent(answer, latent.nbytes))

    def infer_local(self, image: Any) -> Prediction:
        """Classifies an image with the whole network on this device, from the bundle's local file.

        Raises:
            ImageError: the image cannot be used.
            UserError: the bundle has no local file, or it cannot be used.
        """
        if self._whole is None:
            self._whole = self._load_whole()
        began = time.perf_counter()
        pixels = prepare(image, self.manifest.image)
        prepared = time.perf_counter()
        probabilities = _softmax(self._whole.run(pixels))
        ran = time.perf_counter()
        head, total = 1000 * (ran - prepared), 1000 * (ran - began)
        timings = Timings(total - head, head, quantizer=0.0, network=0.0, queue=0.0, tail=0.0, total=total)
        return self._prediction(probabilities, timings, BytesSent(0, 0, 0, 0, 0))

    def top(self, prediction: Prediction, count: int) -> list[tuple[str, int, float]]:
        """The `count` likeliest classes of a prediction: label, index and probability, the likeliest first."""
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

    def _server(self) -> Connection:
        if self._connection is None:
            raise UserError("no server was given; without one there is only infer_local")
        return self._connection

    def _load_whole(self) -> Interpreter:
        """The local file's interpreter; its sha256 is checked now, as most devices never come here."""
        if self.manifest.local is None:
            raise UserError(f"{self._folder} has no network to run locally: export it with --local")
        name = self.manifest.local.litert
        whole = Interpreter(read_bundle(self._folder, verify=lambda manifest: [name]).path(name), self._threads)
        _check_file(whole, name, self.manifest, (self.manifest.model.num_classes,), (np.float32,))
        return whole

    def _label(self, index: int) -> str:
        return self.manifest.labels[index] if self.manifest.labels else str(index)

    def _prediction(self, probabilities: np.ndarray, timings: Timings, bytes_sent: BytesSent) -> Prediction:
        best = int(probabilities.argmax())
        return Prediction(self._label(best), best, float(probabilities[best]), timings, bytes_sent, probabilities)


def _check_head(head: Interpreter, manifest: Manifest) -> None:
    """Raise UserError where the head's file is not what the manifest says."""
    latent = manifest.latent
    _check_file(head, manifest.head.litert, manifest, latent.shape, (np.uint8, np.float32))
    if head.scale is not None and (
        head.zero_point != latent.zero_point or not np.isclose(head.scale, latent.scale, rtol=1e-5, atol=0)
    ):
        raise UserError(
            f"{manifest.head.litert} quantises with scale {head.scale:g} and zero point {head.zero_point}, "
            f"its manifest says {latent.scale:g} and {latent.zero_point}"
        )


def _check_file(file: Interpreter, name: str, manifest: Manifest, shape: tuple, dtypes: tuple) -> None:
    """Raise UserError where a LiteRT file does not take the manifest's image or give something else."""
    image = (manifest.image.height, manifest.image.width, 3)
    if file.input_shape != image or file.output_shape != tuple(shape) or file.output_dtype not in dtypes:
        raise UserError(
            f"{name} makes {file.output_dtype} {list(file.output_shape)} of an image of {list(file.input_shape)}; "
            f"its manifest says {list(shape)} of {list(image)}"
        )


def _affine(manifest: Manifest) -> quantizer.Affine:
    """The manifest's, where the tail undoes it."""
    latent = manifest.latent
    return quantizer.Affine(np.float32(latent.scale), np.int32(latent.zero_point), np.float32(0))


def _on_the_server(answer: Answer) -> tuple[float | None, float | None]:
    """Milliseconds in the queue and in the tail; None where the server does not say, or says what cannot be."""
    queue, tail = (microseconds(answer.response, name) for name in ("queue_us", "tail_us"))
    if tail is None or (queue or 0) + tail > 1e6 * answer.seconds:
        return None, None
    return None if queue is None else queue / 1000, tail / 1000


def _bytes_sent(answer: Answer, latent: int) -> BytesSent:
    """From the request's size and TCP's counters around it."""
    request = answer.request_bytes
    before, after = answer.before, answer.after
    if before is None or after is None or before.connection != after.connection:
        return BytesSent(latent, request - latent, None, request, None)
    total = after.bytes - before.bytes
    return BytesSent(latent, request - latent, total - request, total, after.segments - before.segments)


def _softmax(logits: np.ndarray) -> np.ndarray:
    """float32 [classes]."""
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()
