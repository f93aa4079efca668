"""`Fleet.record` and what a release may say about recording: checked before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

import edgefleet
from device_runtime.tests.onnx_models import plus
from edgefleet.errors import InvalidInputError, NotFoundError
from edgefleet.protocol.policy import AlarmRule, CaptureRule
from edgefleet.protocol.release import Release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet.fleet import Fleet

POLICY = edgefleet.TelemetryPolicy(output_values=3)
WRONG = edgefleet.TelemetryPolicy(
    alarms=(AlarmRule(name="hot", stream="motor", when="values.t >"),)
)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    with edgefleet.connect() as opened:
        opened.enroll("cam-1", group="line", labels={"target": "raspberry-pi-5"})
        yield opened


def test_a_policy_is_given_to_a_group_and_read_back(fleet: Fleet) -> None:
    deployment = fleet.record(POLICY, to="line")
    assert deployment.action == "record"
    assert fleet.recording("line") == POLICY


def test_a_file_holds_the_policy(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("output_values = 3")
    fleet.record(tmp_path / "policy.toml", to="line")
    assert fleet.recording("line") == POLICY


def test_a_group_begins_with_the_profile_s_policy_and_keeps_what_it_is_given(
    fleet: Fleet, tmp_path: Path
) -> None:
    begun = fleet.profile.model_copy(
        update={"recorded": edgefleet.TelemetryPolicy(output_values=7)}
    )
    with edgefleet.Fleet(begun) as other:
        other.push(plus(tmp_path / "one.onnx", 1), "one")
        other.deploy("one:1", to="line")
        assert other.recording("line").output_values == 7
        other.record(POLICY, to="line")
        other.push(plus(tmp_path / "two.onnx", 2), "one")
        other.deploy("one:2", to="line")
        assert other.recording("line") == POLICY


def test_only_the_policy_of_the_release_changes(fleet: Fleet) -> None:
    settings = edgefleet.Release().settings
    release = Release(settings=msgspec.structs.replace(settings, strict=True))
    fleet.deploy(release, to="line")
    digest = fleet.record(POLICY, to="line").release
    assert digest == msgspec.structs.replace(release, telemetry=POLICY).digest


def test_rolling_back_brings_the_policy_before_back(fleet: Fleet) -> None:
    fleet.record(POLICY, to="line")
    fleet.record(edgefleet.TelemetryPolicy(output_values=5), to="line")
    fleet.rollback("line")
    assert fleet.recording("line") == POLICY


def test_a_wrong_policy_is_refused_with_the_place_and_nothing_is_sent(fleet: Fleet) -> None:
    fleet.record(POLICY, to="line")
    before = fleet.history("line")
    with pytest.raises(InvalidInputError, match=r"alarms\.hot\.when: 1:11: "):
        fleet.record(WRONG, to="line")
    assert fleet.history("line") == before


def test_a_release_with_a_wrong_policy_is_refused(fleet: Fleet) -> None:
    with pytest.raises(InvalidInputError, match=r"alarms\.hot\.when: 1:11: "):
        fleet.deploy(Release(telemetry=WRONG), to="line")
    assert fleet.history("line") == ()


def test_a_policy_that_would_ship_what_privacy_forbids_is_refused(fleet: Fleet) -> None:
    policy = edgefleet.TelemetryPolicy(captures=(CaptureRule(name="all", inputs=True),))
    with pytest.raises(InvalidInputError, match="which privacy forbids"):
        fleet.record(policy, to="line")


def test_a_file_that_is_not_there_is_told(fleet: Fleet) -> None:
    with pytest.raises(NotFoundError, match="no policy at"):
        fleet.record("nothing.toml", to="line")
