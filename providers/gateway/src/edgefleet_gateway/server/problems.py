"""Refusals as problem documents (RFC 9457).

What is wrong with a request is found while it is read, inside `reading`. A store may raise the same
errors about what it holds or can't hold: a device that was told so would give up what it sends, so
it is told to come again.
"""

from __future__ import annotations

from contextlib import contextmanager
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
    from collections.abc import Iterator, Mapping

RETRY_S = 10  # seconds after which a device may ask again, where nothing better is known

_REFUSES = "what this gateway needs refuses it"
_STATUSES: tuple[tuple[type[EdgeFleetError], int, str], ...] = (
    (UnavailableError, 503, "what this gateway needs is away"),
    (StorageFullError, 507, "no room left"),
    (ConflictError, 409, "somebody else was first"),
    (AccessDeniedError, 503, _REFUSES),
    (NotFoundError, 503, _REFUSES),
    (InvalidInputError, 503, _REFUSES),
    (IntegrityError, 503, _REFUSES),
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
            return RefusedError(usual, title, detail="" if usual == 503 else _said(error))
    return RefusedError(500, "this gateway failed")


@contextmanager
def reading() -> Iterator[None]:
    """Around what reads a request: an error inside is the sender's.

    Raises:
        RefusedError: it is malformed, or longer than it may be.
    """
    try:
        yield
    except LimitExceededError as error:
        raise RefusedError(413, "too large", detail=_said(error)) from error
    except InvalidInputError as error:
        raise RefusedError(400, "malformed", detail=_said(error)) from error


def _said(error: EdgeFleetError) -> str:
    return ". ".join(filter(None, (error.message, error.cure)))[:500]


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
