"""Which requests a gateway has told a device of, and how little it remembers of that."""

from __future__ import annotations

import pytest

from edgefleet_gateway.server import handed
from edgefleet_gateway.server.handed import AGAIN_S, Handed


class Rig:
    def __init__(self) -> None:
        self.now = 0.0
        self.handed = Handed(lambda: self.now)

    @property
    def held(self) -> int:
        return sum(map(len, self.handed._given.values()))


def test_what_was_handed_out_is_told_of_again_when_nobody_answers() -> None:
    rig = Rig()
    assert rig.handed.fresh("cam-1", ("a", "b")) == ("a", "b")
    rig.handed.give("cam-1", ("a", "b"))
    rig.handed.answered("cam-1", "b")
    assert rig.handed.fresh("cam-1", ("a", "b")) == ()
    assert rig.handed.open("cam-1", ("a", "b")) == ("a",)
    rig.now += AGAIN_S
    assert rig.handed.fresh("cam-1", ("a", "b")) == ("a",)


def test_a_device_that_is_always_asked_something_is_remembered_for_what_waits() -> None:
    rig = Rig()
    for number in range(1000):
        waiting = (str(number), str(number + 1))
        rig.handed.give("cam-1", rig.handed.fresh("cam-1", waiting))
        rig.handed.answered("cam-1", str(number))
        assert rig.held <= 4
    assert rig.handed.fresh("cam-1", ()) == ()
    assert rig.held == 0


def test_devices_that_ask_no_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handed, "DEVICES", 10)
    rig = Rig()
    for number in range(100):
        rig.handed.give(f"cam-{number}", ("a",))
    assert rig.held == 10
    assert rig.handed.fresh("cam-99", ("a",)) == ()
