"""AMQP 1.0's frames and performatives, and how a message is laid out (OASIS parts 2, 3 and 5).

A performative is a described list whose fields have fixed places; the ones used here are named
below. Fields that a peer leaves out at the end are None.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet_azure.cloud.amqp_codec import (
    Described,
    MalformedError,
    Symbol,
    decode,
    encode,
)

if TYPE_CHECKING:
    import asyncio

HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
MAX_FRAME = 64 << 10  # bytes, as Event Hubs offers
_FRAME = struct.Struct(">IBBH")

OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION = 0x10, 0x11, 0x12, 0x13, 0x14, 0x15
DETACH, END, CLOSE = 0x16, 0x17, 0x18
SASL_MECHANISMS, SASL_INIT, SASL_OUTCOME = 0x40, 0x41, 0x44
SOURCE, TARGET, ERROR, ACCEPTED = 0x28, 0x29, 0x1D, 0x24
_ANNOTATIONS, _PROPERTIES, _APPLICATION, _DATA, _VALUE = 0x72, 0x73, 0x74, 0x75, 0x77
_MESSAGE_ID, _CORRELATION_ID, _PROPERTIES_FIELDS = 0, 5, 6


class Frame(NamedTuple):
    """A frame: ``code`` is 0 for one without a performative, which only says: still here."""

    channel: int
    code: int
    fields: list[Any]
    payload: bytes = b""

    def get(self, place: int) -> Any:  # noqa: ANN401 - what a peer wrote there
        """A field by its place; None for one left out."""
        return self.fields[place] if place < len(self.fields) else None


class Message(NamedTuple):
    """What of a message is looked at here."""

    message_id: object
    properties: dict[str, Any]
    body: object


class RefusalError(Exception):
    """What a peer asked for isn't given; ends its link with this condition."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(f"{condition}: {description}")
        self.condition = condition
        self.description = description

    def value(self) -> Described:
        """As an AMQP error."""
        return Described(ERROR, [Symbol(self.condition), self.description, None])


async def read_frame(stream: asyncio.StreamReader) -> Frame:
    """The next frame.

    Raises:
        MalformedError: it is none, or larger than was agreed.
        asyncio.IncompleteReadError: the peer has gone.
    """
    size, offset, _, channel = _FRAME.unpack(await stream.readexactly(_FRAME.size))
    if not 8 <= offset * 4 <= size <= MAX_FRAME:
        msg = f"a frame of {size} bytes whose body begins at {offset * 4}"
        raise MalformedError(msg)
    data = (await stream.readexactly(size - _FRAME.size))[offset * 4 - _FRAME.size :]
    if not data:
        return Frame(channel, 0, [])
    found, end = decode(data)
    if (
        not isinstance(found, Described)
        or not isinstance(found.code, int)
        or not isinstance(found.value, list)
    ):
        msg = "a frame without a performative"
        raise MalformedError(msg)
    return Frame(channel, found.code, found.value, data[end:])


def frame(
    channel: int, code: int, fields: list[object], payload: bytes = b"", *, kind: int = 0
) -> bytes:
    """A frame's bytes; ``kind`` is 1 for SASL's."""
    body = encode(Described(code, fields)) + payload
    return _FRAME.pack(_FRAME.size + len(body), 2, kind, channel) + body


def read_message(data: bytes) -> Message:
    """A message that a client sent.

    Raises:
        MalformedError: it is none.
    """
    message_id: object = None
    properties: dict[str, Any] = {}
    body: object = None
    at = 0
    while at < len(data):
        section, at = decode(data, at)
        match section:
            case Described(code=0x73, value=[*fields]) if fields:
                message_id = fields[_MESSAGE_ID]
            case Described(code=0x74, value={**given}):
                properties = {str(key): value for key, value in given.items()}
            case Described(code=0x75 | 0x77, value=value):
                body = value
            case Described():
                continue
            case _:
                msg = "a message's section without a code"
                raise MalformedError(msg)
    return Message(message_id, properties, body)


def answer(to: Message, properties: dict[str, object], body: object) -> bytes:
    """A message that answers another one."""
    fields: list[object] = [None] * _PROPERTIES_FIELDS
    fields[_CORRELATION_ID] = to.message_id
    return (
        encode(Described(_PROPERTIES, fields))
        + encode(Described(_APPLICATION, properties))
        + encode(Described(_VALUE, body))
    )


def event(annotations: dict[str, object], properties: dict[str, object], body: bytes) -> bytes:
    """A message that a partition keeps."""
    return (
        encode(Described(_ANNOTATIONS, {Symbol(key): value for key, value in annotations.items()}))
        + encode(Described(_APPLICATION, properties))
        + encode(Described(_DATA, body))
    )
