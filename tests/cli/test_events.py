"""`edgefleet events`: times, and the two forms of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from edgefleet.cli.events import moment
from edgefleet.protocol.event import HealthEvent, new_event
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.file import FileChannel
from tests.cli.conftest import Run, RunJson


@pytest.mark.parametrize(
    "text, ago",
    [
        ("90s", timedelta(seconds=90)),
        ("10m", timedelta(minutes=10)),
        ("1.5h", timedelta(hours=1.5)),
        ("2d", timedelta(days=2)),
        ("1w", timedelta(weeks=1)),
    ],
)
def test_a_time_may_be_so_long_ago(text: str, ago: timedelta) -> None:
    assert abs(datetime.now(UTC) - ago - moment(text)) < timedelta(seconds=10)


@pytest.mark.parametrize(
    "text", ["2026-05-01", "2026-05-01T00:00", "2026-05-01T00:00Z", "2026-05-01T02:00+02:00"]
)
def test_a_time_may_be_iso_8601_in_utc_where_it_says_no_zone(text: str) -> None:
    assert moment(text) == datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["yesterday", "1y", "-1h", "", "99999999999999w"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no time"):
        moment(text)


def test_an_empty_fleet_has_an_empty_array_of_events(run: Run, run_json: RunJson) -> None:
    assert run_json("events") == []
    assert not run("events").stdout


def test_a_person_is_told_that_there_are_no_events_where_no_program_reads_it(run: Run) -> None:
    everything, some = run("events"), run("events", "--kind", "alarm")
    assert "no events yet" in everything.stderr
    assert some.stderr == "no events match\n"
    assert not everything.stdout + some.stdout


def test_events_are_filtered_and_limited(
    run: Run, run_json: RunJson, onnx_file: Callable[..., Path]
) -> None:
    run("model", "push", "tiny", str(onnx_file()))
    for device in ("cam-1", "cam-2"):
        run("device", "enroll", device, "--group", "line")
    run("deploy", "tiny", "--to", "line")
    found = run_json("events", "--device", "cam-2", "--kind", "health")
    assert {(event["device"], event["kind"]) for event in found} == {("cam-2", "health")}
    assert "release-active" in {event["data"]["what"] for event in found}
    assert len(run("events").stdout.splitlines()) > len(found)
    assert len(run_json("events", "--limit", "1")) == 1
    assert run_json("events", "--kind", "alarm") == []
    assert run_json("events", "--until", "30m") == []
    recent = ["--device", "cam-2", "--kind", "health", "--since", "1h"]
    assert len(run_json("events", *recent)) == len(found)


def test_following_gives_a_json_object_a_line_as_events_arrive(tmp_path: Path) -> None:
    said, outbox = tmp_path / "said", tmp_path / ".edgefleet/fleet/devices/cam-1"
    device = FileChannel(tmp_path / "pointer.json", outbox)

    def send() -> None:
        device.send_hot([new_event(HealthEvent(what="started", message="so"))])

    def lines() -> list[bytes]:
        return said.read_bytes().splitlines()

    follow = [sys.executable, "-m", "edgefleet.cli", "events", "--follow", "--json"]
    with said.open("wb") as out, subprocess.Popen([*follow, "--limit", "50"], stdout=out) as child:
        try:
            # It gives what happens once it has begun, and nobody else knows when that is.
            eventually(lines, "a line", meanwhile=send, apart_s=1.0)
            assert child.poll() is None
            for _ in range(50):
                send()
            eventually(lambda: child.poll() is not None, "its end")
        finally:
            child.kill()
    found = [json.loads(line) for line in lines()]
    assert (child.returncode, len(found)) == (0, 50)
    assert {(one["device"], one["kind"], one["data"]["what"]) for one in found} == {
        ("cam-1", "health", "started")
    }


def test_following_takes_no_times(run: Run) -> None:
    assert "starts now" in run("events", "--follow", "--since", "1h", expect=2).stderr


def damaged_segment(device: str, number: int) -> Path:
    folder = Path(".edgefleet/fleet/devices") / device / "segments/date=2026-11-21/model=digits"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:04}.ndjson.zst"
    path.write_bytes(b"no segment")
    return path


def test_segments_that_can_not_be_read_are_counted_and_named(run: Run, run_json: RunJson) -> None:
    run("device", "enroll", "cam-1", "--group", "line")
    paths = [damaged_segment("cam-1", number) for number in range(12)]
    told = run("events").stderr
    assert "12 segments were set aside" in told
    assert paths[0].name in told
    assert "and 2 more" in told
    assert run_json("events", "--kind", "metric") == []


def test_without_damage_nothing_is_said(run: Run) -> None:
    assert not run("events", "--json").stderr
