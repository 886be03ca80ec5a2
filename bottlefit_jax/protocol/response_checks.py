"""Checks of ModelInfer responses on the device. Messages only, no sockets.

A server is not trusted: sizes and types are checked before an array is made of what it sent.
"""

from typing import Any

import numpy as np

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.errors import ProtocolError
from bottlefit_jax.protocol import classification
from bottlefit_jax.protocol.names import HEAD, ID_DIGITS, IDENTITY, OUTPUT, PROBABILITIES, TAIL
from bottlefit_jax.protocol.text import one_line

# Bytes for names, labels and parameters beside the numbers; a response that has more does not come from our server.
LARGEST_REST = 1 << 20
SUM_TOLERANCE = 1e-2  # of probabilities: a tail may compute in half precision


def largest_response(manifest: Manifest) -> int:
    """Return the size in bytes above which a response is refused before it is read."""
    return 4 * manifest.model.num_classes + LARGEST_REST


def identity_problem(response: Any, manifest: Manifest, server: str, version: str) -> str | None:
    """Return why a ModelInferResponse does not come from a tail of our head; None where it does.

    Args:
        response: has the ids of head and tail in its parameters, or in the output `identity`.
        manifest: of our head.
        server: HOST:PORT.
        version: of the tail that must have answered; empty for any.
    """
    head, tail = _ids_of(response)
    if not head or not tail:
        return (
            f"{server} does not say which tail answered, so its answer is not used: "
            "update the server, or export its model again with --triton"
        )
    if head != manifest.head.id[:ID_DIGITS]:
        return (
            f"{server} answered with the tail of another head, {one_line(head)[:12]}…; "
            f"this bundle's is {manifest.head.id[:12]}…: serve the bundle that the head is from"
        )
    if version and response.model_version not in ("", version):
        name = one_line(manifest.name)
        return f"{server} answered with version {one_line(response.model_version)} of {name}, not {version}"
    return None


def _ids_of(response: Any) -> tuple[str, str]:
    """Return the first ID_DIGITS digits of the ids of head and tail; empty where the response has none."""
    parameters = response.parameters
    if HEAD in parameters and TAIL in parameters:
        return parameters[HEAD].string_param[:ID_DIGITS], parameters[TAIL].string_param[:ID_DIGITS]
    raw = _raw_output(response, IDENTITY)
    if raw is None or raw[0].datatype != "UINT8" or len(raw[1]) != ID_DIGITS:
        return "", ""
    return raw[1][: ID_DIGITS // 2].hex(), raw[1][ID_DIGITS // 2 :].hex()


def _raw_output(response: Any, name: str) -> tuple[Any, bytes] | None:
    """Return the only output of that name and its raw bytes; None where there is none, or several."""
    outputs = [(index, output) for index, output in enumerate(response.outputs) if output.name == name]
    if len(outputs) != 1:
        return None
    index, output = outputs[0]
    contents = response.raw_output_contents
    return output, contents[index] if index < len(contents) else b""


def vector_of(response: Any, manifest: Manifest, name: str = OUTPUT) -> np.ndarray:
    """Return the logits or the probabilities of a ModelInferResponse for one image.

    Args:
        response: to a request without `classification`.
        manifest: of our head.
        name: OUTPUT or PROBABILITIES.

    Returns:
        [classes] float32, finite; probabilities are between 0 and 1 and sum to 1.

    Raises:
        ProtocolError: there are none, or they have another type or shape or other values.
    """
    classes = manifest.model.num_classes
    output, raw = _output(response, name)
    if output.datatype != "FP32" or list(output.shape) not in ([1, classes], [classes]) or len(raw) != 4 * classes:
        raise ProtocolError(
            f"the server answered with {one_line(output.datatype)} {list(output.shape)} in {len(raw):,} raw bytes; "
            f"one image's {name} are FP32 [1, {classes}] in {4 * classes:,}"
        )
    values = np.frombuffer(raw, "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise ProtocolError(f"the server answered with {name} that are NaN or infinite")
    if name == PROBABILITIES and not (values.min() >= 0 and abs(float(values.sum()) - 1) < SUM_TOLERANCE):
        raise ProtocolError(f"the server answered with probabilities that sum to {float(values.sum()):g}")
    return values


def classes_of(response: Any, manifest: Manifest, count: int) -> list[tuple[int, float]]:
    """Return the likeliest classes of one image and their probabilities, from the output PROBABILITIES as texts.

    Args:
        response: to a request with `classification`.
        manifest: of our head.
        count: that was asked for.

    Returns:
        `count` pairs of index and probability, the likeliest first.

    Raises:
        ProtocolError: the answer is something else.
    """
    output, raw = _output(response, PROBABILITIES)
    if output.datatype != "BYTES" or list(output.shape) not in ([1, count], [count]):
        raise ProtocolError(
            f"the server answered with {one_line(output.datatype)} {list(output.shape)[:8]}; the {count} likeliest "
            f"classes are BYTES [1, {count}]"
        )
    try:
        return classification.read(raw, count, manifest.model.num_classes)
    except ValueError as error:
        raise ProtocolError(f"the server answered with invalid classes: {one_line(str(error))}") from None


def _output(response: Any, name: str) -> tuple[Any, bytes]:
    """Return the output of that name and its raw bytes.

    Raises:
        ProtocolError: there is none, or there are several.
    """
    output = _raw_output(response, name)
    if output is None:
        names = ", ".join(one_line(other.name) for other in response.outputs) or "nothing"
        raise ProtocolError(f"the server answered with {one_line(names)} instead of {name}")
    return output


def microseconds(response: Any, name: str) -> int | None:
    """Return the response's parameter `name`, such as TAIL_US; None where it is missing or negative."""
    parameter = response.parameters.get(name)
    value = 0 if parameter is None else parameter.int64_param or parameter.uint64_param
    return None if parameter is None or value < 0 else value
