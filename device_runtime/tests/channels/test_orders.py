"""Orders that come over a channel: who follows them, and how they are refused."""

from __future__ import annotations

import json
from concurrent.futures import Future
from datetime import UTC, datetime

import pytest

from edgefleet.errors import ConflictError, NotFoundError
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.orders import (
    CAPTURE,
    ROLLBACK,
    STATUS,
    TRIAL,
    CaptureAnswer,
    CaptureOrder,
    RollbackAnswer,
    RollbackOrder,
    TrialAnswer,
    TrialOrder,
)
from edgefleet_runtime.channels.orders import Hear, ordering
from edgefleet_runtime.channels.requests import Reply, Request

DONE = RollbackAnswer(changed=True, epoch=1, number=2, wanted=digest_of(b"wanted"))


class Hearing:
    """Follows orders with answers that are prepared."""

    def __init__(self) -> None:
        self.rollback: Future[RollbackAnswer] = Future()
        self.ordered: list[object] = []
        self.report = b'{"state":"active"}'
        hear = Hear(self._roll_back, self._capture, lambda: self.report, self._try_out)
        self._answer = ordering(hear, self._ask, patience_s=0.01)

    def __call__(self, path: str, body: bytes | None = None) -> Reply:
        return self._answer(Request(path, {}, body))

    def _ask(self, request: Request) -> Reply:
        return Reply(418, {}, request.path.encode())

    def _roll_back(self, order: RollbackOrder) -> Future[RollbackAnswer]:
        self.ordered.append(order)
        return self.rollback

    def _try_out(self, order: TrialOrder) -> TrialAnswer:
        self.ordered.append(order)
        if order.bundle is None:
            raise NotFoundError("no trial is remembered here", cure="order it again")
        return TrialAnswer(id="12345678", bundle=order.bundle, state="waiting")

    def _capture(self, order: CaptureOrder) -> CaptureAnswer:
        self.ordered.append(order)
        if order.model == "faces":
            raise NotFoundError("no faces", cure="served now: digits")
        until = datetime(2026, 11, 21, tzinfo=UTC)
        return CaptureAnswer(id="12345678", model=order.model, count=order.count, until=until)


def told(reply: Reply) -> tuple[int, dict[str, str]]:
    return reply.status, json.loads(reply.body)


def test_other_paths_are_the_servers() -> None:
    assert Hearing()("/v2/health/live") == Reply(418, {}, b"/v2/health/live")


def test_the_newest_report_is_given() -> None:
    hearing = Hearing()
    assert hearing(STATUS).body == hearing.report
    hearing.report = b""
    assert hearing(STATUS).status == 503


def test_a_rollback_is_answered_when_it_is_done() -> None:
    hearing = Hearing()
    hearing.rollback.set_result(DONE)
    order = RollbackOrder(by="ada", reason="smoke")
    reply = hearing(ROLLBACK, encode(order))
    assert (reply.status, decode(RollbackAnswer, reply.body)) == (200, DONE)
    assert hearing.ordered == [order]


@pytest.mark.parametrize(
    "error, status", [(NotFoundError("none", cure="c"), 404), (ConflictError("new", cure="c"), 409)]
)
def test_a_refusal_names_its_cure(error: Exception, status: int) -> None:
    hearing = Hearing()
    hearing.rollback.set_exception(error)
    assert told(hearing(ROLLBACK)) == (status, {"error": str(error.args[0]), "cure": "c"})


def test_an_order_that_is_not_begun_in_time_is_withdrawn() -> None:
    hearing = Hearing()
    status, said = told(hearing(ROLLBACK))
    assert (status, "nothing was rolled back" in said["error"]) == (503, True)
    assert hearing.rollback.cancelled()


def test_an_order_that_has_begun_goes_on() -> None:
    hearing = Hearing()
    hearing.rollback.set_running_or_notify_cancel()
    status, said = told(hearing(ROLLBACK))
    assert (status, "has begun" in said["error"]) == (503, True)


def test_a_capture_is_answered_at_once() -> None:
    hearing = Hearing()
    reply = hearing(CAPTURE, b'{"model":"digits","count":3,"version":1,"requires":[]}')
    assert decode(CaptureAnswer, reply.body).count == 3
    assert told(hearing(CAPTURE, encode(CaptureOrder(model="faces"))))[0] == 404


@pytest.mark.parametrize(
    "path, body",
    [
        (CAPTURE, b"{}"),
        (CAPTURE, b"garbage"),
        (CAPTURE, b'{"model":"digits","count":0,"version":1,"requires":[]}'),
        (CAPTURE, b'{"model":"digits","count":1001,"version":1,"requires":[]}'),
        (TRIAL, b'{"bundle":"no digest"}'),
        (TRIAL, b'{"bundle":"sha256:%s","calls":1001}' % (b"0" * 64)),
        (TRIAL, b'{"variants":[%s]}' % b",".join([b'"a"'] * 33)),
        (ROLLBACK, b"[]"),
        (ROLLBACK, b'{"reason":"%s"}' % (b"x" * 5000)),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(path: str, body: bytes) -> None:
    hearing = Hearing()
    assert hearing(path, body).status in {400, 429}
    assert hearing.ordered == []


def test_a_trial_is_answered_at_once() -> None:
    hearing = Hearing()
    order = TrialOrder(bundle=digest_of(b"bundle"), variants=("int8",))
    reply = hearing(TRIAL, encode(order))
    assert decode(TrialAnswer, reply.body).state == "waiting"
    assert hearing.ordered == [order]
    assert told(hearing(TRIAL)) == (
        404,
        {"error": "no trial is remembered here", "cure": "order it again"},
    )


def test_an_unknown_order_is_refused_with_those_there_are() -> None:
    status, said = told(Hearing()("/edgefleet/reboot"))
    assert (status, ROLLBACK in said["cure"]) == (404, True)
