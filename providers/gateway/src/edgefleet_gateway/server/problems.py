"""Refusals as problem documents (RFC 9457)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from edgefleet.errors import (
    AccessDeniedError,
    ConflictError,
    EdgeFleetError,
    IntegrityError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)
from edgefleet.protocol.gateway import PROBLEM_TYPE, Problem
from edgefleet_gateway import joining

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRY_S = 10  # seconds after which a device may ask again, where nothing better is known

_STATUSES: tuple[tuple[type[EdgeFleetError], int, str], ...] = (
    (UnavailableError, 503, "what this gateway needs is away"),
    (StorageFullError, 507, "no room left"),
    (LimitExceededError, 413, "too large"),
    (InvalidInputError, 400, "malformed"),
    (IntegrityError, 400, "other content than its digest says"),
    (NotFoundError, 404, "not there"),
    (ConflictError, 409, "somebody else was first"),
    # The gateway's own permissions, which the device can do nothing about.
    (AccessDeniedError, 503, "what this gateway needs refuses it"),
)


class RefusedError(Exception):
    """A request isn't answered as it was asked.

    Args:
        status: of HTTP.
        title: what is wrong.
        detail: what helps.
        code: what devices act upon; one of `edgefleet.protocol.gateway`.
        headers: beside those of every problem.
    """

    def __init__(
        self,
        status: int,
        title: str,
        *,
        detail: str = "",
        code: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(title)
        self.problem = Problem(title=title, status=status, detail=detail, code=code)
        self.headers = dict(headers or {})
        if status in (429, 503, 507):
            self.headers.setdefault("Retry-After", str(RETRY_S))


def refusal_of(error: EdgeFleetError) -> RefusedError:
    """How an error of ours is told to a device; nothing of the inside but its message and cure."""
    if isinstance(error, joining.RefusedError):
        said = error.problem
        return RefusedError(said.status, said.title, detail=said.detail, code=said.code)
    for kind, usual, title in _STATUSES:
        if isinstance(error, kind):
            # What this gateway stands before is no business of devices.
            detail = "" if usual == 503 else ". ".join(filter(None, (error.message, error.cure)))
            return RefusedError(usual, title, detail=detail[:500])
    return RefusedError(500, "this gateway failed")


def problem_body(problem: Problem) -> bytes:
    """A problem document."""
    return msgspec.json.encode(problem)


def answer_to(refused: RefusedError, *, last: bool) -> Response:
    """The answer to a refused request.

    Args:
        refused: why.
        last: whether the connection ends with it, such as when a body wasn't read.
    """
    headers = dict(refused.headers)
    headers["Cache-Control"] = "no-store"
    if last:
        headers["Connection"] = "close"
    return Response(
        problem_body(refused.problem),
        status_code=refused.problem.status,
        media_type=PROBLEM_TYPE,
        headers=headers,
    )
