"""What answers mean that are no success: the gateway's own refusals, and what isn't the gateway's.

A gateway refuses with a problem document (RFC 9457). Whether a redirect, a page of HTML or a
status 511 (RFC 6585) comes from a portal or from a load balancer that stands before the gateway,
the device can't know: either way it asks again later. That what it sent is wrong for good, so that
an event is dropped, it believes by a problem document alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConflictError,
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.documents import parse
from edgefleet.protocol.gateway import EXPIRED, PROBLEM_TYPE, REVOKED, UNKNOWN, Problem
from edgefleet.protocol.retry_after import retry_after_s
from edgefleet_runtime.channels.pull.failures import ELSE, SIGN_IN

if TYPE_CHECKING:
    from email.message import Message

    from edgefleet_runtime.channels.pull.https import Answered

MAX_SAID = 300  # characters of a problem that are repeated
_REVOKED_CURE = "have the fleet's operator invite this device again: edgefleet device enroll"
_KINDS: dict[int, type[EdgeFleetError]] = {
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: NotFoundError,
    409: ConflictError,
    410: NotFoundError,
    413: LimitExceededError,
    429: ThrottledError,
    503: ThrottledError,
    507: ThrottledError,
}


def is_json(headers: Message) -> bool:
    """Whether an answer says that it is JSON of some kind."""
    kind = headers.get_content_type()
    return kind == "application/json" or kind.endswith("+json")


def foreign(where: str) -> UnavailableError:
    """What an answer is that a gateway doesn't give."""
    return UnavailableError(f"{where} gives no answer of a gateway: {ELSE}", cure=SIGN_IN)


def refused(answered: Answered, where: str) -> EdgeFleetError:
    """What it means that a status is no success.

    Args:
        answered: by the gateway, or whoever is in its place.
        where: host that was asked, for people.
    """
    status = answered.status
    if status < 400 or status == 511 or answered.headers.get_content_type() == "text/html":
        busy = foreign(where)
        if status in {429, 502, 503, 504}:  # a load balancer's own words
            busy = ThrottledError(f"{where} is not there: HTTP {status}")
            busy.retry_after_s = retry_after_s(answered.headers.get("Retry-After"))
        return busy
    problem = _problem(answered)
    said = f"{where} says: {problem.title or f'HTTP {status}'}"
    if problem.detail:
        said = f"{said}: {problem.detail}"
    said = said[:MAX_SAID]
    if problem.code in {REVOKED, UNKNOWN}:
        return AccessDeniedError(said, cure=_REVOKED_CURE)
    if problem.code == EXPIRED:
        return AccessExpiredError(said, cure=_REVOKED_CURE)
    kind = _KINDS.get(status)
    if kind is None:
        kind = UnavailableError if status >= 500 or status == 408 else InvalidInputError
    if issubclass(kind, InvalidInputError) and not _is_problem(answered):
        return foreign(where)
    error = kind(said)
    if isinstance(error, ThrottledError):
        error.retry_after_s = retry_after_s(answered.headers.get("Retry-After"))
    return error


def _is_problem(answered: Answered) -> bool:
    return answered.headers.get_content_type() == PROBLEM_TYPE


def _problem(answered: Answered) -> Problem:
    plain = Problem(title="", status=answered.status)
    if not _is_problem(answered):
        return plain
    try:
        return parse(Problem, answered.body, "problem")
    except EdgeFleetError:
        return plain
