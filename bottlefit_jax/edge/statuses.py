"""How an attempt to get an answer may end, and what that means for the next one.

    Unavailable    nothing within the deadline; the next image may get an answer
    ProtocolError  an answer that is of no use for this image; the next image may get another
    UserError      permanent: another head, a wrong token, a certificate; no further request is worth sending

Every status of gRPC is in one of the three tables below.
"""

import enum
from typing import Any

import grpc

_Code = grpc.StatusCode

# Within the deadline. NOT_FOUND: a model that is being replaced is unloaded for a moment. CANCELLED: a server that
# stopped, or gRPC's own limits of a full server. DEADLINE_EXCEEDED: the server's time-out may be shorter than ours.
RETRYABLE = frozenset(
    {
        _Code.UNAVAILABLE,
        _Code.CANCELLED,
        _Code.RESOURCE_EXHAUSTED,
        _Code.NOT_FOUND,
        _Code.ABORTED,
        _Code.DEADLINE_EXCEEDED,
    }
)
THIS_IMAGE = frozenset(
    {
        _Code.INTERNAL,
        _Code.UNKNOWN,
        _Code.INVALID_ARGUMENT,
        _Code.OUT_OF_RANGE,
        _Code.DATA_LOSS,
        _Code.ALREADY_EXISTS,
    }
)
PERMANENT = frozenset(
    {
        _Code.UNAUTHENTICATED,
        _Code.PERMISSION_DENIED,
        _Code.FAILED_PRECONDITION,
        _Code.UNIMPLEMENTED,
    }
)
# A call that ends so may have lost its connection; the others were answered.
BROKEN = frozenset({_Code.UNAVAILABLE, _Code.CANCELLED})
_TOO_LARGE = "larger than max"  # gRPC's words for a message above the receiver's limit, which stays too large


class NotYet(Exception):
    """An attempt that may succeed a little later; its text says why."""


class Kind(enum.Enum):
    """What a status means for the request and for those after it."""

    RETRYABLE = enum.auto()
    THIS_IMAGE = enum.auto()
    PERMANENT = enum.auto()


def kind_of(code: grpc.StatusCode, details: str) -> Kind:
    """The kind of a status with the server's `details`."""
    if code is _Code.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
        return Kind.THIS_IMAGE
    if code in RETRYABLE:
        return Kind.RETRYABLE
    return Kind.THIS_IMAGE if code in THIS_IMAGE else Kind.PERMANENT


def code_of(error: Any) -> grpc.StatusCode:
    """The status of a grpc.RpcError, whose class does not declare it."""
    return error.code()
