"""What the module twin says to the device, and how the device's report lies in it. Does no IO.

Rules kept here:

- ``desired.edgefleet`` belongs to the group's deployment: the pointer as one text, and how blobs
  may be read. ``desired.edgefleetUpload`` is the device's own: where it writes, and with what.
- A shared access signature is taken only where it can stand in an address as it is.
- ``reported.edgefleet`` holds the report as text in pieces, because a value has at most 4,096 bytes
  and a name in a twin takes no dots, and beside it the few fields that queries search:
  https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-device-twins
- Only what changed is sent. A null takes a property away.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import msgspec

from edgefleet.errors import DocumentError
from edgefleet.protocol.report import MAX_BYTES, SUMMARY
from edgefleet.protocol.typed import UNREADABLE, convert, decoder

if TYPE_CHECKING:
    from collections.abc import Mapping

WANTED = "edgefleet"
"""Property that the group's deployment sets, and that holds the report on the other side."""
UPLOAD = "edgefleetUpload"
PIECE_BYTES = 4000  # of the 4,096 that a value may have
MAX_PIECES = -(-MAX_BYTES // (PIECE_BYTES - 3))  # three bytes may be left free before a character

Query = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9%=&._~+/:\-]{1,2000}\Z")]


class ReadAccess(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How blobs may be read.

    Attributes:
        read: query of a shared access signature.
        expires: when it ends; None where only the service knows.
        at: address of the account or container that it is for; empty for Azure's own storage and
            the host that the device writes to.
    """

    read: Query
    expires: datetime | None = None
    at: str = ""

    def __repr__(self) -> str:
        return f"ReadAccess(expires={self.expires!r}, at={self.at!r})"


class UploadAccess(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where the device may write, and with what.

    Attributes:
        address: ``https://…``, below which everything of this device lies.
        write: query of a shared access signature.
        expires: when it ends; None where only the service knows.
    """

    address: str
    write: Query
    expires: datetime | None = None

    def __repr__(self) -> str:
        return f"UploadAccess(address={self.address!r}, expires={self.expires!r})"


class _Layer(msgspec.Struct, frozen=True, kw_only=True):
    pointer: str = ""
    access: ReadAccess | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator's side says to this device.

    Attributes:
        pointer: the pointer's document; empty before the first.
        access: None before some came.
        upload: likewise.
    """

    pointer: str = ""
    access: ReadAccess | None = None
    upload: UploadAccess | None = None


def read_desired(desired: Mapping[str, Any]) -> Wanted:
    """What desired properties say; those that are unknown here are passed over.

    Raises:
        DocumentError: one makes no sense. The message quotes no value.
    """
    layer = _convert(desired.get(WANTED), _Layer, WANTED) or _Layer()
    upload = _convert(desired.get(UPLOAD), UploadAccess, UPLOAD)
    if upload is not None and urlsplit(upload.address).scheme not in {"https", "http"}:
        raise DocumentError(f"desired property {UPLOAD}.address is no web address")
    return Wanted(pointer=layer.pointer, access=layer.access, upload=upload)


def _convert(value: object, kind: type[Any], name: str) -> Any:  # noqa: ANN401 - one of `kind`
    if value is None:
        return None
    try:
        return convert(value, kind)
    except msgspec.ValidationError as error:
        raise DocumentError(
            f"desired property {name} makes no sense: {error}",
            cure="publish to the group again with edgefleet, and renew its access",
        ) from error


def reported(report: bytes) -> dict[str, Any]:
    """A report as it lies in the twin: the summary, and the document in pieces.

    Raises:
        DocumentError: it is no JSON object, or longer than a report may be.
    """
    try:
        content: dict[str, Any] = decoder(dict).decode(report)
        text = report.decode()
    except UNREADABLE as error:
        raise DocumentError(f"a report that makes no sense isn't sent: {error}") from error
    found = pieces(text)
    if len(found) > MAX_PIECES:
        raise DocumentError(f"a report has {len(report)} bytes, {MAX_BYTES} are allowed")
    return {
        "summary": {key: content.get(key) for key in SUMMARY},
        "report": {
            str(number): found[number] if number < len(found) else None
            for number in range(MAX_PIECES)
        },
    }


def pieces(text: str) -> list[str]:
    """A text cut into as many pieces as a twin's values need; put together they are the text."""
    found, data = [], text.encode()
    while data:
        end = min(PIECE_BYTES, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # not inside of a character
            end -= 1
        found.append(data[:end].decode())
        data = data[end:]
    return found


def changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, Any]:
    """The patch that leads from one state of reported properties to another; from None, all."""
    if before is None:
        return dict(after)
    patch: dict[str, Any] = {}
    for key, value in after.items():
        there = before.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            inner = changes(there, value)
            if inner:
                patch[key] = inner
        elif value != there:
            patch[key] = value
    return patch
