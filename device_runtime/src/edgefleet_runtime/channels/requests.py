"""Requests that an operator sends to a device over its channel, and how the device answers them.

A channel that can carry them is given a callable that asks the runtime's own server, so that what
the server refuses to strangers it refuses to them as well.
"""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from edgefleet.errors import InvalidInputError, LimitExceededError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TIMEOUT_S = 60.0  # of the server's answer
MAX_REPLY_BYTES = 16 << 20


class Request(NamedTuple):
    """One exchange; a body of None makes it a GET, else it is a POST."""

    path: str
    headers: Mapping[str, str]
    body: bytes | None


class Reply(NamedTuple):
    """The server's answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def asker(endpoint: Callable[[], str]) -> Callable[[Request], Reply]:
    """A callable that asks the server of this device.

    Args:
        endpoint: gives its address now; one on a Unix socket can't be asked.
    """

    def ask(request: Request) -> Reply:
        if not request.path.startswith("/"):
            raise InvalidInputError(f"a path begins with a slash: {request.path[:200]!r}")
        address = urlsplit(endpoint())
        if address.scheme != "http" or address.hostname is None:
            raise UnavailableError("the runtime serves no plain HTTP on this device")
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=TIMEOUT_S)
        try:
            method = "GET" if request.body is None else "POST"
            connection.request(method, request.path, request.body, dict(request.headers))
            answer = connection.getresponse()
            body = answer.read(MAX_REPLY_BYTES + 1)
            headers = {name.lower(): value for name, value in answer.getheaders()}
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise UnavailableError(f"the runtime's server doesn't answer: {error}") from error
        finally:
            connection.close()
        if len(body) > MAX_REPLY_BYTES:
            raise LimitExceededError(f"an answer is longer than {MAX_REPLY_BYTES} bytes")
        return Reply(answer.status, headers, body)

    return ask
