"""Reports and hot events. Whose they are is said by the certificate, whatever is in them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from edgefleet.errors import DocumentError, UnknownFeatureError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Event, attributed, read_event
from edgefleet.protocol.gateway import EVENTS_TYPE, MAX_DOCUMENT_BYTES, MAX_EVENTS_BYTES
from edgefleet.protocol.report import read_report
from edgefleet_gateway.records import ReportRecord
from edgefleet_gateway.server.bodies import check_type, whole
from edgefleet_gateway.server.problems import RefusedError, reading

if TYPE_CHECKING:
    from starlette.requests import Request

    from edgefleet_gateway.server.gateway import Gateway

_BATCH = msgspec.json.Decoder(list[msgspec.Raw])


async def report(gateway: Gateway, request: Request) -> Response:
    """Keep a device's newest report."""
    caller = gateway.caller(request)
    check_type(request, "application/json")
    body = await whole(request, max_bytes=MAX_DOCUMENT_BYTES)
    # A feature that isn't known here is of a newer runtime, for an operator who knows it.
    with reading(), suppress(UnknownFeatureError):
        read_report(body)
    record = encode(ReportRecord(report=body, came=gateway.now(), machine=caller.record.machine))
    key = gateway.mirror.keys.report(caller.device)
    state = gateway.backends.state
    await gateway.mirror.call(lambda: state.update(key, lambda _: record))
    return Response(status_code=204)


async def events(gateway: Gateway, request: Request) -> Response:
    """Keep hot events, and send them on. Those that are none are refused, the others taken."""
    caller = gateway.caller(request)
    check_type(request, EVENTS_TYPE)
    body = await whole(request, max_bytes=MAX_EVENTS_BYTES)
    taken, wrong = read_batch(body, caller.device)
    receiver, forwards = gateway.receiver(), gateway.backends.forwards

    def work() -> None:
        if forwards is not None:  # first: systems beside the gateway hear of an alarm that
            forwards.take(caller.device, taken)  # telemetry, far away, can't take now
        receiver.receive_hot(caller.device, taken)

    await gateway.thread(work)
    gateway.figures.taken_events.inc(len(taken))
    if wrong:
        raise RefusedError(
            400,
            f"{len(wrong)} of {len(taken) + len(wrong)} events are none; the others were taken",
            detail=wrong[0][:500],
        )
    return Response(status_code=204)


def read_batch(body: bytes, device: str) -> tuple[list[Event], list[str]]:
    """The events of a batch in a device's name, and what is wrong with those that are none.

    Raises:
        RefusedError: it is no batch at all.
    """
    try:
        raw = _BATCH.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RefusedError(400, "no batch of events", detail=str(error)[:500]) from error
    taken: list[Event] = []
    wrong: list[str] = []
    for number, one in enumerate(raw, 1):
        try:
            taken.append(attributed(read_event(memoryview(one)), device))
        except DocumentError as error:
            wrong.append(f"event {number}: {error.message}")
    return taken, wrong
