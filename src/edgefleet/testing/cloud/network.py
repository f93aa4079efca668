"""A device's network: what stands on loopback between its processes and the world, and can be cut.

Bytes are passed on unread, TLS too. `Network` is an HTTP proxy that processes are told of by
``https_proxy``, as on a plant's network; `Forward` stands for one address elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from edgefleet.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD = 16 << 10  # bytes
CHUNK = 64 << 10
CONNECT_S = 30.0
TRIES = 200  # addresses that may be taken


class Passage(ABC):
    """Something that listens and passes on; lives on one event loop.

    Args:
        host: address that it listens at.
        port: likewise; 0 for any that is free, which it keeps.

    Attributes:
        up: whether anything passes.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.up = True
        self.host, self.port = host, port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, always at the same place."""
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=MAX_HEAD)
        self.port = self._server.sockets[0].getsockname()[1]

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

    @abstractmethod
    async def _target(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int] | None:
        """Where a connection goes; None where it goes nowhere."""

    async def _reached(self, writer: asyncio.StreamWriter) -> None:  # noqa: B027 - may have nothing to say
        """Say that the target is there."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            target = await self._target(reader, writer)
            if target is not None:
                await self._pass_on(reader, writer, target)
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError):
            pass  # whoever sees it has its own error
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int]
    ) -> None:
        async with asyncio.timeout(CONNECT_S):
            there, onward = await asyncio.open_connection(*target)
        self._writers.add(onward)
        try:
            await self._reached(writer)
            await asyncio.gather(_pass(reader, onward), _pass(there, writer))
        finally:
            self._writers.discard(onward)
            onward.close()


class Network(Passage):
    """A proxy for ``CONNECT``."""

    @property
    def address(self) -> str:
        """What ``https_proxy`` says."""
        return f"http://{self.host}:{self.port}"

    async def _target(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int] | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        host, _, port = target.rpartition(":")
        if not self.up or method != "CONNECT":
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return None
        return host.strip("[]"), int(port)

    async def _reached(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()


class Forward(Passage):
    """One address that stands for another.

    Args:
        target: gives where connections go now; None for nowhere.
        host: address that it listens at.
        port: likewise.
    """

    def __init__(
        self,
        target: Callable[[], tuple[str, int] | None],
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host, port)
        self._now = target

    async def _target(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int] | None:
        del reader
        target = self._now() if self.up else None
        if target is None:
            writer.transport.abort()
        return target


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


_places = itertools.count(os.getpid() * 251)


def free_address(*ports: int) -> str:
    """A loopback address on which nobody listens at these ports.

    Linux gives a process all of 127.0.0.0/8; elsewhere such addresses must be configured first.

    Raises:
        UnavailableError: none was found.
    """
    for number in itertools.islice(_places, TRIES):
        # 127.0.x.y is left to others: resolvers and databases like to live there.
        address = f"127.{1 + number // 62500 % 250}.{1 + number // 250 % 250}.{1 + number % 250}"
        if all(_is_free(address, port) for port in ports or (0,)):
            return address
    raise UnavailableError(
        f"no address of 127.0.0.0/8 takes port {', '.join(map(str, ports)) or 'any'}",
        cure="on macOS, configure some first: sudo ifconfig lo0 alias 127.1.1.1",
    )


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
