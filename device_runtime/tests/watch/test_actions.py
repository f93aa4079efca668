"""Actions: carried out once, in threads of their own, and told where they fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_runtime.tests.watch.receivers import Broker, Receiver
from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
)
from edgefleet.protocol.event import Alarm, Event, HealthEvent, new_event, read_event
from edgefleet.protocol.policy import Action, AlarmRule
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.watch.actions import pool as pool_module
from edgefleet_runtime.watch.actions.pool import APART_S, GIVE_WAY_S, MAX_WAITING, Actions
from edgefleet_runtime.watch.actions.registered import registered_action
from edgefleet_runtime.watch.actions.settings import ActionSettings

EVENT = new_event(Alarm(rule="hot", message="it is hot", stream="motor", key="m1"))


# ----------------------------------------------------------------------------- registered actions

CALLED: list[Alarm] = []
HOLD = threading.Event()


def remember(alarm: Alarm) -> None:
    CALLED.append(alarm)


def hold(_alarm: Alarm) -> None:
    HOLD.wait(60)


def fail(_alarm: Alarm) -> None:
    raise RuntimeError("the valve is stuck")


def test_action_is_found_by_its_name() -> None:
    found = registered_action("note", {"note": f"{__name__}:remember"})
    assert found is remember


@pytest.mark.parametrize(
    "name, given, error",
    [
        ("stop", {}, AccessDeniedError),
        ("stop", {"stop": "os:nothing_there"}, ConfigurationError),
        ("stop", {"stop": "no_such_module_at_all:x"}, ConfigurationError),
        ("stop", {"stop": "os:name"}, ConfigurationError),
        ("os:system", {}, AccessDeniedError),
    ],
)
def test_only_registered_functions_are_run(
    name: str, given: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        registered_action(name, given)


# ------------------------------------------------------------------------------------------- pool


class Pool:
    """Actions of a device, and what it tells."""

    def __init__(self, **settings: object) -> None:
        self.told: list[HealthEvent] = []
        self.now = 0.0
        self.gave_way: list[float] = []
        registered = {name: f"{__name__}:{name}" for name in ("remember", "hold", "fail")}
        self.actions = Actions(
            ActionSettings(registered=registered, **settings),  # type: ignore[arg-type]
            self.told.append,
            clock=lambda: self.now,
            give_way=self.gave_way.append,
        )

    def act(self, *targets: tuple[str, str], event: Event = EVENT) -> None:
        actions = tuple(Action(kind=kind, target=target) for kind, target in targets)  # type: ignore[arg-type]
        self.actions.act(AlarmRule(name="hot", stream="motor", when="true", actions=actions), event)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    CALLED.clear()
    HOLD.clear()
    made = Pool(folder=tmp_path, timeout_s=60.0)
    yield made
    HOLD.set()
    assert made.actions.close(60.0)


def test_every_action_of_an_alarm_is_carried_out_with_its_event(
    pool: Pool, receiver: Receiver, broker: Broker, tmp_path: Path
) -> None:
    pool.act(
        ("webhook", receiver.url),
        ("mqtt", f"mqtt://127.0.0.1:{broker.port}/alarms"),
        ("file", "alarms.ndjson"),
        ("run", "remember"),
    )
    assert pool.actions.close(60.0)
    sent = [receiver.got[0][2], broker.published[0][1], (tmp_path / "alarms.ndjson").read_bytes()]
    assert [read_event(data) for data in sent] == [EVENT] * 3
    assert [EVENT.payload()] == CALLED
    assert pool.told == []


@pytest.mark.parametrize(
    "kind, target, what, why",
    [
        ("run", "rm", "action-refused", "no action 'rm' is registered"),
        ("run", "fail", "action-failed", "the valve is stuck"),
        ("file", "../a", "action-refused", "no name of a file"),
        ("webhook", "http://93.184.216.34/a", "action-refused", "not on a local network"),
        ("webhook", "http://169.254.169.254/latest", "action-refused", "not on a local network"),
        ("webhook", "http://127.0.0.1:1/", "action-failed", "takes no alarm"),
    ],
)
def test_what_goes_wrong_is_told(pool: Pool, kind: str, target: str, what: str, why: str) -> None:
    pool.act((kind, target))
    assert pool.actions.close(60.0)
    ((told, message),) = [(event.what, event.message) for event in pool.told]
    assert told == what
    assert why in message
    assert message.startswith(f"hot: {kind} {target}")


def test_failure_is_told_once_a_minute(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "THREADS", 1)  # what fails is over when the next one is called
    for seconds, told in ((0.0, 1), (30.0, 1), (61.0, 2)):
        pool.now = seconds
        pool.act(("run", "fail"), ("run", "remember"))
        eventually(lambda: CALLED)
        CALLED.clear()
        assert len(pool.told) == told


def test_slow_action_delays_nobody_and_what_does_not_fit_is_told(pool: Pool) -> None:
    for _ in range(MAX_WAITING + 8):
        pool.act(("run", "hold"))
    assert not HOLD.is_set()  # so none of them has been waited for
    assert [event.what for event in pool.told] == ["action-dropped"]


def test_who_hands_over_gives_way_but_not_each_time(pool: Pool) -> None:
    for now in (0.0, APART_S / 2, APART_S):
        pool.now = now
        pool.act(("run", "remember"))
    assert pool.gave_way == [GIVE_WAY_S] * 2


def test_registered_action_is_looked_for_once(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def registered(name: str, _given: object) -> Callable[[Alarm], None]:
        found.append(name)
        return remember

    monkeypatch.setattr(pool_module, "registered_action", registered)
    for _ in range(3):
        pool.act(("run", "remember"))
    assert pool.actions.close(60.0)
    assert (found, len(CALLED)) == (["remember"], 3)


def test_what_waits_when_the_runtime_stops_is_told() -> None:
    HOLD.clear()
    pool = Pool()
    for _ in range(3):
        pool.act(("run", "hold"))
    assert not pool.actions.close(0.0)
    HOLD.set()
    assert pool.actions.close(60.0)
    assert [event.what for event in pool.told] == ["action-dropped"]


def test_device_without_alarms_starts_no_thread() -> None:
    before = set(threading.enumerate())
    pool = Pool()
    assert set(threading.enumerate()) <= before  # those of others may end meanwhile
    assert pool.actions.close(0.0)


def test_posted_event_is_json(receiver: Receiver, pool: Pool) -> None:
    pool.act(("webhook", receiver.url))
    assert pool.actions.close(60.0)
    assert json.loads(receiver.got[0][2])["data"]["message"] == "it is hot"
