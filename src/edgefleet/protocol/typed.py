"""Values of a type that the caller names, out of JSON and out of plain objects, in any thread.

msgspec works out the fields of a Struct when the first value of it is read, and other threads see
the half of it meanwhile: two threads that are the first to read one end the process with SIGSEGV
(msgspec 0.22, ``StructInfo_Convert``). So whatever reads a value of a type does it through here,
where each type is worked out under one lock before anybody reads with it.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar, overload

import msgspec

_T = TypeVar("_T")

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for bytes that it can't read: no such JSON, no UTF-8, nested too deep."""
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_first = threading.RLock()


@overload
def decoder(kind: type[_T]) -> msgspec.json.Decoder[_T]: ...
@overload
def decoder(kind: Any) -> msgspec.json.Decoder[Any]: ...  # noqa: ANN401 - a union is no type
def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """What reads JSON as values of a type; the same one each time, for any number of threads."""
    found = _decoders.get(kind)
    if found is None:
        with _first:
            found = _decoders.get(kind)
            if found is None:
                found = _decoders[kind] = msgspec.json.Decoder(kind)
    return found


@overload
def convert(
    value: object, kind: type[_T], *, strict: bool = True, from_attributes: bool = False
) -> _T: ...
@overload
def convert(
    value: object,
    kind: Any,  # noqa: ANN401 - as above
    *,
    strict: bool = True,
    from_attributes: bool = False,
) -> Any: ...  # noqa: ANN401 - as above
def convert(value: object, kind: Any, *, strict: bool = True, from_attributes: bool = False) -> Any:
    """A value of a type out of dicts, lists and scalars, as ``msgspec.convert`` has it.

    Raises:
        msgspec.ValidationError: the value doesn't fit the type.
    """
    decoder(kind)
    return msgspec.convert(  # noqa: TID251 - what it is banned for
        value, kind, strict=strict, from_attributes=from_attributes
    )
