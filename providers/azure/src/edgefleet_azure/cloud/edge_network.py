"""A device's network to the outside: an HTTP proxy on loopback that can be cut.

Modules reach storage through it (``https_proxy``, as on a plant's network), so that a device
without a network has none for its own processes either. It passes TLS on unread.
"""

from __future__ import annotations

import asyncio
import contextlib

MAX_HEAD = 16 << 10  # bytes
CHUNK = 64 << 10
CONNECT_S = 30.0


class Network:
    """The proxy; lives on one event loop.

    Attributes:
        up: whether anything passes.
    """

    def __init__(self) -> None:
        self.up = True
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def address(self) -> str:
        """What ``https_proxy`` says."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen, always at the same place."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, limit=MAX_HEAD
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End it; may be called twice."""
        server, self._server = self._server, None
        self.cut()
        if server is not None:
            server.close()
            await server.wait_closed()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Break every connection off."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            await self._tunnel(reader, writer)
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError):
            pass  # whoever sees it has its own error
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        host, _, port = target.rpartition(":")
        if not self.up or method != "CONNECT":
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        async with asyncio.timeout(CONNECT_S):
            there, onward = await asyncio.open_connection(host.strip("[]"), int(port))
        self._writers.add(onward)
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            await asyncio.gather(_pass(reader, onward), _pass(there, writer))
        finally:
            self._writers.discard(onward)
            onward.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
