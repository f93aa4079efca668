"""What can't be read is refused in its turn: not within another answer, and not before it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgefleet.testing.waiting import eventually
from edgefleet_gateway.server.running import Serving
from edgefleet_gateway.server.wire import Connection, Limits
from providers.gateway.tests.exchanges import everything, waiting
from providers.gateway.tests.server_rig import Client, Fleet

POLL = b"GET /v1/pointer HTTP/1.1\r\nHost: gw\r\nPrefer: wait=50\r\n\r\n"
LONG = b"GET /v1/pointer HTTP/1.1\r\n" + b"X-Many: a\r\n" * 100  # without its end
PUT = b"PUT /v1/report HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n"


def connection(gateway: Serving) -> Connection:
    """The only one."""
    assert gateway._wire is not None
    [one] = gateway._wire.server_state.connections
    assert isinstance(one, Connection)
    return one


def statuses(answers: bytes) -> list[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    "more, status",
    [
        (b"GET /v1/po", 408),
        (b"nonsense\r\n\r\n", 400),
        (LONG, 431),
        (PUT + b"no length", 400),
    ],
    ids=["half a head", "no head", "a long head", "a body that is none"],
)
@pytest.mark.parametrize("together", [True, False])
def test_a_poll_that_waits_is_answered_before_what_came_behind_it_is_refused(
    fleet: Fleet, more: bytes, status: int, *, together: bool
) -> None:
    hurried = Limits(head_s=0.5)
    with (
        fleet.gateway(lambda options: replace(options, limits=hurried)) as gateway,
        fleet.device(gateway, "cam-1").raw() as raw,
    ):
        raw.sendall(POLL + more if together else POLL)
        eventually(lambda: waiting(gateway))
        if not together:
            raw.sendall(more)
        eventually(lambda: connection(gateway)._refused)
        fleet.publish()
        assert statuses(everything(raw)) == [200, status]


@pytest.mark.parametrize(
    "more, status", [(b"GET /v1/po", 408), (b"nonsense\r\n\r\n", 400)], ids=["half", "none"]
)
def test_a_download_is_whole_before_what_came_behind_it_is_refused(
    fleet: Fleet, more: bytes, status: int
) -> None:
    content = bytes(32 << 20)
    blob = fleet.blobs.put_bytes(content, "application/octet-stream")
    path = "/v1/blobs/" + blob.digest.replace(":", "/")
    hurried = Limits(head_s=0.5)
    with (
        fleet.gateway(lambda options: replace(options, limits=hurried)) as gateway,
        fleet.device(gateway, "cam-1").raw() as raw,
    ):
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: gw\r\n\r\n".encode() + more)
        begun = raw.recv(1)  # the rest stays unread until there is a refusal
        eventually(lambda: connection(gateway)._refused)
        head, _, rest = (begun + everything(raw)).partition(b"\r\n\r\n")
    assert statuses(head) == [200]
    assert rest.startswith(content)
    assert statuses(rest[len(content) :]) == [status]


def test_a_request_whose_body_is_none_has_one_answer(device: Client) -> None:
    with device.raw() as raw:
        raw.sendall(PUT + b"no length")
        assert statuses(everything(raw)) == [400]


def test_nothing_is_read_any_more_behind_what_was_refused(fleet: Fleet) -> None:
    with fleet.gateway() as gateway, fleet.device(gateway, "cam-1").raw() as raw:
        raw.sendall(POLL + LONG)
        eventually(lambda: waiting(gateway) and connection(gateway)._refused)
        raw.sendall(b"\r\n" + POLL)
        fleet.publish()
        assert statuses(everything(raw)) == [200, 431]
