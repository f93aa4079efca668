"""What a refused call's answer says, whichever of Google's libraries brings it."""

from __future__ import annotations

import json
from typing import Any

from edgefleet.protocol import retry_after


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
    try:
        found = json.loads(text)["error"]
        return str(found.get("message", "")) if isinstance(found, dict) else str(found)
    except (ValueError, KeyError, TypeError):
        if response is not None:
            return text.strip()  # the library's own words have the address, which may be a secret
        return str(getattr(error, "message", "") or "")


def reason_of(error: Exception) -> str:
    """The service's own word for why it says no, such as ``rateLimitExceeded``; may be empty."""
    try:
        found = json.loads(str(_response(error).text))["error"]
        return str(found["errors"][0]["reason"])
    except (AttributeError, ValueError, KeyError, TypeError, IndexError):
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


def _response(error: Exception) -> Any:  # noqa: ANN401 - of several libraries
    return getattr(error, "response", None)
