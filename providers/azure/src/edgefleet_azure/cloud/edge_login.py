"""The credentials that a module shows to its edgeHub, and the workload API that signs them.

- A token is a shared access signature over resource and expiry, with the identity's key:
  https://learn.microsoft.com/azure/iot-hub/authenticate-authorize-sas
- The workload API gives a module the trust bundle, and signs with its key, on a Unix socket:
  ``edgelet/workload`` in Azure/iotedge, API version 2019-01-30.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

API_VERSION = "2019-01-30"
MAX_HEAD, MAX_BODY = 16 << 10, 64 << 10  # bytes
_SIGN = re.compile(r"/modules/([^/]+)/genid/([^/]+)/sign")


def digest(key: str, data: bytes) -> str:
    """HMAC-SHA256 with a key in base64; in base64 itself."""
    return base64.b64encode(hmac.digest(base64.b64decode(key), data, hashlib.sha256)).decode()


def token_holds(token: str, resource: str, keys: Iterable[str], now_s: float | None = None) -> bool:
    """Whether a shared access signature is one of these keys', for this resource, and in time."""
    kind, _, fields = token.partition(" ")
    found = dict(part.partition("=")[::2] for part in fields.split("&"))
    if kind != "SharedAccessSignature" or not {"sr", "sig", "se"} <= found.keys():
        return False
    in_time = found["se"].isdigit() and int(found["se"]) > (now_s or time.time())
    if not in_time or unquote(found["sr"]) != resource:
        return False
    signed = f"{found['sr']}\n{found['se']}".encode()
    given = unquote(found["sig"])
    return any(hmac.compare_digest(given, digest(key, signed)) for key in keys if key)


class Workload:
    """The API on its socket; lives on one event loop.

    Args:
        path: of the socket.
        bundle: certificates that modules trust, in PEM.
        key: gives a module's key for its generation; None refuses.
    """

    def __init__(self, path: Path, bundle: str, key: Callable[[str, str], str | None]) -> None:
        self.path = path
        self._bundle = bundle
        self._key = key
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=MAX_HEAD)

    async def stop(self) -> None:
        """Stop listening; may be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broken = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)
        with contextlib.suppress(*broken):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            said = re.search(r"(?im)^content-length: *(\d+)", head)
            length = min(int(said[1]) if said else 0, MAX_BODY)
            body = await reader.readexactly(length)
            status, content = self._answer(head.split("\r\n", 1)[0], body)
            data = json.dumps(content).encode()
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode()
                + data
            )
            await writer.drain()
        writer.close()

    def _answer(self, line: str, body: bytes) -> tuple[str, dict[str, str]]:
        method, _, rest = line.partition(" ")
        url = urlsplit(rest.partition(" ")[0])
        if parse_qs(url.query).get("api-version") != [API_VERSION]:
            return "400 Bad Request", {"message": f"api-version is not {API_VERSION}"}
        if (method, url.path) == ("GET", "/trust-bundle"):
            return "200 OK", {"certificate": self._bundle}
        signing = _SIGN.fullmatch(url.path)
        if method != "POST" or signing is None:
            return "404 Not Found", {"message": "no such call"}
        key = self._key(unquote(signing[1]), unquote(signing[2]))
        asked = json.loads(body)
        if key is None or asked.get("keyId") != "primary" or asked.get("algo") != "HMACSHA256":
            return "404 Not Found", {"message": "no such module, or no such key"}
        return "200 OK", {"digest": digest(key, base64.b64decode(asked["data"]))}
