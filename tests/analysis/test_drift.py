"""Drift of a fleet: what merges with what, what is told, and how near it is to all the data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.analysis.drift import drift_of
from edgefleet.analysis.gathering import Gathering
from edgefleet.analysis.windows import Place
from edgefleet.errors import InvalidInputError, NotFoundError, UnavailableError
from edgefleet.fleet import Fleet
from edgefleet.interfaces.registry import Registry
from edgefleet.protocol.drift import MASS_ERROR, RANK_ERROR, compare
from edgefleet.protocol.event import Alarm, new_event
from edgefleet.protocol.sketch import NumberSketch, sketch_classes, sketch_numbers
from edgefleet.testing.kit.samples import Content
from tests.analysis.recorded import (
    HOUR,
    START,
    drawn,
    fleet_in,
    home_of,
    push,
    reference,
    window,
    write,
)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_in(tmp_path) as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return home_of(tmp_path)


class Unreachable:
    """A registry that knows its versions, and whose blobs can't be reached."""

    def __init__(self, registry: Registry) -> None:
        self.versions = registry.versions
        self.blobs = self

    def read_bytes(self, digest: str, *, max_bytes: int) -> bytes:
        raise UnavailableError(f"{digest} can't be reached within {max_bytes} bytes")


def test_one_device_that_moved_is_told_from_a_fleet_that_did_not(
    fleet: Fleet, home: Path, tmp_path: Path
) -> None:
    version = push(fleet, tmp_path, reference())
    for number in range(12):
        shift = 3.0 if number == 5 else 0.0
        events = [window(version, hour, first=drawn(50 * number + hour, shift)) for hour in (0, 1)]
        write(home, f"cam-{number}", events)
    found = fleet.drift("digits")
    assert found.of("cam-5").verdict == "moved"
    assert found.of("cam-5").why.startswith("x[0]: ")
    assert {found.of(f"cam-{number}").verdict for number in (0, 1, 2)} == {"stable"}
    assert found.verdict in ("stable", "watch")
    assert [row.unit for row in found.units][:3] == ["fleet", "no group", "cam-5"]


def test_windows_add_up_over_devices_and_weeks(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    version = push(fleet, tmp_path, reference())
    for device in ("cam-1", "cam-2"):
        for week in range(3):
            event = window(version, week * 168, first=drawn(week, 2.0, count=50))
            write(home, device, [event])
    found = fleet.drift("digits")
    row = next(row for row in found.features if (row.unit, row.feature) == ("fleet", "x[0]"))
    assert (row.count, row.verdict) == (300, "moved")
    assert found.of("fleet").windows == 6
    assert found.of("fleet").requests == 300
    assert found.moved == ("x[0]",)


def test_a_device_that_saw_too_little_says_nothing_by_itself(
    fleet: Fleet, home: Path, tmp_path: Path
) -> None:
    version = push(fleet, tmp_path, reference())
    write(home, "cam-1", [window(version, 0, first=drawn(1, count=20), second=drawn(2, count=20))])
    found = fleet.drift("digits")
    assert found.of("cam-1").verdict == "unknown"
    assert "20 values seen, 100 needed" in found.of("cam-1").why


def test_versions_are_never_merged(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    before = push(fleet, tmp_path, reference())
    after = push(fleet, tmp_path, {"x[0]": sketch_numbers(drawn(3, 3.0, 4000))}, seed=1)
    write(home, "cam-1", [window(before, 0, first=drawn(4, 3.0))], name="0")
    write(home, "cam-1", [window(after, 1, first=drawn(5, 3.0))], name="1")
    found = fleet.drift("digits")
    assert found.of("fleet", before.version).verdict == "moved"
    assert found.of("fleet", after.version).verdict == "stable"
    assert found.of("fleet").version == after.version
    assert fleet.drift(after.reference).verdict == "stable"
    assert fleet.drift(before.reference).verdict == "moved"


def test_what_devices_said_themselves_stands_beside(
    fleet: Fleet, home: Path, tmp_path: Path
) -> None:
    version = push(fleet, tmp_path, reference())
    early = window(version, 0, first=drawn(1), own="moved")
    late = window(version, 1, first=drawn(2), own="watch")
    write(home, "cam-1", [late, early])
    found = fleet.drift("digits")
    assert found.of("cam-1").own == "watch"
    row = next(row for row in found.features if (row.unit, row.feature) == ("fleet", "x[0]"))
    assert row.own == "watch"


def test_groups_are_judged_by_their_devices(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    version = push(fleet, tmp_path, reference())
    for name, group, shift in (("a", "north", 0.0), ("b", "south", 2.0)):
        fleet.enroll(name, group=group)
        write(home, name, [window(version, 0, first=drawn(ord(name), shift))])
    found = fleet.drift("digits", by="group")
    assert found.of("local/north").verdict == "stable"
    assert found.of("local/south").verdict == "moved"
    assert {row.level for row in found.units} == {"group", "fleet"}
    alone = fleet.drift("digits", group="north")
    assert alone.verdict == "stable"
    assert alone.of("fleet").devices == 1
    assert {row.level for row in fleet.drift("digits", by="fleet").units} == {"fleet"}


def test_a_span_keeps_to_its_events(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    version = push(fleet, tmp_path, reference())
    write(home, "cam-1", [window(version, 0, first=drawn(1, 3.0))], name="0")
    write(home, "cam-1", [window(version, 48, first=drawn(2))], name="1")
    assert fleet.drift("digits", since=START + 24 * HOUR).verdict == "stable"
    assert fleet.drift("digits", until=START + 24 * HOUR).verdict == "moved"


def test_a_day_that_moved_shows_on_the_timeline(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    version = push(fleet, tmp_path, reference())
    for hour in range(6):
        moved = 3.0 if hour == 4 else 0.0
        write(home, "cam-1", [window(version, hour, first=drawn(hour, moved))], name=str(hour))
    found = [part for part in fleet.drift("digits").timeline if part.feature == "x[0]"]
    assert [part.verdict for part in found].index("moved") == 4
    assert found[4].start == START + 4 * HOUR


def test_a_long_time_is_told_in_few_stretches(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    version = push(fleet, tmp_path, {"x[0]": reference()["x[0]"]})
    for hour in range(0, 24 * 30, 3):
        event = window(version, hour, first=drawn(hour, count=10), second=drawn(1, count=1))
        write(home, "cam-1", [event], name=str(hour))
    found = fleet.drift("digits", by="fleet").timeline
    assert 48 <= len(found) <= 96
    assert all(part.end - part.start == timedelta(hours=8) for part in found)


# ------------------------------------------------------------------------------- what is left out


def test_windows_of_a_bundle_that_is_no_version_are_told_and_not_looked_up(
    fleet: Fleet, home: Path, tmp_path: Path
) -> None:
    push(fleet, tmp_path, reference())
    write(home, "cam-1", [window("sha256:" + "0" * 64, 0, first=drawn(1))])
    found = fleet.drift("digits")
    assert found.units == ()
    assert list(found.unreferenced) == ["bundle sha256:000000000000"]
    assert found.verdict == "unknown"


def test_a_version_without_reference_sketches_is_told(
    fleet: Fleet, home: Path, tmp_path: Path
) -> None:
    version = push(fleet, tmp_path, {})
    write(home, "cam-1", [window(version, 0, first=drawn(1))])
    found = fleet.drift("digits")
    assert "calibration data" in found.unreferenced[version.reference]
    assert "calibration data" in str(found)
    assert "no windows" not in str(found)
    assert "set `drift`" in str(fleet.drift("digits", since=START + timedelta(days=300)))


def test_who_sent_windows_that_nothing_is_held_against_is_not_silent(
    fleet: Fleet, home: Path, tmp_path: Path
) -> None:
    version = push(fleet, tmp_path, {})
    write(home, "cam-1", [window(version, 0, first=drawn(1))])
    serving = Place(group="local/line", serves=frozenset({"digits"}))
    found = drift_of(
        "digits",
        telemetry=fleet.telemetry,
        registry=fleet.registry,
        places={"cam-1": serving, "cam-2": serving},
    )
    assert found.silent == ("cam-2",)


@pytest.mark.parametrize(
    "damage",
    [
        {"x[0]": {"count": 400, "missing": 0, "kll": "AAAA"}},
        {"x[0]": {"count": 1 << 50, "missing": 0, "kll": "AAAA"}},
        {"x[0]": {"counts": {"1": 5}}},
        {"x[0]": {"neither": 1}},
        {"x[0]": 5},
        {"y:top": {"counts": {"1": 1 << 41}}},
    ],
)
def test_a_damaged_sketch_is_set_aside_and_spoils_nothing_else(
    fleet: Fleet, home: Path, tmp_path: Path, damage: dict[str, Any]
) -> None:
    version = push(fleet, tmp_path, reference())
    write(home, "good", [window(version, 0, first=drawn(1))])
    write(home, "bad", [window(version, 0, first=drawn(2), **damage)])
    found = fleet.drift("digits")
    assert [(one.device, one.feature) for one in found.set_aside] == [("bad", next(iter(damage)))]
    assert found.verdict == "stable"
    assert "1 sketches set aside" in str(found)


def test_an_event_that_is_no_window_is_set_aside(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    version = push(fleet, tmp_path, reference())
    broken = new_event(Alarm(rule="r", message="m", model="digits"), time=START)
    broken = msgspec.structs.replace(broken, type="dev.edgefleet.sketch")
    write(home, "cam-1", [window(version, 0, first=drawn(1)), broken])
    found = fleet.drift("digits")
    assert [one.event for one in found.set_aside] == [broken.id]


def test_a_registry_that_cannot_be_reached_is_an_error_and_not_a_missing_reference(
    fleet: Fleet, home: Path, tmp_path: Path
) -> None:
    version = push(fleet, tmp_path, reference())
    write(home, "cam-1", [window(version, 0, first=drawn(1))])
    with pytest.raises(UnavailableError):
        drift_of(
            "digits",
            telemetry=fleet.telemetry,
            registry=cast("Registry", Unreachable(fleet.registry)),
            places={},
        )


def test_a_window_whose_span_makes_no_sense_is_set_aside(
    fleet: Fleet, home: Path, tmp_path: Path
) -> None:
    version = push(fleet, tmp_path, reference())
    good = window(version, 0, first=drawn(1))
    data = json.loads(bytes(good.data))
    backward = msgspec.structs.replace(
        good, id="b", data=msgspec.Raw(json.dumps(data | {"end": data["start"]}).encode())
    )
    far = msgspec.structs.replace(
        good, id="f", data=msgspec.Raw(json.dumps(data | {"end": "9999-12-31T23:59:59Z"}).encode())
    )
    write(home, "cam-1", [good, backward, far])
    found = fleet.drift("digits")
    assert {one.event for one in found.set_aside} == {"b", "f"}
    assert found.of("cam-1").windows == 1


def test_segments_that_cannot_be_read_are_told(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    version = push(fleet, tmp_path, reference())
    write(home, "cam-1", [window(version, 0, first=drawn(1))])
    torn = write(home, "cam-2", [window(version, 0, first=drawn(1))])
    torn.write_bytes(torn.read_bytes()[:-20])
    with pytest.warns(RuntimeWarning, match="set aside"):
        found = fleet.drift("digits")
    assert list(found.unreadable) == [torn.relative_to(home).as_posix()]
    assert found.of("cam-1").verdict == "stable"


def test_windows_that_are_missing_show_in_the_share_of_time_covered(
    fleet: Fleet, home: Path, tmp_path: Path
) -> None:
    version = push(fleet, tmp_path, reference())
    for hour in range(4):
        write(home, "whole", [window(version, hour, first=drawn(hour))], name=str(hour))
    write(home, "holes", [window(version, 0, first=drawn(9))])
    found = fleet.drift("digits")
    assert (found.of("whole").covered, found.of("holes").covered) == (1.0, 0.25)
    assert found.of("fleet").covered == 0.625


def test_an_unknown_model_or_level_is_refused(fleet: Fleet) -> None:
    with pytest.raises(NotFoundError, match="no model 'digits'"):
        fleet.drift("digits")
    with pytest.raises(InvalidInputError, match="no level"):
        fleet.drift("digits", by="planet")  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- its forms


def test_the_report_shows_itself(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    version = push(fleet, tmp_path, reference())
    write(home, "cam-1", [window(version, 0, first=drawn(1, 2.0))])
    found = fleet.drift("digits", since=START)
    text = str(found)
    assert text.startswith("digits since 2026-11-02 00:00 UTC: moved\n")
    assert "x[0]: PSI" in text
    assert "99 % confidence" in text
    assert "<table>" in found._repr_html_()
    facts = json.loads(found.to_json())
    assert facts["units"][0]["verdict"] == "moved"


def test_an_empty_report_says_what_is_needed(fleet: Fleet, tmp_path: Path) -> None:
    push(fleet, tmp_path, reference())
    assert "set `drift` in the telemetry policy" in str(fleet.drift("digits"))


def test_the_plot_is_the_same_twice(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    version = push(fleet, tmp_path, reference())
    for hour in range(3):
        write(home, "cam-1", [window(version, hour, first=drawn(hour, 1.0 * hour))], name=str(hour))
    found = fleet.drift("digits")
    picture = found.plot(tmp_path / "drift.png")
    assert picture.png.startswith(b"\x89PNG")
    written = Content.of((tmp_path / "drift.png").read_bytes())
    assert written == Content.of(picture.png) == Content.of(found.plot().png)
    assert fleet.drift("digits", until=START).plot().png.startswith(b"\x89PNG")


# ------------------------------------------------------------------- merged, against all the data


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    shifts=st.lists(st.floats(-1, 1), min_size=1, max_size=12),
    windows=st.integers(1, 6),
)
def test_devices_and_weeks_merged_lie_within_the_bound_of_all_the_data(
    seed: int, shifts: list[float], windows: int
) -> None:
    draw = np.random.default_rng(seed)
    expected = {"x": sketch_numbers(draw.normal(size=3_000))}
    fleet, every = Gathering(expected), []
    for shift in shifts:
        device = Gathering(expected)
        for _ in range(windows):
            values = draw.normal(shift, 1.0, size=int(draw.integers(1, 2_000)))
            device.add("x", sketch_numbers(values))
            every.append(values)
        fleet.absorb(device)
    whole = np.sort(np.concatenate(every).astype(np.float32))
    merged = fleet.sketch("x")
    assert isinstance(merged, NumberSketch)
    assert merged.count == whole.size
    found = compare(expected["x"], merged)
    exact = compare(expected["x"], sketch_numbers(whole))
    if whole.size >= 100:
        # twice what each of the two may be off by: 99 % confidence, and draws can't be seeded
        assert found.ks is not None
        assert exact.ks is not None
        assert abs(found.ks - exact.ks) <= 4 * RANK_ERROR
        assert abs(found.outside - exact.outside) <= 4 * (RANK_ERROR + MASS_ERROR)


@given(st.lists(st.lists(st.integers(0, 5), max_size=30), max_size=6))
def test_classes_of_devices_add_up_exactly(parts: list[list[int]]) -> None:
    fleet = Gathering({"c": sketch_classes([0])})
    for part in parts:
        device = Gathering({"c": sketch_classes([0])})
        device.add("c", sketch_classes(part))
        fleet.absorb(device)
    whole = sketch_classes([c for part in parts for c in part])
    assert fleet.sketch("c") == whole
