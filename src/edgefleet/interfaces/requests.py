"""Requests to devices and their answers as a channel carries them: JSON, bodies in base64.

Each backend has its own way to a device; what goes there and comes back is the same, because one
piece of the runtime answers it.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from edgefleet.errors import DocumentError, UnavailableError
from edgefleet.interfaces.abilities import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping


def request_of(path: str, headers: Mapping[str, str], body: bytes | None) -> dict[str, Any]:
    """A request as plain data; a body of None makes it a GET."""
    encoded = None if body is None else base64.b64encode(body).decode()
    return {"path": path, "headers": dict(headers), "body": encoded}


def reply_of(device: str, answer: object) -> Reply:
    """A device's answer.

    Args:
        device: its name, for errors.
        answer: JSON as it came, or decoded.

    Raises:
        UnavailableError: the device says that it can't answer.
        DocumentError: the answer makes no sense.
    """
    try:
        content: Any = json.loads(answer) if isinstance(answer, bytes) else answer
        error = content.get("error", "")
        headers = {str(key): str(value) for key, value in content.get("headers", {}).items()}
        body = base64.b64decode(content.get("body", ""), validate=True)
        status = int(content.get("status", 0))
    except (ValueError, RecursionError, TypeError, AttributeError) as problem:
        raise DocumentError(f"the answer of {device!r} makes no sense: {problem}") from problem
    if error:
        raise UnavailableError(f"{device!r} can't answer: {error}")
    return Reply(status, headers, body)
