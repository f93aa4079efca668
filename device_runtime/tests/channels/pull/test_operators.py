"""What operators ask of a device behind a gateway, and hot events that go there."""

from __future__ import annotations

import json
import threading
from typing import Any

import msgspec
import pytest

from device_runtime.tests.channels.pull.conftest import Make
from device_runtime.tests.channels.pull.standin import StandIn
from edgefleet.errors import UnavailableError
from edgefleet.protocol.event import Event, HealthEvent, new_event
from edgefleet.protocol.gateway import (
    EVENTS,
    EVENTS_TYPE,
    MAX_ANSWER_BYTES,
    MAX_EVENTS_BYTES,
    REQUESTS,
    WaitingRequest,
)
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.requests import MAX_WAITING, WORKERS, Answer, Reply, Request


def request(number: int, path: str = "/v2/models/digits/infer", **more: Any) -> WaitingRequest:
    return WaitingRequest(id=f"{number:032x}", path=path, **more)


def answer(gateway: StandIn, number: int) -> Answer:
    name = f"{number:032x}"
    eventually(lambda: name in gateway.answers)
    return msgspec.json.decode(gateway.answers[name], type=Answer)


def echo(asked: Request) -> Reply:
    return Reply(200, {"x-path": asked.path, **asked.headers}, (asked.body or b"") * 2)


def test_a_request_is_asked_of_the_runtime_and_answered(gateway: StandIn, make: Make) -> None:
    channel = make()
    channel.serve(echo)
    gateway.waiting = [request(1, headers={"x-one": "1"}, body=b"two")]
    channel.pointer()
    found = answer(gateway, 1)
    assert (found.status, found.body) == (200, b"twotwo")
    assert found.headers == {"x-path": "/v2/models/digits/infer", "x-one": "1"}


def test_a_device_that_waits_for_news_hears_requests_at_once(gateway: StandIn, make: Make) -> None:
    channel = make(wait_s=50.0)
    channel.serve(echo)
    channel.pointer()
    eventually(lambda: any("Prefer" in one.headers for one in gateway.asked))
    with gateway.news:
        gateway.waiting = [request(2)]
        gateway.news.notify_all()
    assert answer(gateway, 2).status == 200


def test_without_requests_none_are_fetched(gateway: StandIn, make: Make) -> None:
    channel = make()
    channel.serve(echo)
    channel.pointer()
    channel.poller.turn()
    assert REQUESTS not in gateway.paths()


def test_a_request_that_is_still_there_is_not_asked_twice(gateway: StandIn, make: Make) -> None:
    asked: list[Request] = []
    goes_on = threading.Event()

    def slow(one: Request) -> Reply:
        asked.append(one)
        goes_on.wait(90)
        return echo(one)

    channel = make()
    channel.serve(slow)
    gateway.waiting = [request(3)]
    channel.pointer()
    pause = channel.poller.turn()
    assert gateway.paths().count(REQUESTS) == 2
    assert 1 < pause < 5  # it doesn't ask in a circle, nor is it away for long
    goes_on.set()
    answer(gateway, 3)
    assert len(asked) == 1


def test_an_answer_that_no_gateway_takes_becomes_an_error(gateway: StandIn, make: Make) -> None:
    channel = make()
    channel.serve(lambda _: Reply(200, {}, b"x" * MAX_ANSWER_BYTES))
    gateway.waiting = [request(4)]
    channel.pointer()
    found = answer(gateway, 4)
    assert "bytes" in found.error
    assert not found.body


def test_a_runtime_that_is_not_there_is_an_error_for_who_asked(
    gateway: StandIn, make: Make
) -> None:
    def nobody(_: Request) -> Reply:
        raise UnavailableError("the runtime's server doesn't answer")

    channel = make()
    channel.serve(nobody)
    gateway.waiting = [request(5)]
    channel.pointer()
    assert "doesn't answer" in answer(gateway, 5).error


def test_a_runtime_that_breaks_ends_no_worker(gateway: StandIn, make: Make) -> None:
    def breaks(one: Request) -> Reply:
        if one.path == "/break":
            raise RuntimeError("unforeseen")
        return echo(one)

    channel = make()
    channel.serve(breaks)
    count = WORKERS + 1
    gateway.waiting = [*(request(10 + n, "/break") for n in range(count)), request(30)]
    channel.pointer()
    assert answer(gateway, 30).status == 200
    assert "RuntimeError" in answer(gateway, 10).error


def test_more_than_fits_is_answered_at_once(gateway: StandIn, make: Make) -> None:
    goes_on = threading.Event()

    def slow(one: Request) -> Reply:
        goes_on.wait(90)
        return echo(one)

    channel = make()
    channel.serve(slow)
    most = WORKERS + MAX_WAITING + 1
    gateway.waiting = [request(100 + n) for n in range(most)]
    channel.pointer()
    busy = eventually(lambda: [data for data in list(gateway.answers.values()) if b"busy" in data])
    assert busy
    goes_on.set()
    for n in range(most):
        answer(gateway, 100 + n)


@pytest.mark.parametrize("step", ["500", "half", "html"])
def test_requests_that_cannot_be_had_keep_no_pointer_away(
    gateway: StandIn, make: Make, step: str
) -> None:
    gateway.point(b'{"a pointer": 1}')
    channel = make()
    channel.serve(echo)
    gateway.only = ("GET", REQUESTS)
    gateway.script[:] = [step]
    gateway.waiting = [request(6)]
    assert channel.pointer() == b'{"a pointer": 1}'
    assert channel.access().state == "ok"
    channel.poller.turn()
    assert answer(gateway, 6).status == 200


# ---------------------------------------------------------------------------------- hot events


def health(text: str) -> Event:
    return new_event(HealthEvent(what="started", message=text))


def test_hot_events_go_as_a_batch_of_cloud_events(gateway: StandIn, make: Make) -> None:
    events = [health("one"), health("two")]
    make().send_hot(events)
    assert [one["id"] for one in gateway.events] == [one.id for one in events]
    assert gateway.asked[-1].headers["Content-Type"] == EVENTS_TYPE


def test_many_go_in_messages_within_the_limit(gateway: StandIn, make: Make) -> None:
    events = [health("x" * 20_000) for _ in range(30)]
    make().send_hot(events)
    assert [one["id"] for one in gateway.events] == [one.id for one in events]
    sizes = [len(one.body) for one in gateway.asked]
    assert len(sizes) > 1
    assert max(sizes) <= MAX_EVENTS_BYTES


def test_one_that_is_refused_for_what_it_is_holds_nobody_up(gateway: StandIn, make: Make) -> None:
    events = [health(str(number)) for number in range(4)]
    gateway.only = ("POST", EVENTS)
    gateway.script[:] = ["problem:400:no"] * 3  # all, the first half, the first of it
    make().send_hot(events)
    assert [one["id"] for one in gateway.events] == [one.id for one in events[1:]]


@pytest.mark.parametrize("step", ["503;3", "400", "405", "413", "html", "drop"])
def test_whatever_else_is_answered_loses_none(gateway: StandIn, make: Make, step: str) -> None:
    gateway.script[:] = [step]
    channel = make()
    with pytest.raises(UnavailableError):
        channel.send_hot([health("one")])
    channel.send_hot([health("one")])
    assert json.loads(json.dumps(gateway.events[0]))["type"]
