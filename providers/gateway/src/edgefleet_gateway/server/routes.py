"""The one table of what is served: the application and the OpenAPI document are made from it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edgefleet.protocol import gateway as api
from edgefleet.protocol.event import Event
from edgefleet.protocol.gateway import Enrolment, Identity, Renewal, Requests, RuntimeOffer
from edgefleet.protocol.pointer import Pointer
from edgefleet.protocol.report import Report
from edgefleet_gateway.server import blobs, entry, files, orders, pointer, seeing, sent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from edgefleet_gateway.server.gateway import Gateway

    Handler = Callable[[Gateway, Request], Awaitable[Response]]

JSON = "application/json"
BYTES = "application/octet-stream"


class Who(Enum):
    """Who may ask."""

    ANYBODY = "anybody"
    DEVICE = "a device of the fleet"
    RENEWING = "a device of the fleet, also with a certificate that ended not long ago"
    OBSERVER = "whoever asks from a place that may observe"


class Content(NamedTuple):
    """A body: its media type, its shape where it is JSON, and its bytes at most."""

    media_type: str
    kind: type[msgspec.Struct] | None = None
    max_bytes: int = 0
    many: bool = False


class Field(NamedTuple):
    """A header field of a request or an answer."""

    name: str
    about: str
    required: bool = False


class Answer(NamedTuple):
    """What an answer with one status says."""

    about: str
    content: Content | None = None
    fields: tuple[Field, ...] = ()


class Operation(NamedTuple):
    """One operation.

    Attributes:
        name: in the OpenAPI document, the figures and the audit log.
        method: of HTTP.
        path: with parameters in braces.
        who: may ask.
        about: what it does.
        answers: does it.
        gives: its answers beside refusals, by status.
        takes: the body of the request.
        fields: header fields of the request.
        polled: whether answers that bring nothing new are left out of the audit log.
    """

    name: str
    method: str
    path: str
    who: Who
    about: str
    answers: Handler
    gives: dict[int, Answer]
    takes: Content | None = None
    fields: tuple[Field, ...] = ()
    polled: bool = False


ETAG = Field("ETag", "tells this content from others")
MATCH = Field("If-None-Match", "the ETag of what the device has")
RANGE = Field("Range", "one range of bytes")
PART = (
    Field(api.DIGEST_HEADER, "SHA-256 of the whole file, as RFC 9530 writes it", required=True),
)
UPLOAD = (
    *PART,
    Field(api.OFFSET_HEADER, "where this part begins, in bytes", required=True),
    Field(api.LENGTH_HEADER, "bytes of the whole file", required=True),
    Field(api.COMPLETE_HEADER, "?1 with the last part, else ?0", required=True),
)
STANDING = (
    Field(api.OFFSET_HEADER, "bytes that are there"),
    Field(api.COMPLETE_HEADER, "?1 when the file was taken whole, else ?0"),
)
TOLD = (
    Field(api.WAITING_HEADER, "requests of operators that wait for the device"),
    Field(api.OFFER_HEADER, "ETag of the runtime offered, where one is"),
    Field(api.POLL_HEADER, "seconds until a device that doesn't wait should ask again"),
)
BELONGS = {200: Answer("who the device is from now on", Content(JSON, Identity))}
WHOLE_OR_RANGE = {
    200: Answer("the bytes", Content(BYTES), (ETAG,)),
    206: Answer("the range that was asked for", Content(BYTES), (ETAG,)),
    304: Answer("the device has it"),
}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "getAuthorities",
        "GET",
        api.AUTHORITIES,
        Who.ANYBODY,
        "Certificates of the fleet's authority.",
        entry.authorities,
        {200: Answer("PEM", Content("application/x-pem-file"))},
    ),
    Operation(
        "enroll",
        "POST",
        api.ENROLL,
        Who.ANYBODY,
        "Make whoever has a token a device of the fleet.",
        entry.enroll,
        BELONGS,
        takes=Content(JSON, Enrolment, api.MAX_DOCUMENT_BYTES),
    ),
    Operation(
        "renew",
        "POST",
        api.RENEW,
        Who.RENEWING,
        "Give a device its next certificate.",
        entry.renew,
        BELONGS,
        takes=Content(JSON, Renewal, api.MAX_DOCUMENT_BYTES),
    ),
    Operation(
        "getPointer",
        "GET",
        api.POINTER,
        Who.DEVICE,
        "What the device's group should run; with a wait, as soon as there is news.",
        pointer.pointer,
        {
            200: Answer("the pointer", Content(JSON, Pointer), (ETAG, *TOLD)),
            204: Answer("the group has none yet", fields=TOLD),
            304: Answer("it is what the device has", fields=(ETAG, *TOLD)),
        },
        fields=(
            MATCH,
            Field("Prefer", "wait=SECONDS: answer when there is news, or after so many seconds"),
            Field(api.OFFER_HEADER, "ETag of the offer that the device knows"),
        ),
        polled=True,
    ),
    *(
        Operation(
            f"{method.lower()}Blob",
            method,
            api.BLOBS + "/sha256/{hex}",
            Who.DEVICE,
            "A blob of the fleet.",
            blobs.blob,
            WHOLE_OR_RANGE | {307: Answer("it lies elsewhere; ask there without a certificate")},
            fields=(RANGE, MATCH),
        )
        for method in ("GET", "HEAD")
    ),
    Operation(
        "putReport",
        "PUT",
        api.REPORT,
        Who.DEVICE,
        "Say what the device runs.",
        sent.report,
        {204: Answer("it was kept")},
        takes=Content(JSON, Report, api.MAX_DOCUMENT_BYTES),
    ),
    Operation(
        "postEvents",
        "POST",
        api.EVENTS,
        Who.DEVICE,
        "Send hot events, CloudEvents 1.0 in a batch. Each counts once, by its id.",
        sent.events,
        {204: Answer("they were kept")},
        takes=Content(api.EVENTS_TYPE, Event, api.MAX_EVENTS_BYTES, many=True),
    ),
    Operation(
        "headFile",
        "HEAD",
        api.FILES + "/{path}",
        Who.DEVICE,
        "How much of a file came.",
        files.tell,
        {204: Answer("so much", fields=STANDING)},
        fields=PART,
    ),
    Operation(
        "patchFile",
        "PATCH",
        api.FILES + "/{path}",
        Who.DEVICE,
        "Send the next part of a file. Its path begins with segments/ or samples/.",
        files.go_on,
        {
            201: Answer("the file was taken whole", fields=STANDING),
            204: Answer("the part was taken, or the whole file was there", fields=STANDING),
        },
        takes=Content(api.UPLOAD_TYPE, None, api.MAX_PART_BYTES),
        fields=UPLOAD,
    ),
    Operation(
        "getRequests",
        "GET",
        api.REQUESTS,
        Who.DEVICE,
        "Requests of operators that wait for the device.",
        orders.requests,
        {200: Answer("the oldest first", Content(JSON, Requests))},
    ),
    Operation(
        "putAnswer",
        "PUT",
        api.ANSWERS + "/{id}",
        Who.DEVICE,
        "Answer one of them.",
        orders.answer,
        {204: Answer("it was kept")},
        takes=Content(JSON, None, api.MAX_ANSWER_BYTES),
    ),
    Operation(
        "getRuntime",
        "GET",
        api.RUNTIME,
        Who.DEVICE,
        "The runtime that the device should be.",
        entry.runtime,
        {
            200: Answer("the offer", Content(JSON, RuntimeOffer), (ETAG,)),
            204: Answer("none was ordered"),
            304: Answer("it is the one that the device knows"),
        },
        fields=(MATCH,),
        polled=True,
    ),
    *(
        Operation(
            f"{method.lower()}Archive",
            method,
            api.ARCHIVES + "/sha256/{hex}",
            Who.ANYBODY,
            "An archive of a runtime that was ordered.",
            blobs.archive,
            WHOLE_OR_RANGE,
            fields=(RANGE, MATCH),
        )
        for method in ("GET", "HEAD")
    ),
    Operation(
        "getInstallScript",
        "GET",
        api.INSTALL,
        Who.ANYBODY,
        "The script that installs a runtime and enrols the device.",
        entry.install,
        {200: Answer("a POSIX shell script", Content("text/x-shellscript"))},
    ),
    Operation(
        "getOpenApi",
        "GET",
        "/openapi.json",
        Who.ANYBODY,
        "This document.",
        seeing.openapi,
        {200: Answer("OpenAPI 3.1", Content(JSON))},
    ),
    Operation(
        "getHealth",
        "GET",
        "/health",
        Who.OBSERVER,
        "Whether the gateway answers, and whether it reaches what it stands before.",
        seeing.health,
        {200: Answer("how it is", Content(JSON))},
        polled=True,
    ),
    Operation(
        "getMetrics",
        "GET",
        "/metrics",
        Who.OBSERVER,
        "Figures for Prometheus.",
        seeing.metrics,
        {200: Answer("text format 0.0.4", Content("text/plain"))},
        polled=True,
    ),
)
