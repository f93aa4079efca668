"""When a call to an API server is repeated, and after how long.

Rules kept here:

- Waits are those of `PAUSES`, ``Retry-After`` is honoured as `edgefleet.interfaces.retrying` says.
- A call that may not be done twice (POST, a JSON patch) is repeated only where it was refused
  undone: 429, an answer with ``Retry-After``, or a connection that never stood.
- A read, a PUT or DELETE, and a patch that says how things are to be, is repeated on any answer
  that another try may mend. Who writes or deletes by resource version looks whether it was done.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx2

from edgefleet.interfaces.retrying import PASSING, Pauses
from edgefleet.protocol.retry_after import retry_after_s

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSES = Pauses(first_s=0.25, most_s=10.0, longest_told_s=60.0)
_TWICE = ("GET", "HEAD", "PUT", "DELETE")
_JSON_PATCH = "application/json-patch+json"
_PASSED_ON = "/proxy/"
_MAYBE_DONE = "edgefleet_maybe_done"
_WRITES = ("POST", "PUT", "PATCH")


class Retrying(httpx2.BaseTransport):
    """Sends requests until they are answered, or no try is left.

    Unknown fields of what is written are refused by the server, not dropped.

    Args:
        transport: sends one request.
        attempts: tries of each, the first included.
        wait: waits so many seconds.
    """

    def __init__(
        self,
        transport: httpx2.BaseTransport,
        attempts: int,
        *,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport, self._attempts, self._wait = transport, attempts, wait

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request.

        Raises:
            httpx2.TransportError: it was answered at no try.
        """
        if _PASSED_ON in request.url.path:
            return self._transport.handle_request(request)
        if request.method in _WRITES and "fieldValidation" not in request.url.params:
            request.url = request.url.copy_add_param("fieldValidation", "Strict")
        twice = request.method in _TWICE or (
            request.method == "PATCH" and request.headers.get("Content-Type") != _JSON_PATCH
        )
        for tries in range(1, self._attempts):
            try:
                response = self._transport.handle_request(request)
            except httpx2.ConnectError:
                self._wait(PAUSES.backoff_s(tries))
                continue
            except httpx2.TransportError:
                if not twice:
                    raise
                request.extensions[_MAYBE_DONE] = True
                self._wait(PAUSES.backoff_s(tries))
                continue
            told = retry_after_s(response.headers.get("Retry-After"))
            refused = response.status_code == 429 or told is not None
            if response.status_code not in PASSING or not (twice or refused):
                return response
            if PAUSES.is_too_long(told):
                return response
            if not refused:
                request.extensions[_MAYBE_DONE] = True
            response.close()
            self._wait(PAUSES.next_s(tries, told))
        return self._transport.handle_request(request)

    def close(self) -> None:
        """Close connections."""
        self._transport.close()


def maybe_done_before(error: Exception) -> bool:
    """Whether a call was repeated that may have been done at an earlier try."""
    return isinstance(error, httpx2.HTTPStatusError) and _MAYBE_DONE in error.request.extensions
