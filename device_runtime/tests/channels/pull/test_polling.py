"""When a device asks for its pointer, what it keeps, and when it asks again."""

from __future__ import annotations

import random
import threading

import pytest

from device_runtime.tests.channels.pull.conftest import Make
from device_runtime.tests.channels.pull.standin import StandIn
from device_runtime.tests.support import Clock
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.pull.polling import (
    AT_ONCE,
    FIRST_S,
    LEAST_S,
    REFUSED_S,
    News,
    Poller,
)
from edgefleet_runtime.channels.pull.standing import Standing
from edgefleet_runtime.retry import LONGEST_S


def chance() -> random.Random:
    return random.Random(7)


def test_before_the_first_pointer_there_is_none(gateway: StandIn, make: Make) -> None:
    channel = make()
    assert channel.pointer() is None
    assert channel.access().state == "ok"


def test_the_pointer_comes_as_it_is(gateway: StandIn, make: Make) -> None:
    gateway.point(b'{"a pointer": 1}')
    assert make().pointer() == b'{"a pointer": 1}'


def test_what_is_held_is_not_sent_again(gateway: StandIn, make: Make) -> None:
    gateway.point(b'{"a pointer": 1}')
    channel = make()
    channel.pointer()
    channel.poller.turn()
    assert gateway.asked[-1].headers["If-None-Match"].startswith('"')
    assert channel.pointer() == b'{"a pointer": 1}'


def test_news_wake_a_device_that_waits(gateway: StandIn, make: Make) -> None:
    channel = make(wait_s=50.0)
    assert channel.pointer() is None
    channel.wait(0)  # of the first call
    eventually(lambda: "Prefer" in gateway.asked[-1].headers)
    assert gateway.asked[-1].headers["Prefer"] == "wait=50"
    gateway.point(b'{"a pointer": 2}')
    assert channel.wait(90)
    assert channel.pointer() == b'{"a pointer": 2}'


def test_wake_ends_a_wait_at_once(make: Make) -> None:
    channel = make()
    channel.wake()
    assert channel.wait(90)
    assert not channel.wait(0)


def test_a_gateway_that_let_the_device_wait_is_asked_again_at_once(
    gateway: StandIn, make: Make, clock: Clock
) -> None:
    channel = make(clock=clock, wait_s=50.0, poll_s=60.0, start=lambda _name, _work: None)
    channel.pointer()
    gateway.patience_s = 0.0

    def passes() -> float:
        clock.now += 25.0  # between the question and the answer
        return clock.now

    assert channel.poller.turn() > 40  # an answer at once: it doesn't let devices wait
    channel.poller._clock = passes
    assert channel.poller.turn() <= 2 * LEAST_S


def test_a_device_that_is_asked_something_asks_on_at_once_but_not_without_end(
    clock: Clock,
) -> None:
    poller = Poller(
        lambda _held, _wait_s: News(None, None, asked=True),
        Standing(),
        lambda: None,
        wait_s=50.0,
        poll_s=60.0,
        clock=clock,
    )
    began = clock.now
    for _ in range(AT_ONCE):
        assert poller.turn() < LEAST_S / 1000
    for _ in range(300):
        clock.now += poller.turn()
    assert clock.now - began == pytest.approx(300 * LEAST_S)
    clock.now += 60
    assert poller.turn() == 0


def test_pauses_have_jitter_around_the_gateways_word(gateway: StandIn, make: Make) -> None:
    channel = make(jitter=chance(), poll_s=100.0)
    channel.pointer()
    pauses = {round(channel.poller.turn(), 6) for _ in range(20)}
    assert len(pauses) > 15
    assert min(pauses) >= 80
    assert max(pauses) <= 120


def test_failures_double_the_pause_and_one_success_resets_it(gateway: StandIn, make: Make) -> None:
    gateway.point(b'{"a pointer": 1}')
    channel = make(jitter=chance(), poll_s=60.0)
    channel.pointer()
    gateway.script[:] = ["500"] * 12
    pauses = [channel.poller.turn() for _ in range(12)]
    for number, pause in enumerate(pauses):
        most = min(FIRST_S * 2**number, LONGEST_S)
        assert most / 2 <= pause <= most
    assert channel.access().state == "unknown"
    assert channel.pointer() == b'{"a pointer": 1}'
    channel.poller.turn()
    assert channel.access().state == "ok"
    gateway.script[:] = ["500"]
    assert channel.poller.turn() <= FIRST_S


@pytest.mark.parametrize("status", ["429;120", "503;120"])
def test_retry_after_is_honoured_and_a_busy_gateway_refuses_nobody(
    gateway: StandIn, make: Make, status: str
) -> None:
    channel = make()
    channel.pointer()
    gateway.script[:] = [status]
    assert 120 <= channel.poller.turn() <= 150
    assert channel.access().state == "ok"


def test_no_gateway_may_send_a_device_away_for_long(gateway: StandIn, make: Make) -> None:
    channel = make()
    channel.pointer()
    gateway.script[:] = ["503;99999999"]
    assert channel.poller.turn() <= 900 * 1.25


@pytest.mark.parametrize("code", ["revoked", "unknown-device"])
def test_a_device_that_is_refused_says_so_and_asks_on_seldom(
    gateway: StandIn, make: Make, code: str
) -> None:
    gateway.point(b'{"a pointer": 1}')
    channel = make()
    channel.pointer()
    gateway.script[:] = [f"problem:403:{code}"]
    assert channel.poller.turn() >= REFUSED_S
    said = channel.access()
    assert said.state == "denied"
    assert "invite this device again" in str(said.detail)
    assert channel.pointer() == b'{"a pointer": 1}'
    channel.poller.turn()
    assert channel.access().state == "ok"


@pytest.mark.parametrize("status", ["404", "410", "500"])
def test_other_refusals_keep_what_is_held(gateway: StandIn, make: Make, status: str) -> None:
    gateway.point(b'{"a pointer": 1}')
    channel = make()
    channel.pointer()
    gateway.script[:] = [status]
    channel.poller.turn()
    said = channel.access()
    assert said.state == "unknown"
    assert status in str(said.detail)
    assert channel.pointer() == b'{"a pointer": 1}'


def test_closing_ends_a_call_that_waits(gateway: StandIn, make: Make) -> None:
    channel = make(wait_s=50.0)
    channel.pointer()
    eventually(lambda: "Prefer" in gateway.asked[-1].headers)
    channel.close()
    eventually(lambda: not any(each.name == "pull-poll" for each in threading.enumerate()))
