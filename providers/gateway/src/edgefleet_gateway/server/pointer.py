"""What a group should run: with an ETag, at once or when there is news."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import Response

from edgefleet.protocol.gateway import MAX_WAIT_S, OFFER_HEADER, POLL_HEADER, WAITING_HEADER

if TYPE_CHECKING:
    from starlette.requests import Request

    from edgefleet_gateway.mirror import Tagged
    from edgefleet_gateway.server.gateway import Gateway
    from edgefleet_gateway.server.who import Caller

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6})(?:$|[,;\s])")


class _Now(NamedTuple):
    """What a device is told at one moment."""

    pointer: Tagged | None
    offer: Tagged | None
    waiting: int


async def pointer(gateway: Gateway, request: Request) -> Response:
    """Answer at once what differs from what the device has; else when it does, or 304 at the end.

    A device that knows of a runtime's offer names its ETag in `OFFER_HEADER`, and is then told of
    another one at once too.
    """
    caller = gateway.caller(request)
    held, offered = request.headers.get("if-none-match"), request.headers.get(OFFER_HEADER)
    ends = gateway.clock() + wanted_wait(request, gateway.settings.longest_wait_s)
    while True:
        turn = gateway.mirror.turn()
        now = await _now(gateway, caller)
        news = (
            now.waiting
            or not _same(held, now.pointer)
            or (offered is not None and not _same(offered, now.offer))
        )
        left = ends - gateway.clock()
        if news or left <= 0 or gateway.mirror.closed:
            return _answer(gateway, held, now)
        topics = (
            f"pointer/{caller.record.group}",
            f"runtime/{caller.record.group}",
            f"waiting/{caller.device}",
            f"device/{caller.device}",
        )
        if await gateway.news(request, topics, turn, left) and not gateway.mirror.closed:
            caller = await gateway.identify(request)  # moved, or revoked meanwhile
            if offered is None and gateway.mirror.newer(f"runtime/{caller.record.group}", turn):
                return _answer(gateway, held, await _now(gateway, caller))


def wanted_wait(request: Request, longest_s: float) -> float:
    """Seconds that a request is ready to wait, by ``Prefer: wait`` (RFC 7240), within our limit."""
    found = _WAIT.search(request.headers.get("prefer", ""))
    return 0.0 if found is None else min(float(found[1]), longest_s, MAX_WAIT_S)


async def _now(gateway: Gateway, caller: Caller) -> _Now:
    group = caller.record.group
    return _Now(
        await gateway.mirror.pointer(group),
        await gateway.mirror.runtime(group),
        len(gateway.handed.fresh(caller.device, gateway.mirror.waiting(caller.device))),
    )


def _same(held: str | None, document: Tagged | None) -> bool:
    return held == (None if document is None else document.etag)


def _answer(gateway: Gateway, held: str | None, now: _Now) -> Response:
    headers = {
        "Cache-Control": "no-store",
        POLL_HEADER: f"{gateway.settings.poll_s:g}",
        WAITING_HEADER: str(now.waiting),
    }
    if now.offer is not None:
        headers[OFFER_HEADER] = now.offer.etag
    if now.pointer is None:
        return Response(status_code=204, headers=headers)
    headers["ETag"] = now.pointer.etag
    if _same(held, now.pointer):
        return Response(status_code=304, headers=headers)
    return Response(now.pointer.body, media_type="application/json", headers=headers)
