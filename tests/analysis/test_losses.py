"""Losses of a fleet: the newest account of each device, spool and day, added up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgefleet.analysis.losses import losses_of
from edgefleet.errors import InvalidInputError
from edgefleet.fleet import Fleet
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Account, Event, HealthEvent, Tally, new_event
from tests.analysis.recorded import START, fleet_in, home_of, write

DAY = START.date().isoformat()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_in(tmp_path) as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return home_of(tmp_path)


def account(
    number: int, *tallies: Tally, spool: str = "s", day: str = DAY, time: datetime = START
) -> Event:
    return new_event(Account(spool=spool, day=day, number=number, tallies=tallies), time=time)


def predictions(seen: int, dropped: int, top: int | None = None, band: int | None = None) -> Tally:
    return Tally(kind="prediction", model="digits", top=top, band=band, seen=seen, dropped=dropped)


ALARMS = Tally(kind="alarm", model="digits", seen=119, dropped=1)


def test_a_sentence_says_what_was_kept(fleet: Fleet, home: Path) -> None:
    write(home, "cam-1", [account(1, predictions(90_300, 86_188), ALARMS)])
    found = fleet.losses()
    assert found.summary == "kept 4,112 of 90,300 predictions, 118 of 119 alarms"
    assert str(found).startswith(found.summary)
    assert found.dropped == 86_189


def test_of_several_accounts_of_a_day_the_highest_number_holds(fleet: Fleet, home: Path) -> None:
    late, early = account(3, predictions(30, 9)), account(1, predictions(10, 0))
    write(home, "cam-1", [late, early, account(2, predictions(20, 5))])
    assert [(row.seen, row.dropped) for row in fleet.losses().kinds] == [(30, 9)]


def test_devices_days_and_spools_add_up(fleet: Fleet, home: Path) -> None:
    tomorrow = START + timedelta(days=1)
    write(home, "cam-1", [account(1, predictions(10, 1)), account(1, predictions(5, 0), spool="t")])
    after = account(1, predictions(7, 2), day=tomorrow.date().isoformat(), time=tomorrow)
    write(home, "cam-2", [after])
    found = fleet.losses()
    assert [(row.seen, row.dropped) for row in found.kinds] == [(22, 3)]
    assert {row.name: row.seen for row in found.by_device} == {"cam-1": 15, "cam-2": 7}
    assert {row.name: row.dropped for row in found.days} == {DAY: 1, "2026-11-03": 2}
    assert found.devices == 2


def test_drops_are_told_by_class_and_score(fleet: Fleet, home: Path) -> None:
    tallies = (predictions(50, 40, top=1, band=9), predictions(10, 0, top=10, band=4))
    write(home, "cam-1", [account(1, *tallies)])
    found = fleet.losses()
    assert [(row.name, row.kept) for row in found.classes] == [("1", 10), ("10", 10)]
    assert {row.name: row.dropped for row in found.bands} == {"0.9-1.0": 40, "0.4-0.5": 0}


def test_a_model_and_a_span_limit_what_is_added(fleet: Fleet, home: Path) -> None:
    other = Tally(kind="prediction", model="letters", seen=5, dropped=5)
    write(home, "cam-1", [account(1, predictions(10, 1), other)])
    assert fleet.losses("digits").dropped == 1
    assert fleet.losses(since=START - timedelta(days=1)).dropped == 6
    assert fleet.losses(until=START - timedelta(days=1)).kinds == ()


def test_an_account_that_came_after_the_span_still_holds_for_its_days(
    fleet: Fleet, home: Path
) -> None:
    write(home, "cam-1", [account(1, predictions(10, 1))], name="0")
    later = account(2, predictions(12, 4), time=START + timedelta(days=9))
    write(home, "cam-1", [later], name="1")
    assert fleet.losses(until=START + timedelta(days=1)).dropped == 4


def test_a_span_that_begins_within_a_day_counts_all_of_that_day(fleet: Fleet, home: Path) -> None:
    write(home, "cam-1", [account(1, predictions(10, 1), time=START + timedelta(hours=2))])
    assert fleet.losses(since=START + timedelta(hours=12)).dropped == 1
    assert fleet.losses(since=START + timedelta(days=1)).dropped == 0


def test_only_devices_of_a_group_count(fleet: Fleet, home: Path) -> None:
    fleet.enroll("cam-1", group="north")
    write(home, "cam-1", [account(1, predictions(10, 1))])
    write(home, "cam-2", [account(1, predictions(10, 5))])
    assert fleet.losses(group="north").dropped == 1


def test_what_is_no_account_is_told(fleet: Fleet, home: Path) -> None:
    broken = msgspec.structs.replace(account(1, ALARMS), data=msgspec.Raw(b'{"version":1}'))
    never = msgspec.structs.replace(
        account(1, ALARMS),
        data=msgspec.Raw(
            encode(Account(spool="s", day=DAY, number=1, tallies=())).replace(
                DAY.encode(), b"2026-02-31"
            )
        ),
    )
    write(home, "cam-1", [broken, never, account(1, ALARMS)])
    found = fleet.losses()
    assert {one.event for one in found.unusable} == {broken.id, never.id}
    assert found.summary == "kept 118 of 119 alarms"
    assert "2 accounts can't be used" in str(found)


def test_of_many_that_are_no_accounts_the_first_are_named_and_all_counted(
    fleet: Fleet, home: Path
) -> None:
    broken = [
        msgspec.structs.replace(account(1, ALARMS), data=msgspec.Raw(b"[]")) for _ in range(120)
    ]
    write(home, "cam-1", broken)
    found = fleet.losses()
    assert (len(found.unusable), found.unusable_count) == (100, 120)
    assert "120 accounts can't be used" in str(found)


def test_a_time_without_a_zone_is_refused(fleet: Fleet, home: Path) -> None:
    write(home, "cam-1", [account(1, ALARMS)])
    with pytest.raises(InvalidInputError, match="has no time zone"):
        fleet.losses(since=START.replace(tzinfo=None))


@pytest.mark.parametrize("moment", ["1w", timedelta(days=7), START.date()])
def test_what_is_no_moment_is_refused_with_one_that_would_do(fleet: Fleet, moment: Any) -> None:
    for asked in (fleet.losses, fleet.cost, fleet.events):
        with pytest.raises(InvalidInputError, match="is no datetime") as refusal:
            asked(since=moment)
        assert "timedelta(days=7)" in str(refusal.value.cure)


def test_a_damaged_spool_is_told(fleet: Fleet, home: Path) -> None:
    folder = home / "devices" / "cam-1" / "hot"
    folder.mkdir(parents=True)
    said = HealthEvent(what="spool-damaged", message="3 events saved, 2 lost")
    (folder / "2026-11-02.ndjson").write_bytes(encode(new_event(said, time=START)) + b"\n")
    found = fleet.losses()
    assert [(one.device, one.message) for one in found.damages] == [("cam-1", said.message)]
    assert "2 lost" in str(found)


def test_segments_that_cannot_be_read_are_told(fleet: Fleet, home: Path) -> None:
    torn = write(home, "cam-2", [account(1, ALARMS)])
    torn.write_bytes(torn.read_bytes()[:-5])
    with pytest.warns(RuntimeWarning, match="set aside"):
        found = fleet.losses()
    assert list(found.unreadable) == [torn.relative_to(home).as_posix()]
    assert torn.name in str(found)


def test_a_fleet_without_accounts_says_so(fleet: Fleet) -> None:
    assert fleet.losses().summary == "no accounts"
    assert str(fleet.losses()) == "no accounts"


def test_losses_show_themselves(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write(home, "cam-1", [account(1, predictions(50, 40, top=1, band=9), ALARMS)])
    found = fleet.losses()
    assert "<table>" in found._repr_html_()
    assert json.loads(found.to_json())["kinds"][0]["seen"] == 119
    assert found.plot(tmp_path / "losses.png").png.startswith(b"\x89PNG")
    assert fleet.losses("nothing").plot().png.startswith(b"\x89PNG")


def test_drops_that_no_account_tells_are_told(fleet: Fleet, home: Path) -> None:
    write(home, "cam-1", [account(1, predictions(10, 4))])
    told = {"cam-1": 6, "cam-2": 3, "cam-3": 0}
    found = losses_of(fleet.telemetry, reported=told)
    assert found.unaccounted == {"cam-1": 2, "cam-2": 3}
    assert "cam-1: 2 more events dropped than accounted for" in str(found)
    assert losses_of(fleet.telemetry, since=START, reported=told).unaccounted == {}
