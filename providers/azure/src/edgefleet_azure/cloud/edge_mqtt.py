"""One MQTT connection as edgeHub serves it: MQTT 3.1.1 on amqtt's packets.

Not amqtt's broker: it refuses topics that begin with ``$``, and edgeHub is no broker either. Its
topics lead from one client to the hub and back, never to another client.

Rules kept here, each in ``mock_rules.md``:

- A publication is acknowledged when whoever takes it has stored it.
- QoS 2 and retained messages are not supported: they end the connection.
- A packet has at most 256 KB, and so a connection never holds more in memory.
- What is published to the client is acknowledged by it; without that it is sent again when the
  client connects again, by whoever keeps it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from typing import Any

from amqtt.adapters import BufferReader, StreamReaderAdapter
from amqtt.errors import AMQTTError, CodecError, MQTTError, NoDataError
from amqtt.mqtt import packet_class
from amqtt.mqtt.connack import CONNECTION_ACCEPTED, NOT_AUTHORIZED, ConnackPacket
from amqtt.mqtt.connect import ConnectPacket
from amqtt.mqtt.disconnect import DisconnectPacket
from amqtt.mqtt.packet import MQTTFixedHeader
from amqtt.mqtt.pingreq import PingReqPacket
from amqtt.mqtt.pingresp import PingRespPacket
from amqtt.mqtt.puback import PubackPacket
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.suback import SubackPacket
from amqtt.mqtt.subscribe import SubscribePacket
from amqtt.mqtt.unsuback import UnsubackPacket
from amqtt.mqtt.unsubscribe import UnsubscribePacket

_log = logging.getLogger(__name__)

MAX_PACKET = 264 << 10  # bytes: 256 KB of a message, and its topic
CONNECT_S = 60.0  # until a connection must have said who it is
GRACE = 1.5  # keep-alive intervals without a packet, MQTT 3.1.2.10
_BROKEN = (AMQTTError, CodecError, MQTTError, NoDataError, OSError, asyncio.IncompleteReadError)


class Refused(Exception):  # noqa: N818 - it ends a connection, and is no error of ours
    """The client did what ends its connection."""


class Head(ABC):
    """What a connection hands its client's wishes to."""

    @abstractmethod
    def login(self, client: str, user: str, password: str) -> tuple[str, str] | None:
        """The device and module that these credentials prove; None refuses them."""

    @abstractmethod
    async def opened(self, connection: Connection, *, clean: bool) -> bool:
        """The connection stands.

        Args:
            connection: who is there.
            clean: whether it wants to begin anew; else it hears what it subscribed to before.

        Returns:
            Whether there was something before.
        """

    @abstractmethod
    async def published(self, connection: Connection, topic: str, data: bytes) -> None:
        """Take a publication; it is acknowledged when this returns.

        Raises:
            Refused: the connection ends.
        """

    @abstractmethod
    async def subscribed(self, connection: Connection) -> None:
        """What the client hears has changed."""

    @abstractmethod
    def closed(self, connection: Connection) -> None:
        """The connection has ended."""


class Connection:
    """One client's connection, from its CONNECT to its end.

    Attributes:
        device: whose module it is.
        module: the module's name.
        topics: filters that it subscribed to.
    """

    def __init__(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.device = self.module = ""
        self.topics: set[str] = set()
        self._head = head
        self._reader, self._writer = reader, writer
        self._keep_alive_s: float | None = None
        self._number = 0

    async def serve(self) -> None:
        """Serve until either side ends it."""
        try:
            if await self._connected():
                while await self._next():
                    pass
        except (*_BROKEN, Refused, TimeoutError) as error:
            _log.info("the connection of %s ends: %r", self.module or "a client", error)
        finally:
            self._head.closed(self)
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    def cut(self) -> None:
        """End it at once, as when the other side's power goes."""
        self._writer.transport.abort()

    async def publish(self, topic: str, data: bytes) -> None:
        """Send a publication; nothing once the connection has ended."""
        self._number = self._number % 0xFFFF + 1
        packet = PublishPacket.build(topic, data, self._number, False, 1, False)
        with contextlib.suppress(OSError):
            await self._send(packet)

    async def _connected(self) -> bool:
        async with asyncio.timeout(CONNECT_S):
            packet = await self._read()
        if not isinstance(packet, ConnectPacket):
            raise Refused("the first packet is no CONNECT")
        found = self._head.login(
            packet.client_id or "", packet.username or "", packet.password or ""
        )
        if found is None:
            await self._send(ConnackPacket.build(0, NOT_AUTHORIZED))
            return False
        self.device, self.module = found
        there = await self._head.opened(self, clean=packet.clean_session_flag)
        await self._send(ConnackPacket.build(int(there), CONNECTION_ACCEPTED))
        self._keep_alive_s = packet.keep_alive * GRACE or None
        return True

    async def _next(self) -> bool:
        async with asyncio.timeout(self._keep_alive_s):
            packet = await self._read()
        match packet:
            case PublishPacket():
                await self._publication(packet)
            case SubscribePacket():
                asked = [topic for topic, _ in packet.payload.topics]
                self.topics.update(asked)
                number = packet.variable_header.packet_id
                await self._send(SubackPacket.build(number, [1] * len(asked)))
                await self._head.subscribed(self)
            case UnsubscribePacket():
                self.topics.difference_update(packet.payload.topics)
                await self._head.subscribed(self)
                await self._send(UnsubackPacket.build(packet.variable_header.packet_id))
            case PingReqPacket():
                await self._send(PingRespPacket.build())
            case PubackPacket():
                pass
            case DisconnectPacket():
                return False
            case _:
                raise Refused(f"a {type(packet).__name__} is not supported")
        return True

    async def _publication(self, packet: PublishPacket) -> None:
        if packet.qos == 2 or packet.retain_flag:
            raise Refused("QoS 2 and retained messages are not supported")
        await self._head.published(self, packet.topic_name or "", packet.data or b"")
        if packet.qos:
            await self._send(PubackPacket.build(packet.packet_id))

    async def _read(self) -> Any:  # noqa: ANN401 - amqtt's packets have no common type
        header = await MQTTFixedHeader.from_stream(StreamReaderAdapter(self._reader))
        if header is None:
            raise Refused("it hung up")
        if header.remaining_length > MAX_PACKET:
            raise Refused(f"a packet of {header.remaining_length} bytes")
        body = BufferReader(await self._reader.readexactly(header.remaining_length))
        return await packet_class(header).from_stream(body, fixed_header=header)

    async def _send(self, packet: Any) -> None:  # noqa: ANN401
        self._writer.write(packet.to_bytes())
        await self._writer.drain()
