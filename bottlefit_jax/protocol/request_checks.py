"""Checks of ModelInfer requests on the server: a bad request is refused here, before anything is allocated for it.

Messages only, no sockets. Each function reads one part of a request and raises `Refused` where it is invalid.
"""

import math
import re
import time
from typing import Any

import grpc
import numpy as np

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.bundle.schema import quote
from bottlefit_jax.errors import BottleFitError
from bottlefit_jax.protocol.names import HEAD, ID_DIGITS, INPUT, OUTPUT, TIMEOUT


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


def latent_of(request: Any, manifest: Manifest, max_batch: int) -> np.ndarray:
    """Return the latents of a ModelInferRequest.

    Args:
        request: with raw or typed contents.
        manifest: of the tail that the request is for.
        max_batch: the largest batch that the server takes.

    Returns:
        [b, h, w, c] uint8, 1 <= b <= max_batch.

    Raises:
        Refused: INVALID_ARGUMENT, with the first problem.
    """
    if len(request.inputs) != 1:
        raise invalid(f"the request has {len(request.inputs)} inputs; it must have one, {INPUT}")
    tensor = request.inputs[0]
    if tensor.name != INPUT:
        raise invalid(f"the input is named {quote(tensor.name)}; it must be {INPUT}")
    if tensor.datatype != "UINT8":
        raise invalid(f"the input's datatype is {quote(tensor.datatype)}; it must be UINT8")
    shape, latent_shape = tuple(tensor.shape), manifest.latent.shape
    if len(shape) != 4 or shape[1:] != latent_shape or not 1 <= shape[0] <= max_batch:
        raise invalid(
            f"the input's shape is {quote(list(shape))}; it must be [batch, {', '.join(map(str, latent_shape))}] "
            f"with a batch of 1 to {max_batch}"
        )
    for key in tensor.parameters:
        if key.startswith("shared_memory"):
            raise invalid("the input is in shared memory, which this server does not support: send its contents")
    _check_outputs(request)
    return _contents(request, math.prod(shape)).reshape(shape)


def _parameter(request: Any, name: str) -> tuple[str | None, Any]:
    """Return the kind and the value of a parameter: (None, None) without it, ("", None) where it is empty."""
    if name not in request.parameters:
        return None, None
    parameter = request.parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    return (kind, getattr(parameter, kind)) if kind else ("", None)


def _check_outputs(request: Any) -> None:
    for output in request.outputs:
        if output.name != OUTPUT:
            raise invalid(f"the requested output is {quote(output.name)}; it must be {OUTPUT}")
        if output.parameters:
            keys = ", ".join(sorted(map(quote, list(output.parameters)[:3])))
            raise invalid(f"the requested output has the parameters {keys}; it must have none")
    if len(request.outputs) > 1:
        raise invalid(f"the output {OUTPUT} is requested {len(request.outputs)} times; request it once")


def _contents(request: Any, size: int) -> np.ndarray:
    """Return the raw or typed contents as [size] uint8."""
    raw, tensor = request.raw_input_contents, request.inputs[0]
    typed = [(field.name, len(value)) for field, value in tensor.contents.ListFields()]
    if raw and typed:
        raise invalid("the input has raw and typed contents; it must have one of them")
    if raw:
        if len(raw) != 1:
            raise invalid(f"the request has {len(raw)} raw contents for one input")
        if len(raw[0]) != size:
            raise invalid(f"the raw contents have {len(raw[0]):,} bytes; the shape {list(tensor.shape)} has {size:,}")
        return np.frombuffer(raw[0], np.uint8)
    if not typed:
        raise invalid("the input has no contents")
    if [name for name, _ in typed] != ["uint_contents"]:
        raise invalid(f"the contents are {', '.join(name for name, _ in typed)}; UINT8 goes into uint_contents")
    ((_, count),) = typed
    if count != size:
        raise invalid(f"uint_contents has {count:,} numbers; the shape {list(tensor.shape)} has {size:,}")
    values = np.fromiter(tensor.contents.uint_contents, np.uint32, count)
    if values.max() > 255:
        raise invalid(f"uint_contents has {values.max()}; the largest UINT8 is 255")
    return values.astype(np.uint8)
