"""For applications beside a runtime: give its watch readings.

    from edgefleet_runtime.readings import ReadingsClient

    with ReadingsClient("http://127.0.0.1:8080") as client:
        client.send("motor", {"vibration": 4.2}, key="m1")

Nothing is installed for it but this package; the module needs the standard library only.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgefleet.errors import InvalidInputError, UnavailableError
from edgefleet_runtime.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

PATH = "/v2/edgefleet/readings"


class ReadingsClient(Closing):
    """One connection to a runtime; for one thread.

    Args:
        endpoint: ``http[s]://HOST:PORT``, or ``unix:PATH`` of its socket.
        token: that the runtime asks for, if it does.
        timeout_s: for each request.
    """

    def __init__(self, endpoint: str, *, token: str | None = None, timeout_s: float = 10.0) -> None:
        parts = urlsplit(endpoint)
        connections: dict[str, Any] = {
            "http": http.client.HTTPConnection,
            "https": http.client.HTTPSConnection,
        }
        self._connection: http.client.HTTPConnection
        if parts.scheme == "unix":
            self._connection = _Unix(endpoint.removeprefix("unix:"), timeout_s)
        elif parts.scheme in connections and parts.hostname:
            kind = connections[parts.scheme]
            self._connection = kind(parts.hostname, parts.port, timeout=timeout_s)
        else:
            msg = f"{endpoint!r} is no address of a runtime"
            raise InvalidInputError(msg, cure="give http://HOST:PORT or unix:PATH")
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def send(
        self,
        stream: str,
        values: Mapping[str, float | None],
        *,
        key: str = "",
        time: datetime | None = None,
    ) -> None:
        """Send one reading; as `send_all`."""
        reading: dict[str, object] = {"stream": stream, "values": dict(values), "key": key}
        if time is not None:
            reading["time"] = time.isoformat()
        self.send_all((reading,))

    def send_all(self, readings: Iterable[Mapping[str, object]]) -> None:
        """Send several, each with ``stream``, ``values`` and, if wanted, ``key`` and ``time``.

        Raises:
            InvalidInputError: one is malformed; the message says which, and none was taken.
            UnavailableError: the runtime can't be reached, or has no room now for all of them.
        """
        body = json.dumps([dict(reading) for reading in readings], allow_nan=False).encode()
        try:
            self._connection.request("POST", PATH, body, self._headers)
            answer = self._connection.getresponse()
            told = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise UnavailableError(f"the runtime can't be reached: {error}") from error
        if answer.status == http.client.OK:
            return
        message = f"the runtime answers {answer.status}: {told.decode(errors='replace')[:300]}"
        if answer.status in {429, 503}:
            raise UnavailableError(message)
        raise InvalidInputError(message)

    def close(self) -> None:
        """Close the connection; may be called twice."""
        self._connection.close()


class _Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
