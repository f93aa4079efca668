"""Requests of operators: what lies in the state store while one waits, and what is left."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgefleet.errors import (
    DocumentError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    UnavailableError,
)
from edgefleet.plugins.provider import Context
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.gateway import WaitingRequest
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.deployer import GatewayDeployer
from edgefleet_gateway.records import (
    AnswerRecord,
    Bell,
    Certificate,
    DeviceRecord,
    Keys,
    RequestRecord,
    SeenRecord,
)
from edgefleet_gateway.requests import LEFT_S, MAX_BODY_BYTES, MAX_WAITING
from edgefleet_gateway.roster import utc_now
from edgefleet_gateway.settings import GatewaySettings
from edgefleet_local.state import DirectoryStateStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.interfaces.state import Stored

KEYS = Keys("edgefleet")
ORDER = "/v2/health/ready"
TIMEOUT_S = 60.0  # for what takes moments
SHORT_S = 0.05


@pytest.fixture
def deployer(store: DirectoryStateStore, home: Path) -> GatewayDeployer:
    return deployer_on(store, home)


def deployer_on(store: DirectoryStateStore, home: Path) -> GatewayDeployer:
    context = Context(base=home, name="gateway", state=lambda: store)
    made = GatewayDeployer(GatewaySettings(), context)
    made.enroll("a", group="line-3")
    return made


def bell(store: DirectoryStateStore) -> Bell:
    stored = store.read(KEYS.bell)
    assert stored is not None
    return decode(Bell, stored.data)


def answering(store: DirectoryStateStore, answer: Callable[[WaitingRequest], bytes]) -> None:
    """Answer the next request to the device, as its gateway does."""

    def wait() -> None:
        ids = eventually(lambda: bell(store).waiting.get("a", ()), "a request")
        stored = store.read(KEYS.request("a", ids[0]))
        assert stored is not None
        request = decode(RequestRecord, stored.data).request
        record = encode(AnswerRecord(answer=answer(request), came=utc_now()))
        store.write(KEYS.answer("a", request.id), record, expect=None)

    threading.Thread(target=wait, daemon=True).start()


def on_wire(status: int, body: bytes) -> bytes:
    return msgspec.json.encode({"status": status, "headers": {"x": "y"}, "body": body})


def left(store: DirectoryStateStore) -> list[str]:
    return [key for below in (KEYS.requests, KEYS.answers) for key in store.keys(below)]


def test_a_request_is_answered_and_nothing_is_left(
    deployer: GatewayDeployer, store: DirectoryStateStore
) -> None:
    asked: list[WaitingRequest] = []

    def answer(request: WaitingRequest) -> bytes:
        asked.append(request)
        return on_wire(200, b"\xff\x00")

    answering(store, answer)
    reply = deployer.invoke("a", ORDER, body=b"\x00", headers={"k": "v"}, timeout_s=TIMEOUT_S)
    assert (reply.status, reply.headers, reply.body) == (200, {"x": "y"}, b"\xff\x00")
    assert [(one.path, one.headers, one.body) for one in asked] == [(ORDER, {"k": "v"}, b"\x00")]
    assert left(store) == []
    assert bell(store).waiting == {}


def test_the_largest_request_and_its_document_fit(
    deployer: GatewayDeployer, store: DirectoryStateStore
) -> None:
    answering(store, lambda request: on_wire(200, str(len(request.body or b"")).encode()))
    body = bytes(MAX_BODY_BYTES)
    assert deployer.invoke("a", ORDER, body=body, timeout_s=TIMEOUT_S).body == b"368640"
    with pytest.raises(LimitExceededError, match="fewer rows"):
        deployer.invoke("a", ORDER, body=body + b"\0")


def test_an_answer_that_makes_no_sense_is_told_as_that(
    deployer: GatewayDeployer, store: DirectoryStateStore
) -> None:
    answering(store, lambda _: b"no json")
    with pytest.raises(DocumentError):
        deployer.invoke("a", ORDER, timeout_s=TIMEOUT_S)
    answering(store, lambda _: b'{"error":"no model"}')
    with pytest.raises(UnavailableError, match="no model"):
        deployer.invoke("a", ORDER, timeout_s=TIMEOUT_S)
    assert left(store) == []


def test_who_waits_in_vain_learns_why(
    deployer: GatewayDeployer, store: DirectoryStateStore
) -> None:
    def said() -> str:
        with pytest.raises(UnavailableError) as caught:
            deployer.invoke("a", ORDER, timeout_s=SHORT_S)
        return str(caught.value)

    def seen(gateway: timedelta, **devices: timedelta) -> None:
        now = utc_now()
        ages = {name: int((now - age).timestamp()) for name, age in devices.items()}
        record = encode(SeenRecord(written=now - gateway, devices=ages))
        store.update(KEYS.seen("gw-1", 0), lambda _: record)

    def certificate(ends: timedelta, *, revoked: bool = False) -> None:
        def change(data: bytes | None) -> bytes:
            assert data is not None
            one = Certificate(serial="1", ends=utc_now() + ends)
            there = decode(DeviceRecord, data)
            return encode(msgspec.structs.replace(there, certificates=(one,), revoked=revoked))

        store.update(KEYS.device("a"), change)

    assert "no gateway has ever been seen" in said()
    assert "edgefleet gateway serve" in said()
    seen(timedelta(minutes=7))
    assert "no gateway has been seen for 7 minutes" in said()
    seen(timedelta())
    assert "edgefleet device enroll a --group line-3" in said()
    seen(timedelta(), a=timedelta(days=2, minutes=1))
    assert "last seen 2 days ago" in said()
    seen(timedelta(), a=timedelta())
    assert "didn't answer within" in said()
    certificate(-timedelta(days=400))
    assert "too long ago to renew it" in said()
    certificate(timedelta(days=1), revoked=True)
    assert "revoked" in said()
    assert left(store) == []
    assert bell(store).waiting == {}


def test_a_device_takes_so_many_requests_at_once(
    deployer: GatewayDeployer, store: DirectoryStateStore
) -> None:
    full = Bell(number=9, waiting={"a": tuple(f"{n:032x}" for n in range(MAX_WAITING))})
    store.update(KEYS.bell, lambda _: encode(full))
    with pytest.raises(LimitExceededError, match="wait"):
        deployer.invoke("a", ORDER, timeout_s=SHORT_S)


def test_what_nobody_fetched_is_swept_away(
    deployer: GatewayDeployer, store: DirectoryStateStore
) -> None:
    old, now = utc_now() - timedelta(seconds=LEFT_S + 1), utc_now()
    ids = {"old": "1" * 32, "living": "2" * 32, "lost": "3" * 32}
    for name, ends in (("old", old), ("living", now)):
        request = WaitingRequest(id=ids[name], path=ORDER)
        data = encode(RequestRecord(request=request, ends=ends))
        store.write(KEYS.request("b", ids[name]), data, expect=None)
    for name, came in (("lost", old), ("living", now)):
        data = encode(AnswerRecord(answer=b"{}", came=came))
        store.write(KEYS.answer("b", ids[name]), data, expect=None)
    waiting = Bell(number=9, waiting={"b": tuple(ids.values())})
    store.update(KEYS.bell, lambda _: encode(waiting))
    with pytest.raises(UnavailableError):
        deployer.invoke("a", ORDER, timeout_s=SHORT_S)
    assert left(store) == [KEYS.request("b", ids["living"]), KEYS.answer("b", ids["living"])]
    assert bell(store).waiting == {"b": (ids["living"],)}


def test_a_store_that_is_away_for_a_while_costs_no_answer(
    store: DirectoryStateStore, home: Path
) -> None:
    class Away(DirectoryStateStore):
        """Gives no answers the first few times."""

        failures = 3

        def _read(self, key: str) -> Stored | None:
            if key.startswith(KEYS.answers) and self.failures:
                self.failures -= 1
                raise ConnectionResetError("the store is away")
            return super()._read(key)

    away = Away(home)
    deployer = deployer_on(away, home)
    answering(store, lambda _: on_wire(200, b"there"))
    assert deployer.invoke("a", ORDER, timeout_s=TIMEOUT_S).body == b"there"
    assert away.failures == 0
    away.failures = 1000
    with pytest.raises(UnavailableError, match="the store is away"):
        deployer.invoke("a", ORDER, timeout_s=SHORT_S)


def test_nonsense_is_refused_before_anything_is_written(
    deployer: GatewayDeployer, store: DirectoryStateStore
) -> None:
    before = bell(store).number
    with pytest.raises(InvalidInputError):
        deployer.invoke("a", "no slash")
    with pytest.raises(NotFoundError):
        deployer.invoke("b", ORDER)
    assert bell(store).number == before
