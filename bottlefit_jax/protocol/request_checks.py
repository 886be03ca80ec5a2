"""Checks of ModelInfer requests on the server: a bad request is refused here, before anything is allocated for it.

Messages only, no sockets. Each function reads one part of a request and raises `Refused` where it is invalid. The input
is checked in `input_checks.py`.
"""

import re
import time
from typing import Any

import grpc

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.errors import BottleFitError, quote
from bottlefit_jax.protocol.classification import DEFAULT, Output
from bottlefit_jax.protocol.names import (
    CLASSIFICATION,
    HEAD,
    ID_DIGITS,
    IDENTITY,
    OUTPUT,
    PROBABILITIES,
    TIMEOUT,
)

OUTPUTS = (OUTPUT, PROBABILITIES, IDENTITY)


class Refused(BottleFitError):
    """A call that is not answered: the status of gRPC in `code`, and one sentence that says why."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code


def invalid(message: str) -> Refused:
    """Make a Refused with the status INVALID_ARGUMENT."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


def version_of(text: str) -> int | None:
    """Return the version that a request asks for, None where it asks for none.

    Raises:
        Refused: INVALID_ARGUMENT, `text` is not a number.
    """
    if not text:
        return None
    if len(text) > 18 or not (text.isascii() and text.isdecimal()):
        raise invalid(f"the model's version is {quote(text)}; it must be a number, or empty for the newest")
    return int(text)


def head_of(request: Any) -> str | None:
    """Return the first ID_DIGITS digits of the id of the head that made the latent, None where the request has none.

    Raises:
        Refused: INVALID_ARGUMENT, the parameter `head` is something else.
    """
    kind, value = _parameter(request, HEAD)
    if kind is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-f]{{{ID_DIGITS}}}", value):
        raise invalid(f"the parameter head is {quote(value)}; it must be the first {ID_DIGITS} digits of the head's id")
    return value


def deadline_of(request: Any, deadline: float) -> float:
    """Return the earlier one of `deadline` and the end of the request's parameter `timeout`.

    Args:
        request: `timeout` is in microseconds from now; 0 is no timeout, as in Triton.
        deadline: by time.monotonic().

    Raises:
        Refused: INVALID_ARGUMENT, the parameter is something else.
    """
    kind, value = _parameter(request, TIMEOUT)
    if kind is None:
        return deadline
    if kind not in ("int64_param", "uint64_param") or value < 0:
        raise invalid(f"the parameter timeout is {quote(value)}; it must be a whole number of microseconds, 0 for none")
    return min(deadline, time.monotonic() + value / 1e6) if value else deadline


def outputs_of(request: Any, manifest: Manifest) -> tuple[Output, ...]:
    """Return the outputs that a request asks for; the logits where it names none.

    Raises:
        Refused: INVALID_ARGUMENT, an output is unknown, named twice, or has invalid parameters.
    """
    if not request.outputs:
        return DEFAULT
    outputs: list[Output] = []
    for output in request.outputs:
        if output.name not in OUTPUTS:
            raise invalid(f"the requested output is {quote(output.name)}; it must be {', '.join(OUTPUTS)}")
        if any(output.name == other.name for other in outputs):
            raise invalid(f"the output {output.name} is requested twice; request it once")
        outputs.append(Output(output.name, _classes_of(output, manifest.model.num_classes)))
    return tuple(outputs)


def _classes_of(output: Any, classes: int) -> int:
    """Return the parameter `classification` of a requested output, 0 where it has none."""
    others = [key for key in output.parameters if key != CLASSIFICATION]
    if others:
        keys = ", ".join(sorted(map(quote, others[:3])))
        raise invalid(f"the requested output {output.name} has the parameters {keys}; it may have {CLASSIFICATION}")
    kind, value = _parameter(output, CLASSIFICATION)
    if kind is None:
        return 0
    if output.name == IDENTITY:
        raise invalid(f"{CLASSIFICATION} is requested of {IDENTITY}, which has no classes")
    if kind != "int64_param" or not 1 <= value <= classes:
        shown = quote(value)
        raise invalid(f"{CLASSIFICATION} of {output.name} is {shown}; it must be a whole number from 1 to {classes:,}")
    return value


def _parameter(message: Any, name: str) -> tuple[str | None, Any]:
    """Return the kind and the value of a parameter: (None, None) without it, ("", None) where it is empty."""
    if name not in message.parameters:
        return None, None
    parameter = message.parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    return (kind, getattr(parameter, kind)) if kind else ("", None)
