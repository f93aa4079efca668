from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import pytest
from msgspec.structs import replace

from device_runtime.tests.support import Clock, MemoryChannel
from edgefleet.errors import UnavailableError
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.report import MAX_BYTES, AccessReport, Health, ModelReport, Report
from edgefleet_runtime.report.reporter import PROGRESS_S, REPORTS_A_START, Reporter

DIGEST = digest_of(b"bundle")


def report(**more: object) -> Report:
    now = datetime.now(UTC)
    plain = Report(
        sequence=0, time=now, state="active", runtime="1", health=Health(pid=1, started=now)
    )
    return replace(plain, **more)


def model(name: str = "digits", **more: object) -> ModelReport:
    return ModelReport(name=name, version="1", bundle=DIGEST, **more)  # type: ignore[arg-type]


def waiting(why: str | None) -> Health:
    now = datetime.now(UTC)
    return Health(pid=1, started=now, sync=why)  # type: ignore[arg-type]


@dataclass
class Rig:
    now: Report = field(default_factory=report)
    channel: MemoryChannel = field(default_factory=MemoryChannel)
    clock: Clock = field(default_factory=Clock)
    jitter: random.Random = field(default_factory=lambda: random.Random(1))
    completed: int = 0

    def __post_init__(self) -> None:
        self.reporter = self.started(1)

    def started(self, starts: int) -> Reporter:
        return Reporter(
            self.channel,
            lambda: self.now,
            self.complete,
            heartbeat_s=lambda: 100.0,
            starts=starts,
            clock=self.clock,
            jitter=self.jitter,
        )

    def complete(self, report: Report) -> Report:
        self.completed += 1
        return replace(report, health=replace(report.health, store_bytes=self.completed))

    def turn(self, after_s: float = 0.0) -> int:
        """Take a turn; returns how many reports it sent."""
        self.clock.now += after_s
        before = len(self.channel.reports)
        self.reporter.turn()
        return len(self.channel.reports) - before


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_the_first_report_goes_at_once_and_the_next_with_the_heartbeat(rig: Rig) -> None:
    assert rig.turn() == 1
    assert rig.turn(after_s=89) == 0
    assert rig.turn(after_s=11) == 1


def test_what_takes_long_to_measure_is_measured_for_reports_that_go(rig: Rig) -> None:
    assert [rig.turn(), rig.turn(after_s=1), rig.turn(after_s=1)] == [1, 0, 0]
    assert rig.completed == 1
    assert rig.turn(after_s=100) == 1
    sent = [sent.health.store_bytes for sent in rig.channel.reports]
    assert sent == [1, 2]


def test_heartbeats_of_devices_that_reported_together_spread_out() -> None:
    rigs = [Rig(jitter=random.Random(seed)) for seed in range(100)]
    due = [rig.reporter.turn() for rig in rigs]
    assert max(due) - min(due) > 9
    assert len(set(due)) == 100


def test_the_turn_says_when_the_next_report_is_due(rig: Rig) -> None:
    due = rig.reporter.turn()
    assert 90 <= due <= 100
    assert rig.turn(after_s=due) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"state": "working"},
        {"number": 5},
        {"running": DIGEST},
        {"errors": ("oh",)},
        {"endpoint": "http://127.0.0.1:1"},
        {"models": (model(),)},
        {"models": (model(state="rejected"),)},
    ],
)
def test_what_an_operator_acts_upon_goes_at_once(rig: Rig, change: dict[str, object]) -> None:
    rig.turn()
    rig.now = report(**change)
    assert rig.turn() == 1
    assert rig.turn() == 0


def test_the_first_answer_goes_at_once_and_further_ones_wait(rig: Rig) -> None:
    rig.now = report(models=(model(),))
    rig.turn()
    rig.now = report(models=(model(inferences=1),))
    assert rig.turn() == 1
    rig.now = report(models=(model(inferences=2, latency_p50_us=3.0),))
    assert rig.turn() == 0


def test_progress_goes_at_most_once_a_second(rig: Rig) -> None:
    rig.now = report(state="working", models=(model(state="fetched"),))
    rig.turn()
    rig.now = report(state="working", models=(model(state="verified"),))
    assert rig.turn() == 0
    assert rig.turn(after_s=PROGRESS_S) == 1


def test_numbers_rise_within_a_start_and_over_starts(rig: Rig) -> None:
    rig.turn()
    rig.turn(after_s=100)
    rig.reporter = rig.started(2)
    rig.turn()
    numbers = [sent.sequence for sent in rig.channel.reports]
    assert numbers == [REPORTS_A_START + 1, REPORTS_A_START + 2, 2 * REPORTS_A_START + 1]


@pytest.mark.parametrize("failure", [UnavailableError("offline"), KeyError("a channel's defect")])
def test_a_report_that_could_not_be_sent_is_made_anew_and_tried_again(
    rig: Rig, failure: Exception
) -> None:
    rig.channel.fails = failure
    assert rig.turn() == 0
    rig.channel.fails = None
    rig.now = report(number=9)
    assert rig.turn() == 0  # not before the pause is over
    assert rig.turn(after_s=300) == 1
    assert rig.channel.reports[0].number == 9


@pytest.mark.parametrize("state", ["denied", "expired"])
def test_a_device_that_is_let_in_again_reports_at_once(
    rig: Rig, state: Literal["denied", "expired"]
) -> None:
    """Whoever enrolled it anew looks now, and would be told that it never reported."""
    rig.channel.fails = UnavailableError("revoked")
    rig.now = report(access=AccessReport(state=state))
    for _ in range(9):
        assert rig.turn(after_s=300) == 0
    rig.channel.fails = None
    assert rig.turn() == 0
    rig.now = report(access=AccessReport(state="ok"))
    assert rig.turn() == 1


def test_a_gateway_that_is_back_gets_reports_spread_out(rig: Rig) -> None:
    rig.channel.fails = UnavailableError("away")
    rig.now = report(access=AccessReport(state="unknown"))
    assert rig.turn() == 0
    rig.channel.fails = None
    rig.now = report(access=AccessReport(state="ok"))
    assert rig.turn() == 0
    assert rig.turn(after_s=300) == 1


def test_a_last_report_goes_in_any_case(rig: Rig) -> None:
    rig.turn()
    rig.reporter.turn(last=True)
    assert len(rig.channel.reports) == 2


def test_too_many_models_are_cut_to_what_a_report_holds(rig: Rig) -> None:
    rig.now = report(models=tuple(model(f"model-{n:03}") for n in range(200)))
    rig.turn()
    (sent,) = rig.channel.reports
    assert 0 < len(sent.models) < 200
    assert len(sent.encoded()) <= MAX_BYTES


def test_telemetry_that_waits_for_somebody_is_told_at_once_and_a_link_with_the_heartbeat(
    rig: Rig,
) -> None:
    rig.turn()
    for why, told in (("link", 0), ("span", 0), ("access", 1), ("access", 0), (None, 1)):
        rig.now = report(health=waiting(why))
        assert rig.turn(after_s=1) == told
