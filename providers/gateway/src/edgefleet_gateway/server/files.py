"""Files of devices: segments and samples, in parts, each resumed where it stopped.

By "Resumable Uploads for HTTP" (draft-ietf-httpbis-resumable-upload), with one fixed address a
file instead of one that the server makes up: the path below the device's own prefix. The digest of
the whole (RFC 9530) comes with each part and tells contents apart. A part at another offset than
where the file ends is refused, so a part that is sent twice counts once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from edgefleet.errors import InvalidInputError, StorageFullError
from edgefleet.protocol.digest import digest_of_file
from edgefleet.protocol.gateway import (
    COMPLETE_HEADER,
    DIGEST_HEADER,
    LENGTH_HEADER,
    MAX_FILE_BYTES,
    MAX_PART_BYTES,
    OFFSET_HEADER,
    UPLOAD_TYPE,
    read_digest_field,
)
from edgefleet.protocol.names import check_path
from edgefleet_gateway.server.bodies import check_type, declared, pieces
from edgefleet_gateway.server.problems import RefusedError, reading

if TYPE_CHECKING:
    from starlette.requests import Request

    from edgefleet_gateway.server.gateway import Gateway
    from edgefleet_gateway.server.scratch import Partial

KINDS = ("segments", "samples")  # what devices keep below their own prefix
STRETCH_BYTES = 256 << 10  # held in memory before it is written


class _Part(NamedTuple):
    path: str
    digest: str
    offset: int
    length: int
    last: bool


async def tell(gateway: Gateway, request: Request) -> Response:
    """How much of a file is there."""
    caller = gateway.caller(request)
    with reading():
        path, digest = _path(request), _digest(request)
    partial = gateway.scratch.partial(caller.device, path, digest)
    if partial.done:
        return _standing(204, None, done=True)
    return _standing(204, partial.size, done=False)


async def go_on(gateway: Gateway, request: Request) -> Response:
    """Take the next part of a file; with the last, check the whole and hand it on."""
    caller = gateway.caller(request)
    check_type(request, UPLOAD_TYPE)
    with reading():
        part = _part(request)
    partial = gateway.scratch.partial(caller.device, part.path, part.digest)
    declared(request, max_bytes=min(MAX_PART_BYTES, part.length - part.offset))
    gateway.receiver()
    if partial.done:
        return _standing(204, None, done=True)
    key = str(partial.file)
    if key in gateway.busy:
        raise RefusedError(409, "another connection sends this file", headers={"Retry-After": "1"})
    if gateway.uploads.locked():
        raise RefusedError(503, "too many uploads at once")
    gateway.busy.add(key)
    try:
        async with gateway.uploads:
            await _take(gateway, request, partial, part)
            if not part.last:
                return _standing(204, partial.size, done=False)
            await _hand_on(gateway, partial, part)
            return _standing(201, None, done=True)
    finally:
        gateway.busy.discard(key)


async def _take(gateway: Gateway, request: Request, partial: Partial, part: _Part) -> None:
    place = partial.size
    if part.offset != place:
        raise RefusedError(409, "the file goes on elsewhere", headers={OFFSET_HEADER: str(place)})
    limit = min(MAX_PART_BYTES, part.length - part.offset)
    gateway.scratch.check_room(partial.device, limit)
    stretch = bytearray()

    async def write() -> None:
        nonlocal place
        data = bytes(stretch)
        stretch.clear()
        if not data:
            return
        at = place
        try:
            await gateway.thread(lambda: partial.append(data, at=at))
        except OSError as error:
            raise StorageFullError(
                f"a part can't be written: {error.strerror}", cure="send it again later"
            ) from error
        place += len(data)
        gateway.scratch.grown(partial.device, len(data))
        gateway.figures.taken_bytes.inc(len(data))

    try:
        async for piece in pieces(request, max_bytes=limit):
            stretch += piece
            if len(stretch) >= STRETCH_BYTES:
                await write()
    except ClientDisconnect:
        await asyncio.shield(write())  # it needn't be sent again
        raise
    await write()
    if part.last != (place == part.length):
        raise RefusedError(
            400,
            f"{part.length} bytes were announced, and {place} came",
            headers={OFFSET_HEADER: str(place)},
        )


async def _hand_on(gateway: Gateway, partial: Partial, part: _Part) -> None:
    receiver, forwards = gateway.receiver(), gateway.backends.forwards

    def work() -> bool:
        partial.append(b"", at=0)  # a file may be empty
        found, _ = digest_of_file(partial.file)
        if found == part.digest:
            receiver.receive_file(partial.device, part.path, partial.file)
            if forwards is not None:
                forwards.take_file(partial.device, part.path, partial.file)
            partial.finish()
            return True
        partial.drop()
        return False

    right = await gateway.thread(work)
    gateway.scratch.grown(partial.device, -part.length)
    if not right:
        raise RefusedError(
            400,
            "the file has another digest than was said",
            detail="send it again from its start",
            headers={OFFSET_HEADER: "0"},
        )


def _path(request: Request) -> str:
    path = check_path(request.path_params["path"], what="path of a file")
    if path.partition("/")[0] not in KINDS or "/" not in path:
        raise RefusedError(403, f"devices keep only {' and '.join(KINDS)} here")
    return path


def _digest(request: Request) -> str:
    return read_digest_field(request.headers.get(DIGEST_HEADER, ""))


def _part(request: Request) -> _Part:
    offset, length = _number(request, OFFSET_HEADER), _number(request, LENGTH_HEADER)
    complete = request.headers.get(COMPLETE_HEADER, "")
    if complete not in ("?0", "?1") or offset > length:
        raise InvalidInputError(
            f"no part of a file: its {COMPLETE_HEADER}, {OFFSET_HEADER} or {LENGTH_HEADER} is wrong"
        )
    if length > MAX_FILE_BYTES:
        raise RefusedError(413, f"a file has at most {MAX_FILE_BYTES} bytes")
    return _Part(_path(request), _digest(request), offset, length, complete == "?1")


def _number(request: Request, name: str) -> int:
    text = request.headers.get(name, "")
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise InvalidInputError(f"{name} is no number of bytes")
    return int(text)


def _standing(status: int, offset: int | None, *, done: bool) -> Response:
    headers = {COMPLETE_HEADER: "?1" if done else "?0", "Cache-Control": "no-store"}
    if offset is not None:
        headers[OFFSET_HEADER] = str(offset)
    return Response(status_code=status, headers=headers)
