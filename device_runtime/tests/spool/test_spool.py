from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.tests.support import Clock, FakeModel, MemoryChannel
from edgefleet.errors import UnavailableError
from edgefleet.protocol.event import (
    Account,
    Alarm,
    EventData,
    HealthEvent,
    Metric,
    Prediction,
    new_event,
)
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.protocol.release import Release, RuntimeSettings
from edgefleet.protocol.segment import read_segment
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.serve.summary import summarize
from edgefleet_runtime.serve.table import ServedModel
from edgefleet_runtime.spool import spool as spool_module
from edgefleet_runtime.spool.budget import MIN_CAP
from edgefleet_runtime.spool.intake import Intake
from edgefleet_runtime.spool.leisure import PAUSE_S, SLICE, Leisure
from edgefleet_runtime.spool.room import folder_bytes
from edgefleet_runtime.spool.spool import Spool

BUNDLE = "sha256:" + "0" * 64


def served(name: str = "digits") -> ServedModel:
    model = FakeModel({"factor": 1}, ("FakeExecutionProvider",))
    return ServedModel(model, name=name, version="7", bundle=BUNDLE, variant="int8")


def scores(*values: float) -> dict[str, Any]:
    return {"y": np.array([values], np.float32)}


def answer(intake: Intake, times: int = 1) -> None:
    for number in range(times):
        intake.observe(served(), scores(0.25, 0.75), 12.5, f"request-{number}")


class Rig:
    def __init__(self, root: Path, *, max_bytes: int = 1 << 20) -> None:
        self.root = root
        self.channel = MemoryChannel()
        self.clock = Clock()
        self.max_bytes = max_bytes
        self.spool = self.started()

    def started(self) -> Spool:
        if hasattr(self, "spool"):
            self.spool.close()
        self.spool = Spool(
            self.root, self.channel, device="cam-07", max_bytes=self.max_bytes, clock=self.clock
        )
        self.spool.recover()
        return self.spool

    def follow(self, *, spool_max_bytes: int | None = None, **policy: Any) -> None:
        settings = RuntimeSettings(spool_max_bytes=spool_max_bytes)
        self.spool.follow(Release(telemetry=TelemetryPolicy(**policy), settings=settings))

    def turn(self, after_s: float = 0.0) -> None:
        self.clock.now += after_s
        self.spool.turn()

    def payloads(self) -> list[EventData]:
        return [
            event.payload()
            for _, data in sorted(self.channel.segments.items())
            for event in read_segment(io.BytesIO(data))
        ]

    def predictions(self) -> list[Prediction]:
        return [one for one in self.payloads() if isinstance(one, Prediction)]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "spool")


def test_answers_become_predictions_in_a_segment(rig: Rig) -> None:
    answer(rig.spool.intake, 3)
    rig.turn()
    assert rig.channel.segments == {}
    rig.turn(after_s=60)
    (name,) = rig.channel.segments
    assert "/model=digits/" in name
    found = rig.predictions()
    assert [one.request for one in found] == ["request-0", "request-1", "request-2"]
    assert (found[0].model_version, found[0].variant, found[0].latency_us) == ("7", "int8", 12.5)
    (output,) = found[0].outputs
    assert (output.values, output.top, output.score) == ((0.25, 0.75), (1,), (0.75,))
    assert not list((rig.root / "outgoing").iterdir())


@pytest.mark.parametrize("share,kept", [(0.0, 0), (0.1, 10), (0.5, 50), (1.0, 100)])
def test_the_policys_share_of_answers_is_recorded(rig: Rig, share: float, kept: int) -> None:
    rig.follow(prediction_fraction=share)
    answer(rig.spool.intake, 100)
    rig.turn()
    rig.turn(after_s=60)
    assert len(rig.predictions()) == kept


def test_no_more_values_than_the_policy_allows_are_kept(rig: Rig) -> None:
    rig.follow(output_values=1)
    answer(rig.spool.intake)
    rig.turn()
    rig.turn(after_s=60)
    assert rig.predictions()[0].outputs[0].values == (0.25,)


def test_a_prediction_names_the_trace_of_its_request(rig: Rig) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    rig.spool.intake.observe(served(), scores(0.25, 0.75), 12.5, "r", trace)
    answer(rig.spool.intake)
    rig.turn()
    rig.turn(after_s=60)
    assert [prediction.trace for prediction in rig.predictions()] == [trace, None]


def test_a_full_intake_drops_and_counts_and_never_raises(rig: Rig) -> None:
    rig.spool.intake._max_items = 10
    answer(rig.spool.intake, 25)
    rig.turn()
    assert rig.spool.dropped == 15
    rig.turn(after_s=60)
    assert len(rig.predictions()) == 10


def test_the_intake_is_bounded_in_bytes_too(rig: Rig) -> None:
    rig.spool.intake._max_bytes = 100
    for _ in range(5):
        rig.spool.intake.observe(served(), {"y": np.zeros(10, np.float32)}, 1.0, None)
    rig.turn()
    assert rig.spool.dropped == 3


def test_segments_wait_for_the_channel_and_then_go(rig: Rig) -> None:
    rig.channel.fails = UnavailableError("offline")
    answer(rig.spool.intake)
    rig.turn()
    rig.turn(after_s=60)
    assert rig.spool.used_bytes > 0
    rig.channel.fails = None
    rig.turn()
    assert rig.channel.segments == {}  # not before the pause is over
    rig.turn(after_s=300)
    assert len(rig.predictions()) == 1


def test_what_was_kept_survives_a_crash(rig: Rig) -> None:
    rig.channel.fails = UnavailableError("offline")
    answer(rig.spool.intake, 2)
    rig.turn()
    rig.turn(after_s=60)
    answer(rig.spool.intake, 3)
    rig.turn()
    rig.channel.fails = None
    rig.started()
    rig.turn()
    assert len(rig.predictions()) == 5


def test_over_the_cap_events_go_are_counted_and_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "spool", max_bytes=MIN_CAP)
    rig.follow(output_values=1024)
    rig.channel.fails = UnavailableError("offline")
    for _ in range(20):
        answer(rig.spool.intake, 200)
        rig.turn(after_s=61)
        assert folder_bytes(rig.root) <= MIN_CAP
    dropped = rig.spool.dropped
    assert dropped > 0
    rig.channel.fails = None
    rig.turn(after_s=300)
    rig.spool.finish()
    assert len(rig.predictions()) + rig.spool.dropped == 4000
    told = [event.payload() for event in rig.channel.hot]
    assert {one.what for one in told if isinstance(one, HealthEvent)} == {"events-dropped"}
    assert rig.started().dropped == rig.spool.dropped >= dropped


def test_a_release_may_ask_for_a_smaller_spool_but_not_a_larger(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "spool", max_bytes=4 * MIN_CAP)
    rig.follow(spool_max_bytes=1 << 40)
    assert rig.spool.store.budget.cap == 4 * MIN_CAP
    rig.follow(spool_max_bytes=1000)
    assert rig.spool.store.budget.cap == MIN_CAP


def test_hot_events_go_at_once(rig: Rig) -> None:
    rig.spool.tell(Alarm(rule="door", message="open"))
    rig.turn()
    assert [event.kind for event in rig.channel.hot] == ["alarm"]


def test_hot_events_survive_a_crash_and_an_absent_channel(rig: Rig) -> None:
    rig.channel.fails = UnavailableError("offline")
    for number in range(3):
        rig.spool.tell(HealthEvent(what="started", message=str(number)))
    rig.turn()
    rig.channel.fails = None
    rig.started()
    rig.turn()
    assert [event.payload().message for event in rig.channel.hot] == ["2", "1", "0"]  # type: ignore[union-attr]
    rig.started()
    rig.turn()
    assert len(rig.channel.hot) == 3


def told(rig: Rig, what: str) -> list[str]:
    """Messages of the health events of that name that the channel took."""
    found = [event.payload() for event in rig.channel.hot]
    return [one.message for one in found if isinstance(one, HealthEvent) and one.what == what]


def test_events_beyond_what_the_inbox_holds_are_counted_and_told(rig: Rig) -> None:
    rig.spool._cold._max_items = 10
    assert rig.spool.put([new_event(Metric(name="load", value=1.0)) for _ in range(25)]) == 15
    rig.turn()
    assert rig.spool.dropped == 15
    assert told(rig, "events-dropped") == ["15 events lost for lack of room"]
    rig.spool.finish()
    [account] = [one for one in rig.payloads() if isinstance(one, Account)]
    counts = [(tally.seen, tally.dropped) for tally in account.tallies if tally.kind == "metric"]
    assert counts == [(25, 15)]


def test_alarms_beyond_what_the_inbox_holds_count_as_alarms(rig: Rig) -> None:
    rig.spool._hot._max_items = 5
    for number in range(8):
        rig.spool.tell(Alarm(rule="door", message=str(number)))
    rig.turn()
    assert rig.spool.dropped_by_shelf["alarms"] == 3
    assert rig.spool.dropped == 3


def test_a_damaged_file_is_told_with_what_was_saved_and_what_was_lost(rig: Rig) -> None:
    rig.channel.fails = UnavailableError("offline")
    answer(rig.spool.intake, 200)
    rig.turn()
    held = sum(rig.spool.waiting.values())
    database = rig.spool.store.database
    assert database is not None
    part = next(iter(rig.spool.store.parts))
    [root] = database.read.execute(
        "SELECT rootpage FROM sqlite_master WHERE name=?", (part.table,)
    ).fetchone()
    page = database.page
    rig.spool.close()
    with (rig.root / "spool.db").open("r+b") as file:
        file.seek((root - 1) * page)
        file.write(b"\x5a" * page)
    rig.channel.fails = None
    rig.started()
    rig.turn()
    [message] = told(rig, "spool-damaged")
    on_the_way = 200 - held  # in a segment when the file was damaged
    saved = sum(rig.spool.waiting.values()) + len(rig.predictions()) - on_the_way
    assert 0 < saved < held
    lost = held - saved
    assert message == f"the spool was damaged on the disk: {saved} events saved, {lost} lost"


def test_samples_that_a_smaller_cap_costs_are_counted_and_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "spool", max_bytes=4 * MIN_CAP)
    rig.channel.fails = UnavailableError("offline")
    for number in range(10):
        rig.spool.samples.put(bytes([number]) * (MIN_CAP // 8))
    rig.follow(spool_max_bytes=MIN_CAP)
    rig.turn()
    left = len(rig.spool.samples.waiting())
    assert 0 < left <= 4
    rig.channel.fails = None
    rig.turn(after_s=300)
    assert told(rig, "samples-dropped") == [f"{10 - left} files of samples lost to a smaller cap"]
    rig.turn(after_s=300)
    assert len(told(rig, "samples-dropped")) == 1


def test_the_thread_records_uploads_and_leaves_nothing_open(tmp_path: Path) -> None:
    channel = MemoryChannel()
    spool = Spool(tmp_path / "spool", channel, device="cam-07", max_bytes=1 << 20)
    spool.follow(Release(telemetry=TelemetryPolicy(segment_max_age_s=3600)))
    spool.start()
    spool.tell(HealthEvent(what="started", message="now"))
    eventually(lambda: channel.hot)
    answer(spool.intake, 5)
    assert spool.stop(20)
    assert sorted(name.split("/")[2] for name in channel.segments) == [
        "model=_none",
        "model=digits",
    ]
    assert not spool.pending


def test_news_goes_at_once_and_answers_wait_for_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "INTERVAL_S", 3600.0)
    channel = MemoryChannel()
    spool = Spool(tmp_path / "spool", channel, device="cam-07", max_bytes=1 << 20)
    spool.start()
    try:
        answer(spool.intake, 5)
        for _ in range(3):
            channel.hot.clear()
            spool.tell(HealthEvent(what="swapped", message="now"))
            eventually(lambda: channel.hot)
        saved: list[bool] = []
        spool.keep(new_event(Metric(name="m", value=1.0)), saved.append)
        eventually(lambda: saved == [True])
        assert len(spool.intake._answers) == 5
        assert sum(spool.waiting.values()) == 1
        spool.intake._max_items = 10
        answer(spool.intake, 1)  # more than half of what may wait: a turn is due
        eventually(lambda: not spool.intake._answers)
        eventually(lambda: sum(spool.waiting.values()) == 7)
    finally:
        assert spool.stop(20)


def test_work_pauses_after_every_slice_unless_something_waits() -> None:
    pauses: list[float] = []
    hurried = [False]
    leisure = Leisure(lambda: hurried[0], pauses.append)
    assert list(leisure.through(range(SLICE))) == [*range(SLICE)]
    assert pauses == []
    assert len(list(leisure.through(range(3 * SLICE)))) == 3 * SLICE
    assert pauses == [PAUSE_S] * 2
    hurried[0] = True
    assert len(list(leisure.through(range(3 * SLICE)))) == 3 * SLICE
    assert len(pauses) == 2


def test_recording_and_packing_of_many_answers_pause_but_not_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path / "spool", max_bytes=64 << 20)
    pauses: list[float] = []
    monkeypatch.setattr(rig.spool._leisure, "_pause", pauses.append)
    answer(rig.spool.intake, 10 * SLICE)
    rig.turn()
    assert len(pauses) == 9
    rig.turn(after_s=60)
    assert len(rig.predictions()) == 10 * SLICE
    assert len(pauses) == 9 + 3 * 9  # read, taken apart, written
    answer(rig.spool.intake, 10 * SLICE)
    rig.spool.finish()
    assert len(rig.predictions()) == 20 * SLICE
    assert len(pauses) == 4 * 9


@pytest.mark.parametrize(
    "told, paused",
    [
        (Alarm(rule="door", message="open"), 2),
        (HealthEvent(what="release-active", message="serves"), 9),
    ],
)
def test_an_alarm_ends_the_pauses_of_the_work_that_it_waits_for_and_news_does_not(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, told: Alarm | HealthEvent, paused: int
) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            rig.spool.tell(told)

    monkeypatch.setattr(rig.spool._leisure, "_pause", pause)
    answer(rig.spool.intake, 10 * SLICE)
    rig.turn()
    assert len(pauses) == paused


# --------------------------------------------------------------------------------------- summaries


@pytest.mark.parametrize(
    "array,values,top",
    [
        (np.array([[0.1, 0.9], [0.8, 0.2]], np.float64), (0.1, 0.9, 0.8, 0.2), (1, 0)),
        (np.array([3, 1], np.int64), (3.0, 1.0), ()),
        (np.array([True, False]), (1.0, 0.0), ()),
        (np.array([np.nan, 1.0]), (None, 1.0), (0,)),
        (np.array([b"cat"], object), (), ()),
        (np.array(0.5), (0.5,), ()),
        (np.zeros((0, 10)), (), ()),
        (np.zeros((100, 10)), (0.0,) * 16, ()),
    ],
)
def test_summaries_keep_first_values_and_best_classes(
    array: Any, values: tuple[float | None, ...], top: tuple[int, ...]
) -> None:
    (summary,) = summarize({"y": array}, 16)
    assert (summary.shape, summary.values, summary.top) == (array.shape, values, top)


@given(st.floats(0, 1), st.integers(1, 500))
def test_the_share_recorded_is_never_off_by_more_than_one(share: float, count: int) -> None:
    intake = Intake()
    intake.policy = TelemetryPolicy(prediction_fraction=share)
    model = served()
    for _ in range(count):
        intake.observe(model, {}, 1.0, None)
    taken, dropped = intake.take()
    assert not dropped
    assert abs(len(taken) - share * count) < 1
