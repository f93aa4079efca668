"""Messages of AWS's event-stream RPC as bytes, the form in which components and nucleus talk.

A message is a prelude (its length, the length of its headers, CRC-32 of both), headers, a payload
and the CRC-32 of all before it; integers are big-endian
(https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html). Reading is
botocore's; it has no writer.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from botocore.eventstream import EventStreamBuffer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_INT32, _STRING = 4, 7
_CRC = struct.Struct("!I")
_PRELUDE = struct.Struct("!II")


class MessageType(enum.IntEnum):
    """``:message-type``, as `awscrt.eventstream.rpc.MessageType` numbers them."""

    APPLICATION_MESSAGE = 0
    APPLICATION_ERROR = 1
    PING = 2
    PING_RESPONSE = 3
    CONNECT = 4
    CONNECT_ACK = 5
    PROTOCOL_ERROR = 6
    INTERNAL_ERROR = 7


class Flag(enum.IntFlag):
    """``:message-flags``, as `awscrt.eventstream.rpc.MessageFlag` has them."""

    NONE = 0
    CONNECTION_ACCEPTED = 1
    TERMINATE_STREAM = 2


class Message(NamedTuple):
    """One message; ``headers`` without the three below."""

    type: MessageType
    flags: Flag
    stream: int
    headers: Mapping[str, str]
    payload: bytes


def encoded(message: Message) -> bytes:
    """The bytes of a message."""
    fields: dict[str, str | int] = {
        ":message-type": int(message.type),
        ":message-flags": int(message.flags),
        ":stream-id": message.stream,
        **message.headers,
    }
    headers = b"".join(_field(name, value) for name, value in fields.items())
    total = _PRELUDE.size + _CRC.size + len(headers) + len(message.payload) + _CRC.size
    prelude = _PRELUDE.pack(total, len(headers))
    head = prelude + _CRC.pack(crc32(prelude)) + headers + message.payload
    return head + _CRC.pack(crc32(head))


def _field(name: str, value: str | int) -> bytes:
    key = name.encode()
    start = struct.pack("!B", len(key)) + key
    if isinstance(value, int):
        return start + struct.pack("!Bi", _INT32, value)
    data = value.encode()
    return start + struct.pack("!BH", _STRING, len(data)) + data


class Decoder:
    """Messages out of the bytes of a connection, as they come."""

    def __init__(self) -> None:
        self._buffer = EventStreamBuffer()

    def messages(self, data: bytes) -> Iterator[Message]:
        """The messages that are whole with these bytes.

        Raises:
            botocore.eventstream.ParserError: the bytes are no message; nothing more can be read.
            ValueError: a message lacks a header or has one of an unknown value.
        """
        self._buffer.add_data(data)
        for found in self._buffer:
            fields = dict(found.headers)
            try:
                kind, flags, stream = (
                    fields.pop(f":{name}")
                    for name in ("message-type", "message-flags", "stream-id")
                )
            except KeyError as error:
                raise ValueError(f"a message has no header {error}") from error
            headers = {name: value for name, value in fields.items() if isinstance(value, str)}
            yield Message(MessageType(kind), Flag(flags), int(stream), headers, found.payload)
