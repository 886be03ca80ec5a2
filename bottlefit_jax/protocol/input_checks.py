"""Checks of the input of ModelInfer requests on the server: raw latents, or payloads of which only the header is read.

Messages only, no sockets. What a shape or a length claims is compared with the bytes that are there; nothing is
allocated by it.
"""

import math
from typing import Any

import numpy as np

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rates import Rates
from bottlefit_jax.errors import quote
from bottlefit_jax.protocol.byte_tensors import unpack
from bottlefit_jax.protocol.names import INPUT, PAYLOAD
from bottlefit_jax.protocol.request_checks import invalid

TYPED = {"UINT8": "uint_contents", "BYTES": "bytes_contents"}  # the field of typed contents


def input_of(
    request: Any, manifest: Manifest, *, max_batch: int, rates: Rates | None = None
) -> np.ndarray | list[bytes]:
    """Return the latents or the payloads of a ModelInferRequest.

    Args:
        request: with raw or typed contents.
        manifest: of the tail that the request is for.
        max_batch: the largest batch that the server takes.
        rates: of the tail's bundle; None where it has none.

    Returns:
        [b, h, w, c] uint8, or b payloads whose headers are valid; 1 <= b <= max_batch.

    Raises:
        Refused: INVALID_ARGUMENT, with the first problem.
    """
    if len(request.inputs) != 1:
        raise invalid(f"the request has {len(request.inputs)} inputs; it must have one, {INPUT} or {PAYLOAD}")
    tensor = request.inputs[0]
    for key in tensor.parameters:
        if key.startswith("shared_memory"):
            raise invalid("the input is in shared memory, which this server does not support: send its contents")
    if tensor.name == INPUT:
        return _latents(request, manifest, max_batch)
    if tensor.name != PAYLOAD:
        raise invalid(f"the input is named {quote(tensor.name)}; it must be {INPUT} or {PAYLOAD}")
    if rates is None:
        raise invalid(f"{manifest.name} has no rates, so it takes no {PAYLOAD}: send the raw latent as {INPUT}")
    payloads = _payloads(request, rates, max_batch)
    for index, payload in enumerate(payloads):
        problem = wire.header_problem(payload, rates)
        if problem is not None:
            raise invalid(problem if len(payloads) == 1 else f"payload {index}: {problem}")
    return payloads


def _latents(request: Any, manifest: Manifest, max_batch: int) -> np.ndarray:
    tensor, latent_shape = request.inputs[0], manifest.latent.shape
    if tensor.datatype != "UINT8":
        raise invalid(f"the input's datatype is {quote(tensor.datatype)}; it must be UINT8")
    shape = tuple(tensor.shape)
    if len(shape) != 4 or shape[1:] != latent_shape or not 1 <= shape[0] <= max_batch:
        raise invalid(
            f"the input's shape is {quote(list(shape))}; it must be [batch, {', '.join(map(str, latent_shape))}] "
            f"with a batch of 1 to {max_batch}"
        )
    return np.frombuffer(_uint8(request, math.prod(shape)), np.uint8).reshape(shape)


def _payloads(request: Any, rates: Rates, max_batch: int) -> list[bytes]:
    tensor = request.inputs[0]
    shape, largest = tuple(tensor.shape), wire.HEADER + rates.size
    if tensor.datatype == "BYTES":
        if len(shape) != 2 or not 1 <= shape[0] <= max_batch or shape[1] != 1:
            raise invalid(
                f"the payload's shape is {quote(list(shape))}; as BYTES it must be [batch, 1] "
                f"with a batch of 1 to {max_batch}"
            )
        return _bytes(request, shape[0])
    if tensor.datatype != "UINT8":
        raise invalid(f"the payload's datatype is {quote(tensor.datatype)}; it must be BYTES or UINT8")
    if len(shape) != 2 or shape[0] != 1 or not 1 <= shape[1] <= largest:
        raise invalid(
            f"the payload's shape is {quote(list(shape))}; as UINT8 it must be [1, n] with n from 1 to {largest:,}"
        )
    return [_uint8(request, shape[1])]


def _uint8(request: Any, size: int) -> bytes:
    """Return the `size` values of a UINT8 input."""
    tensor = request.inputs[0]
    raw = _raw(request)
    if raw is not None:
        if len(raw) != size:
            raise invalid(f"the raw contents have {len(raw):,} bytes; the shape {list(tensor.shape)} has {size:,}")
        return raw
    contents = tensor.contents.uint_contents
    if len(contents) != size:
        raise invalid(f"uint_contents has {len(contents):,} numbers; the shape {list(tensor.shape)} has {size:,}")
    values = np.fromiter(contents, np.uint32, size)
    if values.max() > 255:
        raise invalid(f"uint_contents has {values.max()}; the largest UINT8 is 255")
    return values.astype(np.uint8).tobytes()


def _bytes(request: Any, count: int) -> list[bytes]:
    """Return the `count` elements of a BYTES input."""
    raw = _raw(request)
    if raw is None:
        contents = request.inputs[0].contents.bytes_contents
        if len(contents) != count:
            raise invalid(f"bytes_contents has {len(contents):,} elements; the shape has {count:,}")
        return list(contents)
    try:
        return unpack(raw, count)
    except ValueError as error:
        raise invalid(str(error)) from None


def _raw(request: Any) -> bytes | None:
    """Return the raw contents of the one input; None where it has typed contents of its datatype."""
    raw, tensor = request.raw_input_contents, request.inputs[0]
    typed = [field.name for field, _ in tensor.contents.ListFields()]
    if raw and typed:
        raise invalid("the input has raw and typed contents; it must have one of them")
    if len(raw) > 1:
        raise invalid(f"the request has {len(raw)} raw contents for one input")
    if raw:
        return raw[0]
    if not typed:
        raise invalid("the input has no contents")
    if typed != [TYPED[tensor.datatype]]:
        raise invalid(f"the contents are {', '.join(typed)}; {tensor.datatype} goes into {TYPED[tensor.datatype]}")
    return None
