"""Which status an error has over REST and over gRPC: one table for both, as Triton's two agree."""

from __future__ import annotations

from typing import NamedTuple

from edgefleet.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    CancelledError,
    ConflictError,
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
    WaitTimeoutError,
)


class Status(NamedTuple):
    """HTTP's number and gRPC's name."""

    http: int
    grpc: str


INTERNAL = Status(500, "INTERNAL")
# The first that fits. Triton answers what is there already with 400 (http_server.cc).
_TABLE: tuple[tuple[type[EdgeFleetError], Status], ...] = (
    (LimitExceededError, Status(413, "RESOURCE_EXHAUSTED")),
    (InvalidInputError, Status(400, "INVALID_ARGUMENT")),
    (NotFoundError, Status(404, "NOT_FOUND")),
    (AlreadyExistsError, Status(400, "ALREADY_EXISTS")),
    (AccessDeniedError, Status(400, "PERMISSION_DENIED")),
    (UnsupportedError, Status(501, "UNIMPLEMENTED")),
    (UnavailableError, Status(503, "UNAVAILABLE")),
    (WaitTimeoutError, Status(503, "DEADLINE_EXCEEDED")),
    (CancelledError, Status(503, "CANCELLED")),
    (ConflictError, Status(400, "FAILED_PRECONDITION")),
)


def status_of(error: EdgeFleetError) -> Status:
    """The statuses that tell a client about this error."""
    return next((status for kind, status in _TABLE if isinstance(error, kind)), INTERNAL)


def message_of(error: EdgeFleetError) -> str:
    """What went wrong and what to do about it."""
    return error.message if error.cure is None else f"{error.message}; {error.cure}"
