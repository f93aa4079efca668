"""What a refused call's answer says, whichever of Google's libraries brings it."""

from __future__ import annotations

from typing import Any

from edgefleet.protocol import retry_after
from edgefleet.protocol.typed import UNREADABLE, decoder


def status_of(error: Exception) -> int:
    """The HTTP status of an error that a service answered; 0 for any other error."""
    code = getattr(error, "code", None)
    if isinstance(code, int):
        return code
    status = getattr(_response(error), "status_code", 0)
    return status if isinstance(status, int) else 0


def said_by(error: Exception) -> str:
    """What the service says, for people; empty where none answered."""
    response = _response(error)
    text = str(getattr(response, "text", "") or "")
    found = _error_in(text)
    if found is not None:
        return str(found.get("message", "")) if isinstance(found, dict) else str(found)
    if response is not None:
        return text.strip()  # the library's own words have the address, which may be a secret
    return str(getattr(error, "message", "") or "")


def reason_of(error: Exception) -> str:
    """The service's own word for why it says no, such as ``rateLimitExceeded``; may be empty."""
    found = _error_in(str(getattr(_response(error), "text", "") or ""))
    try:
        return str(found["errors"][0]["reason"])
    except (KeyError, TypeError, IndexError):
        return ""


def operation_of(error: Exception) -> str:
    """Method and path that were called; empty where that isn't known.

    Never the query, which may be a secret.
    """
    request = getattr(_response(error), "request", None)
    url = str(getattr(request, "url", "") or "").partition("?")[0]
    path = "/" + url.partition("://")[2].partition("/")[2]
    return f"{getattr(request, 'method', '')} {path}".strip() if request is not None else ""


def retry_after_s(error: Exception) -> float | None:
    """Seconds that the service asks to wait, by a number or a date; None where it doesn't."""
    told = getattr(_response(error), "headers", {}).get("Retry-After")
    return retry_after.retry_after_s(None if told is None else str(told))


def _error_in(text: str) -> Any:  # noqa: ANN401 - an object, or a word
    """What the JSON of an answer has as ``error``; None where it has none, or is none."""
    try:
        return decoder(dict[str, Any]).decode(text).get("error")
    except UNREADABLE:
        return None


def _response(error: Exception) -> Any:  # noqa: ANN401 - of several libraries
    return getattr(error, "response", None)
