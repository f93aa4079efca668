"""What tests of the gateway send, and how they wait for what must come."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime

from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.gateway import digest_field
from edgefleet.protocol.report import Health, Report
from edgefleet_gateway.server.running import Serving
from providers.gateway.tests.server_rig import Answer, Client, Fleet

JSON = {"Content-Type": "application/json"}
EVENTS = {"Content-Type": "application/cloudevents-batch+json"}
REPORT = Report(
    sequence=1,
    time=datetime(2026, 11, 22, tzinfo=UTC),
    state="idle",
    runtime="1.2.3",
    health=Health(pid=1, started=datetime(2026, 11, 22, tzinfo=UTC)),
)


def waiting(gateway: Serving) -> int:
    assert gateway.gateway is not None
    return gateway.gateway.waiting


def heard(fleet: Fleet, gateway: Serving) -> bool:
    """Whether a gateway has heard of all that was changed: until then what it holds may go."""
    assert gateway.gateway is not None
    bell = gateway.gateway.mirror._bell
    return bell is not None and bell.number == fleet.rig.roster.bell().number


def polled(device: Client, **headers: str) -> tuple[threading.Thread, list[Answer]]:
    """A poll that waits, in a thread."""
    answers: list[Answer] = []
    asking = threading.Thread(
        target=lambda: answers.append(device.get("/v1/pointer", Prefer="wait=50", **headers))
    )
    asking.start()
    return asking, answers


def patch(
    device: Client, path: str, content: bytes, start: int, end: int, **headers: str
) -> Answer:
    """Send a part of a file."""
    told = {
        "Content-Type": "application/partial-upload",
        "Repr-Digest": digest_field(digest_of(content)),
        "Upload-Offset": str(start),
        "Upload-Length": str(len(content)),
        "Upload-Complete": "?1" if end == len(content) else "?0",
    }
    told |= {key.replace("_", "-"): value for key, value in headers.items()}
    return device.ask("PATCH", f"/v1/files/{path}", content[start:end], told)


SEGMENT = "segments/date=2026-11-22/model=digits/0001.ndjson.zst"


def everything(client: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    received = bytearray()
    try:
        while data := client.recv(65536):
            received += data
    except (ConnectionError, ssl.SSLError):
        pass
    return bytes(received)
