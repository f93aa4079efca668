"""The token exchange service of a device in the mock: credentials over HTTP on loopback.

The real one is the component ``aws.greengrass.TokenExchangeService``; its answers are those of the
container credentials endpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
from typing import TYPE_CHECKING

from edgefleet.errors import AccessDeniedError, EdgeFleetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_HEAD = 16 << 10  # bytes of a request's head


class TokenExchange:
    """Gives a device's components the keys of its role; lives on one event loop.

    Args:
        keys: gives them; `AccessDeniedError` where the role alias gives none.
    """

    def __init__(self, keys: Callable[[], Mapping[str, str]]) -> None:
        self._keys = keys
        self.token = secrets.token_hex(16)
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """What ``AWS_CONTAINER_CREDENTIALS_FULL_URI`` says."""
        return f"http://localhost:{self._port}/2016-11-01/credentialprovider/"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_HEAD)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening; may be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, content = await asyncio.to_thread(self._answer, head)
            data = json.dumps(content).encode()
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode()
                + data
            )
            await writer.drain()
        writer.close()

    def _answer(self, head: str) -> tuple[str, Mapping[str, str]]:
        fields = {}
        for line in head.split("\r\n")[1:]:
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
        if not hmac.compare_digest(fields.get("authorization", ""), self.token):
            return "403 Forbidden", {"message": "the token is wrong"}
        try:
            return "200 OK", self._keys()
        except AccessDeniedError as error:
            return "403 Forbidden", {"message": error.message}
        except EdgeFleetError as error:
            return "500 Internal Server Error", {"message": error.message}
