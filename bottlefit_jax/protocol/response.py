"""What a server answers to ModelInfer, checked on the device. Nothing here opens a socket.

What comes from a server is not trusted: sizes and types are checked before an array is made of it.
"""

from typing import Any

import numpy as np

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.errors import ProtocolError
from bottlefit_jax.protocol.names import ID_DIGITS, IDENTITY, OUTPUT

# Beside the logits, a response or a config holds names, labels and parameters; more than this is no server of ours.
LARGEST_REST = 1 << 20


def largest_response(manifest: Manifest) -> int:
    """Bytes above which a response is refused before it is read."""
    return 4 * manifest.model.num_classes + LARGEST_REST


def identity_problem(response: Any, manifest: Manifest, server: str, version: str) -> str | None:
    """Why a ModelInferResponse is not one of our head's tail; None where it is.

    Args:
        response: names head and tail in its parameters, or in the output `identity`.
        manifest: of our head.
        server: HOST:PORT.
        version: that the answer must be of; empty for any.
    """
    head, tail = _identity(response)
    if not head or not tail:
        return (
            f"{server} does not say which tail answered, so its answer is not used: "
            "update the server, or export its model again with --triton"
        )
    if head != manifest.head.id[:ID_DIGITS]:
        return (
            f"{server} answered with the tail of another head, {printable(head)[:12]}…; "
            f"this bundle's is {manifest.head.id[:12]}…: serve the bundle that the head is from"
        )
    if version and response.model_version not in ("", version):
        name = printable(manifest.name)
        return f"{server} answered with version {printable(response.model_version)} of {name}, not {version}"
    return None


def _identity(response: Any) -> tuple[str, str]:
    """The first hexadecimal digits of the ids of head and tail; empty where the response does not say."""
    parameters = response.parameters
    if "head" in parameters and "tail" in parameters:
        return parameters["head"].string_param[:ID_DIGITS], parameters["tail"].string_param[:ID_DIGITS]
    raw = _raw_output(response, IDENTITY)
    if raw is None or raw[0].datatype != "UINT8" or len(raw[1]) != ID_DIGITS:
        return "", ""
    return raw[1][: ID_DIGITS // 2].hex(), raw[1][ID_DIGITS // 2 :].hex()


def _raw_output(response: Any, name: str) -> tuple[Any, bytes] | None:
    """The only output of that name, and its raw bytes."""
    outputs = [(index, output) for index, output in enumerate(response.outputs) if output.name == name]
    if len(outputs) != 1:
        return None
    index, output = outputs[0]
    contents = response.raw_output_contents
    return output, contents[index] if index < len(contents) else b""


def logits_of(response: Any, manifest: Manifest) -> np.ndarray:
    """The logits in a ModelInferResponse, float32 [classes].

    Raises:
        ProtocolError: none there, of another type or shape, or not finite.
    """
    classes = manifest.model.num_classes
    logits = _raw_output(response, OUTPUT)
    if logits is None:
        names = ", ".join(printable(output.name) for output in response.outputs) or "nothing"
        raise ProtocolError(f"the server answered with {names} instead of {OUTPUT}")
    output, raw = logits
    if output.datatype != "FP32" or list(output.shape) not in ([1, classes], [classes]) or len(raw) != 4 * classes:
        raise ProtocolError(
            f"the server answered with {printable(output.datatype)} {list(output.shape)} in {len(raw):,} raw bytes; "
            f"one image's logits are FP32 [1, {classes}] in {4 * classes:,}"
        )
    values = np.frombuffer(raw, "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise ProtocolError("the server answered with logits that are NaN or infinite")
    return values


def microseconds(response: Any, name: str) -> int | None:
    """The response's parameter `name`, such as tail_us; None where the server does not say."""
    parameter = response.parameters.get(name)
    value = 0 if parameter is None else parameter.int64_param or parameter.uint64_param
    return None if parameter is None or value < 0 else value


def status_line(error: Any) -> str:
    """A status and the server's words, as one line."""
    return f"{error.code().name}: {printable(error.details() or '') or 'no reason given'}"


def printable(text: str, most: int = 300) -> str:
    """A server's words as one line that cannot steer a terminal."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text[: 4 * most]).split())
    return line if len(line) <= most else line[:most] + "…"
