"""One client's AMQP connection: SASL, sessions, links with credit.

Where a link leads to is the affair of whoever listens, see `Endpoint`.

Rules kept here:

- nothing but the node ``$cbs`` is reached before a token was taken there;
- no more messages are sent than a link has credit, and a session room, for;
- a message larger than the client's frames goes in several;
- what a client sends wrongly ends its connection, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from edgefleet_azure.cloud.amqp_codec import (
    Array,
    Described,
    MalformedError,
    Symbol,
    UByte,
    UInt,
    ULong,
    UShort,
)
from edgefleet_azure.cloud.amqp_frames import (
    ACCEPTED,
    ATTACH,
    BEGIN,
    CLOSE,
    DETACH,
    DISPOSITION,
    END,
    FLOW,
    HEADER,
    MAX_FRAME,
    OPEN,
    SASL_HEADER,
    SASL_INIT,
    SASL_MECHANISMS,
    SASL_OUTCOME,
    SOURCE,
    TARGET,
    TRANSFER,
    RefusalError,
    frame,
    read_frame,
    read_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_azure.cloud.amqp_frames import Frame, Message

_log = logging.getLogger(__name__)

CBS = "$cbs"
MANAGEMENT = "$management"
MECHANISMS = ("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL")
MAX_MESSAGE = 1 << 20  # bytes
MAX_LINKS = 255
_CREDIT = 100  # requests that a client may send ahead
_WINDOW = 5000
_SELECTOR = "apache.org:selector-filter:string"
_TRANSFER_ROOM = 128  # bytes of a transfer's frame beside the payload, at most


class Feed(Protocol):
    """What a link from a partition reads from, in order."""

    def take(self, most: int) -> list[bytes]:
        """The next messages there are, up to so many; none when there is none now."""
        ...

    def end(self) -> None:
        """The link is gone."""
        ...


class Endpoint(Protocol):
    """What the nodes behind a connection do."""

    def admit(self, request: Message) -> bytes | None:
        """The answer that refuses a token put to ``$cbs``; None when it is taken."""
        ...

    def granted(self, request: Message) -> bytes:
        """The answer to a token that was taken."""
        ...

    def manage(self, request: Message) -> bytes:
        """The answer to a request to ``$management``."""
        ...

    def feed(self, address: str, selector: str | None, wake: Callable[[], None]) -> Feed:
        """Messages of a partition; ``wake`` is called when more have come.

        Raises:
            RefusalError: there is no such partition, or none of it for this client now.
        """
        ...


@dataclass
class _Link:
    handle: int
    node: str
    sends: bool
    """Whether this side sends."""
    credit: int = 0
    count: int = 0
    waiting: list[bytes] = field(default_factory=list)
    feed: Feed | None = None
    partial: bytearray = field(default_factory=bytearray)


@dataclass
class _Session:
    channel: int
    window: int
    received: int
    """The client's next transfer's number, and below those of this side's."""
    next_id: int = 0
    deliveries: int = 0
    links: dict[int, _Link] = field(default_factory=dict)


class Peer:
    """A connection, from its first byte to its last."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, endpoint: Endpoint
    ) -> None:
        self._reader, self._writer, self._endpoint = reader, writer, endpoint
        self._sessions: dict[int, _Session] = {}
        self._over: set[int] = set()
        self._frame_size = MAX_FRAME
        self._admitted = False
        self._loop = asyncio.get_running_loop()

    async def serve(self) -> None:
        """Answer until either side ends it."""
        try:
            await self._sasl()
            self._writer.write(HEADER)
            while await self._handle(await read_frame(self._reader)):
                self._pump()
                await self._writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            _log.debug("a client has gone")
        except (MalformedError, struct.error, TypeError, KeyError) as error:
            _log.warning("ended a connection: %r", error)
        finally:
            for session in self._sessions.values():
                _end_links(session)
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def _sasl(self) -> None:
        if await self._reader.readexactly(len(SASL_HEADER)) != SASL_HEADER:
            msg = "a client that doesn't begin with SASL"
            raise MalformedError(msg)
        names = Array(Symbol(name) for name in MECHANISMS)
        self._writer.write(SASL_HEADER + frame(0, SASL_MECHANISMS, [names], kind=1))
        chosen = await read_frame(self._reader)
        # Who it is is told by the token put to $cbs, as with the service itself.
        fine = chosen.code == SASL_INIT and chosen.get(0) in ("ANONYMOUS", "MSSBCBS")
        self._writer.write(frame(0, SASL_OUTCOME, [UByte(0 if fine else 1), None], kind=1))
        if not fine:
            msg = f"SASL mechanism {chosen.get(0)!r}"
            raise MalformedError(msg)
        if await self._reader.readexactly(len(HEADER)) != HEADER:
            msg = "no AMQP after SASL"
            raise MalformedError(msg)

    async def _handle(self, got: Frame) -> bool:
        """Act on a frame; False when it was the last one."""
        match got.code:
            case 0:
                pass
            case code if code == OPEN:
                self._frame_size = min(MAX_FRAME, got.get(2) or MAX_FRAME)
                opening: list[object] = [None] * 10
                opening[:4] = ["edgefleet-mock", None, UInt(MAX_FRAME), UShort(4999)]
                opening[4] = UInt(240_000)  # milliseconds, as Event Hubs asks for
                self._writer.write(frame(0, OPEN, opening))
            case code if code == BEGIN:
                begun: list[object] = [None] * 8
                begun[:4] = [UShort(got.channel), UInt(0), UInt(_WINDOW), UInt(_WINDOW)]
                begun[4] = UInt(MAX_LINKS)
                session = _Session(got.channel, window=got.get(2), received=got.get(1))
                self._sessions[got.channel] = session
                self._writer.write(frame(got.channel, BEGIN, begun))
            case code if code == END:
                _end_links(self._sessions.pop(got.channel))
                self._over.add(got.channel)
                self._writer.write(frame(got.channel, END, [None]))
            case code if code == CLOSE:
                self._writer.write(frame(0, CLOSE, [None]))
                return False
            case code if code == DISPOSITION:
                pass  # everything is sent settled
            case _ if got.channel in self._over and got.channel not in self._sessions:
                pass  # clients detach links of a session that they have ended
            case _:
                self._on_link(self._sessions[got.channel], got)
        return True

    def _on_link(self, session: _Session, got: Frame) -> None:
        if got.code == ATTACH:
            self._attach(session, got)
        elif got.code == FLOW:
            self._flow(session, got)
        elif got.code == TRANSFER:
            self._transfer(session, got)
        elif got.code == DETACH:
            link = session.links.pop(got.get(0), None)
            if link is not None:
                _end(link)
                detached: list[object] = [UInt(link.handle), True, None]
                self._writer.write(frame(session.channel, DETACH, detached))
        else:
            msg = f"performative {got.code:#x}"
            raise MalformedError(msg)

    def _attach(self, session: _Session, got: Frame) -> None:
        sends = bool(got.get(2))
        at = got.get(5 if sends else 6)
        node = _address(at)
        link = _Link(got.get(1), node, sends)
        try:
            self._check_link(session, link)
            if node not in (CBS, MANAGEMENT):
                link.feed = self._endpoint.feed(node, _selector(at), self._wake)
        except RefusalError as error:
            self._attached(session, got, refused=True)
            detached: list[object] = [UInt(link.handle), True, error.value()]
            self._writer.write(frame(session.channel, DETACH, detached))
            return
        session.links[link.handle] = link
        self._attached(session, got, refused=False)
        if not sends:
            self._grant(session, link)

    def _check_link(self, session: _Session, link: _Link) -> None:
        if len(session.links) >= MAX_LINKS:
            raise RefusalError("amqp:resource-limit-exceeded", f"{MAX_LINKS} links a session")
        if link.node != CBS and not self._admitted:
            raise RefusalError("amqp:unauthorized-access", f"Unauthorized access to {link.node!r}")
        if link.node not in (CBS, MANAGEMENT) and not link.sends:
            raise RefusalError("amqp:not-allowed", f"nothing is sent to {link.node!r}")

    def _attached(self, session: _Session, got: Frame, *, refused: bool) -> None:
        sends = bool(got.get(2))
        source, target = _described(SOURCE, got.get(5)), _described(TARGET, got.get(6))
        fields: list[object] = [None] * 14
        fields[:5] = [got.get(0), UInt(got.get(1)), not sends, UByte(2), UByte(0)]
        # A link refused lacks its own terminus (part 2, 2.6.3).
        fields[5] = None if refused and sends else source
        fields[6] = None if refused and not sends else target
        fields[9] = UInt(0) if sends else None
        fields[10] = ULong(MAX_MESSAGE)
        self._writer.write(frame(session.channel, ATTACH, fields))

    def _grant(self, session: _Session, link: _Link) -> None:
        session_fields = [UInt(session.received), UInt(_WINDOW), UInt(session.next_id)]
        fields: list[object] = [*session_fields, UInt(_WINDOW), UInt(link.handle)]
        fields += [UInt(link.count), UInt(_CREDIT), None, False, False, None]
        self._writer.write(frame(session.channel, FLOW, fields))

    def _flow(self, session: _Session, got: Frame) -> None:
        session.window = (got.get(0) or 0) + got.get(1) - session.next_id
        link = session.links.get(got.get(4))
        if link is not None and link.sends and got.get(6) is not None:
            link.credit = (got.get(5) or 0) + got.get(6) - link.count

    def _transfer(self, session: _Session, got: Frame) -> None:
        link = session.links[got.get(0)]
        session.received += 1
        link.partial += got.payload
        if len(link.partial) > MAX_MESSAGE:
            msg = "a message over the limit"
            raise MalformedError(msg)
        if got.get(5):
            return
        request = read_message(bytes(link.partial))
        link.partial.clear()
        link.count += 1
        if not got.get(4):
            done = [True, UInt(got.get(1)), UInt(got.get(1)), True, Described(ACCEPTED, [])]
            self._writer.write(frame(session.channel, DISPOSITION, [*done, False]))
        reply = self._answer(link.node, request)
        for other in session.links.values():
            if other.sends and other.node == link.node:
                other.waiting.append(reply)
        self._grant(session, link)

    def _answer(self, node: str, request: Message) -> bytes:
        if node == MANAGEMENT:
            return self._endpoint.manage(request)
        refusal = self._endpoint.admit(request)
        self._admitted = self._admitted or refusal is None
        return self._endpoint.granted(request) if refusal is None else refusal

    def _wake(self) -> None:
        """More has come to a partition; said by any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._pump)

    def _pump(self) -> None:
        """Send what links have waiting, as far as there is credit and room."""
        if self._writer.is_closing():
            return
        for session in self._sessions.values():
            for link in session.links.values():
                self._pump_link(session, link)

    def _pump_link(self, session: _Session, link: _Link) -> None:
        most = min(link.credit, session.window)
        if most <= 0 or not link.sends:
            return
        if link.feed is not None:
            link.waiting += link.feed.take(most - len(link.waiting))
        while link.waiting and link.credit > 0 and session.window > 0:
            self._send(session, link, link.waiting.pop(0))

    def _send(self, session: _Session, link: _Link, message: bytes) -> None:
        room = self._frame_size - _TRANSFER_ROOM
        delivery, tag = UInt(session.deliveries), session.deliveries.to_bytes(4, "big")
        for piece, last in _pieces(message, room):
            fields: list[object] = [UInt(link.handle), delivery, tag, UInt(0), True, not last]
            fields += [None, None, False, False, False]
            self._writer.write(frame(session.channel, TRANSFER, fields, piece))
            session.next_id += 1
            session.window -= 1
        session.deliveries += 1
        link.credit -= 1
        link.count += 1


def _end_links(session: _Session) -> None:
    for link in session.links.values():
        _end(link)


def _end(link: _Link) -> None:
    if link.feed is not None:
        link.feed.end()


def _pieces(message: bytes, room: int) -> Iterator[tuple[bytes, bool]]:
    for start in range(0, len(message), room):
        yield message[start : start + room], start + room >= len(message)


def _address(terminus: Any) -> str:  # noqa: ANN401 - what a client wrote there
    """The address that a source or target names, without the host before it."""
    match terminus:
        case Described(value=[str(address), *_]):
            if "://" in address:
                return address.partition("://")[2].partition("/")[2]
            return address
    msg = "a link to nowhere"
    raise MalformedError(msg)


def _selector(source: Any) -> str | None:  # noqa: ANN401 - what a client wrote there
    """The expression of a source's filter; None without one."""
    match source:
        case Described(value=[_, _, _, _, _, _, _, {**filters}, *_]):
            found = filters.get(_SELECTOR)
            return str(found.value) if isinstance(found, Described) else None
    return None


def _described(code: int, given: Any) -> Described | None:  # noqa: ANN401 - what a client wrote
    """A terminus to write back: its address, which is all that clients look for there."""
    if not isinstance(given, Described) or not isinstance(given.value, list):
        return None
    return Described(code, given.value[:1] or [None])
