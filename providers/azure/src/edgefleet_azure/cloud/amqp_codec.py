"""AMQP 1.0's values as bytes and back: what the mock's Event Hubs-compatible endpoint speaks.

Written from the standard (OASIS AMQP 1.0, part 1, sections 1.2 to 1.6) and not taken from the
client's library, so that a fault of that one shows here instead of cancelling itself out; and so
that nothing has to be compiled to run the mock.

Numbers that the standard types otherwise than as ``long`` are written as one of the classes here.
Read back, they are plain ``int``; a symbol stays a `Symbol`. Decimals and characters are left out,
because nothing here uses them.
"""

from __future__ import annotations

import struct
import uuid
from typing import NamedTuple

MAX_DEPTH = 16  # of values within values: what anybody sends here is flat


class Symbol(str):
    """Text of a restricted set, such as an annotation's key."""

    __slots__ = ()


class UByte(int):
    """An unsigned byte."""


class UShort(int):
    """An unsigned number of 16 bits."""


class UInt(int):
    """An unsigned number of 32 bits."""


class ULong(int):
    """An unsigned number of 64 bits."""


class Int(int):
    """A signed number of 32 bits."""


class Timestamp(int):
    """Milliseconds since 1970, in UTC."""


class Array(list[object]):
    """Values of one type, all of them texts, or all of them symbols."""


class Described(NamedTuple):
    """A value with a code, or a symbol, that says what it means."""

    code: object
    value: object


class MalformedError(ValueError):
    """The bytes are no AMQP value."""


_NUMBERS = {
    UByte: (0x50, ">B"),
    UShort: (0x60, ">H"),
    UInt: (0x70, ">I"),
    ULong: (0x80, ">Q"),
    Int: (0x71, ">i"),
    Timestamp: (0x83, ">q"),
    float: (0x82, ">d"),
    int: (0x81, ">q"),
}
_FIXED = {
    **dict(_NUMBERS.values()),
    0x51: ">b",
    0x61: ">h",
    0x72: ">f",
    0x52: ">B",
    0x53: ">B",
    0x54: ">b",
    0x55: ">b",
}
_COMPOUND = (0xC0, 0xD0, 0xC1, 0xD1, 0xE0, 0xF0)  # lists, maps, arrays
_CONSTANTS: dict[int, object] = {0x40: None, 0x41: True, 0x42: False, 0x43: 0, 0x44: 0}


def encode(value: object) -> bytes:  # noqa: C901, PLR0911 - one way out for each kind of value
    """The bytes of a value, with its constructor.

    Raises:
        TypeError: AMQP, or this module, has no such type.
    """
    if value is None:
        return b"\x40"
    if isinstance(value, bool):
        return b"\x41" if value else b"\x42"
    if isinstance(value, Described):
        return b"\x00" + _descriptor(value.code) + encode(value.value)
    if isinstance(value, Symbol):
        return _variable(0xA3, value.encode("ascii"))
    if isinstance(value, str):
        return _variable(0xA1, value.encode())
    if isinstance(value, bytes):
        return _variable(0xA0, value)
    if isinstance(value, uuid.UUID):
        return b"\x98" + value.bytes
    if isinstance(value, Array):
        return _array(value)
    if isinstance(value, list):
        return _compound(0xC0, b"".join(map(encode, value)), len(value))
    if isinstance(value, dict):
        content = b"".join(encode(key) + encode(each) for key, each in value.items())
        return _compound(0xC1, content, 2 * len(value))
    for kind in type(value).__mro__:
        if kind in _NUMBERS:
            code, form = _NUMBERS[kind]
            return bytes([code]) + struct.pack(form, value)
    msg = f"no AMQP type here for {type(value).__name__}"
    raise TypeError(msg)


def _descriptor(code: object) -> bytes:
    # Clients read performatives by the place of a byte, as every peer writes it: smallulong.
    if isinstance(code, int) and code < 1 << 8:
        return b"\x53" + bytes([code])
    return encode(code)


def _variable(code: int, content: bytes) -> bytes:
    if len(content) < 1 << 8:
        return bytes([code, len(content)]) + content
    return bytes([code | 0x10]) + struct.pack(">I", len(content)) + content


def _compound(code: int, content: bytes, count: int) -> bytes:
    if len(content) < (1 << 8) - 1 and count < 1 << 8:
        return bytes([code, len(content) + 1, count]) + content
    return bytes([code | 0x10]) + struct.pack(">II", len(content) + 4, count) + content


def _array(values: Array) -> bytes:
    code = 0xB3 if all(isinstance(value, Symbol) for value in values) else 0xB1
    each = [str(value).encode() for value in values]
    content = b"".join(struct.pack(">I", len(one)) + one for one in each)
    return b"\xf0" + struct.pack(">II", len(content) + 5, len(each)) + bytes([code]) + content


def decode(data: bytes, at: int = 0, *, depth: int = 0) -> tuple[object, int]:
    """The value that begins there, and where the next one does.

    Raises:
        MalformedError: it is none, is cut short, or lies too deep.
    """
    if depth > MAX_DEPTH:
        msg = f"values lie more than {MAX_DEPTH} deep"
        raise MalformedError(msg)
    try:
        code, at = data[at], at + 1
        if code != 0:
            return _decode_as(code, data, at, depth)
        what, at = decode(data, at, depth=depth + 1)
        value, at = decode(data, at, depth=depth + 1)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        msg = f"cut short or damaged: {error}"
        raise MalformedError(msg) from error
    return Described(what, value), at


def _decode_as(  # noqa: PLR0911 - likewise
    code: int, data: bytes, at: int, depth: int
) -> tuple[object, int]:
    if code in _CONSTANTS:
        return _CONSTANTS[code], at
    if code == 0x45:
        return [], at
    if code == 0x56:
        return data[at] != 0, at + 1
    if code in _FIXED:
        form = _FIXED[code]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    if code == 0x98:
        return uuid.UUID(bytes=_cut(data, at, 16)), at + 16
    if code >> 4 in (0xA, 0xB):
        size, at = _size(code, data, at)
        return _text(code, _cut(data, at, size)), at + size
    if code in _COMPOUND:
        return _decode_compound(code, data, at, depth)
    msg = f"no type has the code {code:#04x}"
    raise MalformedError(msg)


def _decode_compound(code: int, data: bytes, at: int, depth: int) -> tuple[object, int]:
    size, at = _size(code, data, at)
    end = at + size
    _cut(data, at, size)
    count, at = _size(code, data, at)
    if count > size:
        msg = f"{count} values can't lie in {size} bytes"
        raise MalformedError(msg)
    values: list[object] = []
    if code in (0xE0, 0xF0):
        each = data[at] if count else 0
        at += 1
        for _ in range(count):
            value, at = _decode_as(each, data, at, depth + 1)
            values.append(value)
        return values, end
    for _ in range(count):
        value, at = decode(data, at, depth=depth + 1)
        values.append(value)
    if code in (0xC0, 0xD0):
        return values, end
    try:
        return dict(zip(values[::2], values[1::2], strict=True)), end
    except (TypeError, ValueError) as error:
        msg = f"no map: {error}"
        raise MalformedError(msg) from error


def _size(code: int, data: bytes, at: int) -> tuple[int, int]:
    """A size or count: four bytes for the codes with bit 4 set, else one."""
    if code & 0x10:
        return struct.unpack_from(">I", data, at)[0], at + 4
    return data[at], at + 1


def _cut(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        msg = f"cut short: {size} bytes are said to follow, {len(data) - at} do"
        raise MalformedError(msg)
    return data[at : at + size]


def _text(code: int, content: bytes) -> object:
    match code & 0x0F:
        case 0x0:
            return content
        case 0x1:
            return content.decode()
        case 0x3:
            return Symbol(content.decode("ascii"))
    msg = f"no type has the code {code:#04x}"
    raise MalformedError(msg)
