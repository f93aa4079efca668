"""A webhook: one POST of the alarm's event, as a structured CloudEvent.

Rules kept here: redirects are not followed, proxies of the environment are not used, nothing of the
answer is read but its status, and all of it takes no longer than the time given.
"""

from __future__ import annotations

import http.client
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgefleet.errors import UnavailableError
from edgefleet_runtime.store.trust import system_context
from edgefleet_runtime.watch.actions.addresses import allowed_address, resolved

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from edgefleet_runtime.watch.actions.addresses import Resolve

MEDIA_TYPE = "application/cloudevents+json"
MAX_LINE = 4096  # bytes of the answer's first line
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


def post(
    url: str,
    body: bytes,
    *,
    timeout_s: float,
    hosts: Sequence[str] = (),
    resolve: Resolve = resolved,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Post an event; returns when the other side has said that it took it.

    Raises:
        AccessDeniedError: the address isn't one that this device may use.
        UnavailableError: nobody takes it there: no answer in time, or another status than 2xx.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    address = allowed_address(host, port, hosts, resolve)
    until = clock() + timeout_s
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.connect()
        if secure:
            connection.sock = system_context().wrap_socket(connection.sock, server_hostname=host)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Host": parts.netloc, "Content-Type": MEDIA_TYPE, "Connection": "close"}
        connection.request("POST", target, body, headers)
        status = _status(connection.sock, until, clock)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UnavailableError(f"{host}:{port} takes no alarm: {error}") from error
    finally:
        connection.close()
    if not 200 <= status < 300:
        redirected = " (redirects are not followed)" if 300 <= status < 400 else ""
        raise UnavailableError(f"{host}:{port} answers with status {status}{redirected}")


def _status(sock: socket.socket, until: float, clock: Callable[[], float]) -> int:
    """The status of the answer.

    Raises:
        OSError: it doesn't come in time.
        HTTPException: it is no HTTP.
    """
    line = b""
    while b"\n" not in line and len(line) < MAX_LINE:
        left = until - clock()
        if left <= 0:
            raise TimeoutError("no answer in time")
        sock.settimeout(left)
        more = sock.recv(MAX_LINE)
        if not more:
            break
        line += more
    found = _STATUS.match(line)
    if found is None:
        raise http.client.BadStatusLine(repr(line[:80]))
    return int(found[1])
