"""What the device says about an image: its classes, how long each step took, and what was sent."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bottlefit_jax.edge.channel import Answer
from bottlefit_jax.protocol.names import DECODE_US, QUEUE_US, TAIL_US
from bottlefit_jax.protocol.response_checks import microseconds


@dataclass(frozen=True)
class Timings:
    """The time of each step, in milliseconds.

    Attributes:
        preprocess: decoding, and resizing to the network's input.
        head: the head; the whole network in a local run.
        quantizer: from the head's output to the latent; 0 for an int8 head, whose output is the latent.
        encode: from the latent to the payload; 0 at the rate "raw".
        network: from the request to the answer, with retries, without the next three where these are known.
        queue, tail: on the server; None where the server does not report them.
        decode: of the batch's payloads on the server, before the tail; None where the server does not report it.
        total: all of it.
    """

    preprocess: float
    head: float
    quantizer: float
    encode: float
    network: float
    queue: float | None
    decode: float | None
    tail: float | None
    total: float


@dataclass(frozen=True)
class BytesSent:
    """The bytes that the device sent for one image; `total` is the sum of the other three byte counts.

    Attributes:
        payload: the coded latent, or its values themselves, one byte each.
        protocol: the rest of the serialised request.
        transport: all else that was written to TCP: HTTP/2, TLS, and what was sent again. Negative where gRPC's
            compression saved more than that. None where the system does not count it.
        total: of the image.
        segments: TCP segments, acknowledgements included. Each also has about 52 bytes of TCP and IPv4 headers,
            which are in none of these numbers. None where the system does not count them.
    """

    payload: int
    protocol: int
    transport: int | None
    total: int
    segments: int | None


@dataclass(frozen=True)
class Route:
    """The way that an image took, and why.

    Attributes:
        path: the id of the rate that it was sent at, "raw", or "local".
        reason: in words.
        expected_ms: milliseconds in which an answer was expected; None where nothing was.
        likely: with which probability it was expected by the deadline, likewise.
    """

    path: str
    reason: str
    expected_ms: float | None = None
    likely: float | None = None


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: the name of the likeliest class; its index where the bundle has no labels.
        index: of the likeliest class.
        probability: its softmax.
        top: the likeliest classes as (label, index, probability), the likeliest first; as many as were asked for.
        timings: of each step.
        bytes_sent: by the device.
        probabilities: [classes] float32, the softmax; None where the server sent the likeliest classes alone.
        route: that the image took.
    """

    label: str
    index: int
    probability: float
    timings: Timings
    bytes_sent: BytesSent
    top: tuple[tuple[str, int, float], ...] = field(repr=False)
    probabilities: np.ndarray | None = field(repr=False, compare=False)
    route: Route = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the values as the command prints them; "top" only where it has more than one class."""
        values = {
            "label": self.label,
            "index": self.index,
            "probability": self.probability,
            "timings": asdict(self.timings),
            "bytes_sent": asdict(self.bytes_sent),
            "route": asdict(self.route),
        }
        if len(self.top) > 1:
            values["top"] = [dict(zip(("label", "index", "probability"), row, strict=True)) for row in self.top]
        return values


def server_times(answer: Answer) -> tuple[float | None, float | None, float | None]:
    """Return the milliseconds in queue, decoder and tail; None where the server reports none, or more than all took."""
    queue, decode, tail = (microseconds(answer.response, name) for name in (QUEUE_US, DECODE_US, TAIL_US))
    if tail is None or (queue or 0) + (decode or 0) + tail > 1e6 * answer.seconds:
        return None, None, None
    return None if queue is None else queue / 1000, None if decode is None else decode / 1000, tail / 1000


def bytes_sent(answer: Answer) -> BytesSent:
    """Return the bytes of an answer's request, from its size and from TCP's counters around it."""
    request, payload = answer.request_bytes, answer.content_bytes
    before, after = answer.before, answer.after
    if before is None or after is None or before.connection != after.connection:
        return BytesSent(payload, request - payload, None, request, None)
    total = after.bytes - before.bytes
    return BytesSent(payload, request - payload, total - request, total, after.segments - before.segments)
