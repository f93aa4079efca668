"""Requests of operators to a device, and its answers."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from starlette.responses import Response

from edgefleet.errors import ConflictError
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.gateway import MAX_ANSWER_BYTES, Requests, WaitingRequest
from edgefleet_gateway.records import AnswerRecord, RequestRecord
from edgefleet_gateway.server.bodies import whole
from edgefleet_gateway.server.problems import RefusedError

if TYPE_CHECKING:
    from starlette.requests import Request

    from edgefleet_gateway.server.gateway import Gateway

MAX_BYTES = 1 << 20  # of the requests that are handed out at once
_ID = re.compile(r"[0-9a-f]{32}")


async def requests(gateway: Gateway, request: Request) -> Response:
    """Hand out what waits, the oldest first, and what the operator hasn't given up."""
    caller = gateway.caller(request)
    found: list[WaitingRequest] = []
    size = 0
    for one in gateway.handed.open(caller.device, gateway.mirror.waiting(caller.device)):
        key = gateway.mirror.keys.request(caller.device, one)
        stored = await gateway.mirror.call(partial(gateway.backends.state.read, key))
        if stored is None:
            continue  # answered or given up since the last look
        size += len(stored.data)
        if found and size > MAX_BYTES:
            break
        record = decode(RequestRecord, stored.data)
        if record.ends > gateway.now():
            found.append(record.request)
    gateway.handed.give(caller.device, (one.id for one in found))
    return Response(
        encode(Requests(waiting=tuple(found))),
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


async def answer(gateway: Gateway, request: Request) -> Response:
    """Keep the answer to one. The same again changes nothing."""
    caller = gateway.caller(request)
    one: str = request.path_params["id"]
    if not _ID.fullmatch(one):
        raise RefusedError(404, "no such request")
    body = await whole(request, max_bytes=MAX_ANSWER_BYTES)
    keys, state = gateway.mirror.keys, gateway.backends.state
    asked = keys.request(caller.device, one)
    if await gateway.mirror.call(partial(state.read, asked)) is None:
        raise RefusedError(404, "nobody waits for this answer")
    record = encode(AnswerRecord(answer=body, came=gateway.now()))
    key = keys.answer(caller.device, one)

    def write() -> None:
        try:
            state.write(key, record, expect=None)
        except ConflictError:
            return  # it was answered before

    await gateway.mirror.call(write)
    gateway.handed.answered(caller.device, one)
    return Response(status_code=204)
