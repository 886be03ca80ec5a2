"""What a gRPC status means for the next attempt, and for the next image.

    retryable    another attempt may succeed; Unavailable where none did within the deadline
    this image   ProtocolError: another attempt would fail too, but the next image may be answered
    permanent    UserError: another head, a wrong token, a certificate; the next image would fail too

Every status is in one of the three tables below.
"""

import enum
from typing import Any

import grpc

_Code = grpc.StatusCode

# NOT_FOUND: a model that is being replaced is unloaded for a moment. CANCELLED: the server stopped, or gRPC's limits of
# a full server. DEADLINE_EXCEEDED: the server's time-out may be shorter than ours.
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
# After these the connection may be lost; the other statuses are answers.
BROKEN = frozenset({_Code.UNAVAILABLE, _Code.CANCELLED})
_TOO_LARGE = "larger than max"  # gRPC's message where a request is above the receiver's limit; a retry is not smaller


class NotYet(Exception):
    """An attempt failed and may succeed later; the text is the reason."""


class Kind(enum.Enum):
    """The three tables."""

    RETRYABLE = enum.auto()
    THIS_IMAGE = enum.auto()
    PERMANENT = enum.auto()


def kind_of(code: grpc.StatusCode, details: str) -> Kind:
    """Return the kind of a status that came with the server's `details`."""
    if code is _Code.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
        return Kind.THIS_IMAGE
    if code in RETRYABLE:
        return Kind.RETRYABLE
    return Kind.THIS_IMAGE if code in THIS_IMAGE else Kind.PERMANENT


def code_of(error: Any) -> grpc.StatusCode:
    """Return the status of a grpc.RpcError, whose class does not declare one."""
    return error.code()
