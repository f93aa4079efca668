"""An MQTT broker on loopback, amqtt's, and one that never acknowledges anything."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from amqtt.broker import Broker
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin

from edgefleet.testing.cloud.ports import HeldPort

T = TypeVar("T")


class Taken(BasePlugin[Any]):  # type: ignore[misc]  # it has no types
    """Notes what is published: topic, quality of service, data."""

    messages: list[tuple[str, int, bytes]] = []  # noqa: RUF012 - emptied by each `Running`

    async def on_broker_message_received(self, *, client_id: str, message: Any) -> None:
        """Note one."""
        del client_id
        self.messages.append((message.topic, message.qos, bytes(message.data)))


class Login(BaseAuthPlugin):  # type: ignore[misc]  # likewise
    """Lets in whoever knows the password."""

    password = ""

    async def authenticate(self, *, session: Any) -> bool:
        """Whether it is known."""
        return not self.password or session.password == self.password


class Running:
    """A broker that can be stopped and started again at the same address.

    Args:
        certificate: of the server, and its key; None for no TLS.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self._held = HeldPort()
        self._certificate = certificate
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._broker: Broker | None = None
        Taken.messages.clear()
        Login.password = ""

    @property
    def port(self) -> int:
        """That it listens on."""
        return self._held.number

    @property
    def messages(self) -> list[tuple[str, int, bytes]]:
        """What was published."""
        return Taken.messages

    def start(self) -> None:
        """Listen."""
        listener: dict[str, Any] = {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}
        if self._certificate is not None:
            file = str(self._certificate)
            listener |= {"ssl": True, "certfile": file, "keyfile": file}
        plugins: dict[str, Any] = {f"{one.__module__}.{one.__name__}": {} for one in (Taken, Login)}
        config = {"listeners": {"default": listener}, "plugins": plugins}

        async def begin() -> Broker:
            broker = Broker(config)
            await broker.start()
            return broker

        self._broker = self._do(begin())

    def stop(self) -> None:
        """Hang up on everybody."""
        broker, self._broker = self._broker, None
        if broker is not None:
            self._do(broker.shutdown())

    def close(self) -> None:
        """End."""
        self.stop()
        self._held.close()
        self._do(_ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


async def _ended() -> None:
    """Wait for what still runs on this loop."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """The port of a broker that takes connections and messages, and acknowledges no message."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    held.append(connection)
                    connection.recv(1024)
                    connection.sendall(b"\x20\x02\x00\x00")  # CONNACK: accepted

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()
