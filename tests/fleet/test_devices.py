"""Orders to a device as the user gives them: what a backend's answers become."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.devices import Device
from edgefleet.errors import (
    ConflictError,
    EdgeFleetError,
    InferenceError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from edgefleet.interfaces.abilities import CanInvoke, Reply
from edgefleet.interfaces.values import DeviceInfo
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.inference import HEADER_LENGTH
from edgefleet.protocol.orders import (
    CAPTURE,
    MAX_REASON,
    ROLLBACK,
    CaptureOrder,
    RollbackAnswer,
    RollbackOrder,
)

if TYPE_CHECKING:
    from edgefleet.interfaces.deployer import Deployer

DEEP = b'{"inputs":' + b"[" * 100_000
ANSWER = RollbackAnswer(changed=True, epoch=0, number=2, wanted=digest_of(b"wanted"))


class Answering(CanInvoke):
    """A backend whose only device answers everything with ``reply``."""

    provider = "answering"
    role = "deployer"

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked: list[tuple[str, bytes]] = []

    def _invoke(
        self, device: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> Reply:
        self.asked.append((path, body or b""))
        return self.reply


def device_of(backend: object) -> Device:
    found: Any = backend
    deployer: Deployer = found
    return Device(deployer, DeviceInfo(name="cam-07", group="line-3"))


@pytest.fixture(autouse=True)
def _actor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFLEET_ACTOR", "ada" * 100)


def test_an_order_says_who_and_why_as_far_as_it_may() -> None:
    backend = Answering(Reply(200, {}, encode(ANSWER)))
    assert device_of(backend).rollback(reason="x" * 1000) == ANSWER
    ((path, body),) = backend.asked
    order = decode(RollbackOrder, body)
    assert (path, order.by, order.reason) == (ROLLBACK, "ada" * 20, "x" * MAX_REASON)


def test_each_capture_is_an_order_of_its_own_unless_one_is_named() -> None:
    backend = Answering(Reply(500, {}, b""))
    device = device_of(backend)
    for order in (None, None, "order-0001"):
        with pytest.raises(InferenceError):
            device.capture("digits", count=3, order=order)
    ids = [decode(CaptureOrder, body).id for path, body in backend.asked if path == CAPTURE]
    assert len(set(ids)) == 3
    assert ids[2] == "order-0001"


@pytest.mark.parametrize(
    "status, kind",
    [
        (400, InvalidInputError),
        (404, NotFoundError),
        (409, ConflictError),
        (429, UnavailableError),
        (503, UnavailableError),
    ],
)
def test_a_refusal_keeps_its_cure(status: int, kind: type[EdgeFleetError]) -> None:
    said = json.dumps({"error": "no such thing", "cure": "get one"}).encode()
    with pytest.raises(kind, match="cam-07: no such thing") as caught:
        device_of(Answering(Reply(status, {}, said))).rollback()
    assert caught.value.cure == "get one"
    assert caught.value.operation == "rollback"


@pytest.mark.parametrize(
    "body",
    [b'{"error":"no such path"}', b"not json", b"[]", DEEP],
    ids=["path", "no", "list", "deep"],
)
def test_a_runtime_that_knows_no_orders_is_told_as_that(body: bytes) -> None:
    with pytest.raises(UnsupportedError, match="takes no orders") as caught:
        device_of(Answering(Reply(404, {}, body))).status()
    assert "update edgefleet-runtime" in str(caught.value.cure)


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b"{}", b'{"inputs":[{"name":"x"}]}', DEEP],
    ids=["page", "list", "no inputs", "no datatype", "deep"],
)
def test_metadata_that_no_runtime_gives_are_told(body: bytes) -> None:
    with pytest.raises(InferenceError, match="cam-07 answered with what can't be read") as caught:
        device_of(Answering(Reply(200, {}, body))).infer("digits", [1.0])
    assert "edgefleet-runtime" in str(caught.value.cure)


@pytest.mark.parametrize("length", ["", "x", "-1", "²", "9" * 5000], ids=["", "x", "-1", "²", "9"])
def test_an_answer_whose_header_has_no_length_is_told(length: str) -> None:
    said = b'{"inputs":[{"name":"x","datatype":"FP32"}],"model_name":"digits","outputs":[]}'
    backend = Answering(Reply(200, {HEADER_LENGTH.lower(): length}, said))
    with pytest.raises(InferenceError, match="is no whole number"):
        device_of(backend).infer("digits", [1.0])


@pytest.mark.parametrize("options", [{"count": 0}, {"count": 1001}, {"seconds": 0.0}])
def test_a_capture_out_of_bounds_is_refused_before_it_is_sent(options: dict[str, Any]) -> None:
    backend = Answering(Reply(200, {}, b""))
    with pytest.raises(InvalidInputError):
        device_of(backend).capture("digits", **options)
    assert backend.asked == []


def test_a_backend_that_reaches_no_device_is_told_as_that() -> None:
    class Silent:
        provider = "silent"
        role = "deployer"

    with pytest.raises(UnsupportedError):
        device_of(Silent()).rollback()
