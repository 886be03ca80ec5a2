"""What a ModelInfer request must be, checked before anything is allocated for it. Messages alone, no sockets."""

import math
import re
import time
from typing import Any

import grpc
import numpy as np

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.bundle.schema import quote
from bottlefit_jax.protocol.names import ID_DIGITS, INPUT, OUTPUT


class Refused(Exception):
    """A call's status: a grpc.StatusCode, and one sentence."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code


def invalid(message: str) -> Refused:
    """INVALID_ARGUMENT."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


def version_of(text: str) -> int | None:
    """The version that a request asks for, None where it does not.

    Raises:
        Refused: it is no number.
    """
    if not text:
        return None
    if len(text) > 18 or not (text.isascii() and text.isdecimal()):
        raise invalid(f"the model's version is {quote(text)}; it must be a number, or empty for the newest")
    return int(text)


def head_of(request: Any) -> str | None:
    """The first ID_DIGITS digits of the id of the head that made a ModelInferRequest's latent, None where it says none.

    Raises:
        Refused: INVALID_ARGUMENT, the parameter `head` is something else.
    """
    if "head" not in request.parameters:
        return None
    parameter = request.parameters["head"]
    kind = parameter.WhichOneof("parameter_choice")
    value = getattr(parameter, kind) if kind else None
    if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-f]{{{ID_DIGITS}}}", value):
        raise invalid(f"the parameter head is {quote(value)}; it must be the first {ID_DIGITS} digits of the head's id")
    return value


def deadline_of(request: Any, deadline: float) -> float:
    """The earlier of `deadline` and the end of a ModelInferRequest's parameter `timeout`, microseconds from now.

    0 is no timeout, as Triton has it.

    Raises:
        Refused: INVALID_ARGUMENT, the parameter is no such number.
    """
    if "timeout" not in request.parameters:
        return deadline
    parameter = request.parameters["timeout"]
    kind = parameter.WhichOneof("parameter_choice")
    value = getattr(parameter, kind) if kind else None
    if kind not in ("int64_param", "uint64_param") or value is None or value < 0:
        raise invalid(f"the parameter timeout is {quote(value)}; it must be a whole number of microseconds, 0 for none")
    return min(deadline, time.monotonic() + value / 1e6) if value else deadline


def latent_of(request: Any, manifest: Manifest, max_batch: int) -> np.ndarray:
    """The latents of a ModelInferRequest: [b, h, w, c] uint8, 1 <= b <= max_batch.

    Raises:
        Refused: INVALID_ARGUMENT, the first thing that is wrong.
    """
    if len(request.inputs) != 1:
        raise invalid(f"the request has {len(request.inputs)} inputs; it must have one, {INPUT}")
    tensor = request.inputs[0]
    if tensor.name != INPUT:
        raise invalid(f"the input is named {quote(tensor.name)}; it must be {INPUT}")
    if tensor.datatype != "UINT8":
        raise invalid(f"the input's datatype is {quote(tensor.datatype)}; it must be UINT8")
    shape, wanted = tuple(tensor.shape), manifest.latent.shape
    if len(shape) != 4 or shape[1:] != wanted or not 1 <= shape[0] <= max_batch:
        raise invalid(
            f"the input's shape is {quote(list(shape))}; it must be [batch, {', '.join(map(str, wanted))}] "
            f"with a batch of 1 to {max_batch}"
        )
    for key in tensor.parameters:
        if key.startswith("shared_memory"):
            raise invalid("the input is in shared memory, which this server does not take: send its contents")
    _check_outputs(request)
    return _contents(request, math.prod(shape)).reshape(shape)


def _check_outputs(request: Any) -> None:
    for output in request.outputs:
        if output.name != OUTPUT:
            raise invalid(f"the output {quote(output.name)} is asked for; there is only {OUTPUT}")
        if output.parameters:
            keys = ", ".join(sorted(map(quote, list(output.parameters)[:3])))
            raise invalid(f"the output has the parameters {keys}; this server knows none")
    if len(request.outputs) > 1:
        raise invalid(f"the output {OUTPUT} is asked for {len(request.outputs)} times")


def _contents(request: Any, size: int) -> np.ndarray:
    """[size] uint8, from the raw or the typed contents."""
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
        raise invalid(f"uint_contents has {values.max()}; a UINT8 ends at 255")
    return values.astype(np.uint8)
