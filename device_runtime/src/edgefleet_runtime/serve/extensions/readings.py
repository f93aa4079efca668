"""Readings over HTTP: numbers of sensors and applications, for the watch.

``POST /v2/edgefleet/readings`` takes a JSON array, or one JSON object a line, of::

    {
        "stream": "reefer",
        "key": "MSKU1234565",
        "values": {"temperature": -18.2},
        "time": "2026-11-21T12:00:00Z",
    }

``key`` and ``time`` may be left out. Rules kept here:

- All of a request is read before any of it counts; one that is malformed refuses the whole and
  says which it is, counted from 0.
- What finds no room is said, with how many were taken.
- No web page may send any: a browser would let every page of the world do it.
- A server loads this module with the first reading: a start must stay light.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec

from edgefleet.errors import AccessDeniedError, InvalidInputError, LimitExceededError
from edgefleet.protocol.event import Number, Reading
from edgefleet.protocol.policy import StreamName
from edgefleet.protocol.typed import UNREADABLE, decoder
from edgefleet_runtime.serve.messages import Response, decompressed, json_response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_runtime.serve.messages import Request

    Hear = Callable[[Reading, float | None], bool]

MAX_BODY_BYTES = 1 << 20  # after decompression
MAX_READINGS = 4096  # of one request
RETRY_AFTER_S = "1"


_Several = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_READINGS + 1)]


class Sent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One reading as it is sent."""

    stream: StreamName
    values: Annotated[
        dict[Annotated[str, msgspec.Meta(min_length=1, max_length=128)], Number],
        msgspec.Meta(min_length=1, max_length=64),
    ]
    key: Annotated[str, msgspec.Meta(max_length=128)] = ""
    time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class Readings:
    """Answers requests with readings.

    Args:
        hear: takes a reading and the time that it was sent with, in seconds since 1970; says
            whether there was room for it.
    """

    def __init__(self, hear: Hear) -> None:
        self._hear = hear

    def answer(self, request: Request) -> Response:
        """Take the readings of a request.

        Raises:
            AccessDeniedError: a web page sent it.
            InvalidInputError: a reading is malformed.
            LimitExceededError: they are too many for one request.
        """
        if b"origin" in request.headers:  # a browser's word (Fetch standard, 3.2)
            raise AccessDeniedError("no web page may send readings", cure="use a client program")
        encoding = request.headers.get(b"content-encoding", b"").decode("latin-1")
        body = request.body
        if encoding:
            body = decompressed(body, encoding, max_bytes=MAX_BODY_BYTES)
        sent = read_readings(body)
        for number, each in enumerate(sent):
            reading = Reading(stream=each.stream, key=each.key, values=each.values)
            if not self._hear(reading, each.time.timestamp() if each.time else None):
                said = f"there is no room: the first {number} of {len(sent)} readings were taken"
                headers = (("Retry-After", RETRY_AFTER_S),)
                return json_response(503, {"error": said, "taken": number}, headers=headers)
        return json_response(200, {"taken": len(sent)})


def read_readings(body: bytes) -> list[Sent]:
    """Readings out of a JSON array, or of one object a line.

    Raises:
        InvalidInputError: one is malformed; the message says which, from 0.
        LimitExceededError: there are too many, or they take too many bytes.
    """
    if len(body) > MAX_BODY_BYTES:
        msg = f"readings of {len(body)} bytes are over the limit of {MAX_BODY_BYTES}"
        raise LimitExceededError(msg, cure="send them in several requests")
    found: list[Sent] = []
    for number, data in enumerate(_each(body)):
        if number >= MAX_READINGS:
            msg = f"there are more than {MAX_READINGS} readings in one request"
            raise LimitExceededError(msg, cure="send them in several requests")
        try:
            found.append(decoder(Sent).decode(data))
        except UNREADABLE as error:
            raise InvalidInputError(
                f"reading {number}: {error}",
                cure='send {"stream": "NAME", "key": "KEY", "values": {"NAME": 1.5}}',
            ) from error
    return found


def _each(body: bytes) -> Iterator[bytes | msgspec.Raw]:
    if not body.lstrip().startswith(b"["):
        yield from (line for line in body.splitlines() if line.strip())
        return
    try:
        yield from decoder(_Several).decode(body)
    except UNREADABLE as error:
        raise InvalidInputError(f"the readings are no JSON array: {error}") from error
