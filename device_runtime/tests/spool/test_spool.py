from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.tests.support import Clock, FakeModel, MemoryChannel, eventually
from edgefleet.errors import UnavailableError
from edgefleet.protocol.event import Alarm, HealthEvent, Prediction, new_event
from edgefleet.protocol.release import Release, RuntimeSettings, TelemetryPolicy
from edgefleet.protocol.segment import read_segment
from edgefleet_runtime.serve.table import ServedModel
from edgefleet_runtime.spool.hot import HotQueue
from edgefleet_runtime.spool.intake import Intake
from edgefleet_runtime.spool.spool import Spool
from edgefleet_runtime.spool.summary import summarize

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

    def predictions(self) -> list[Prediction]:
        found: list[Prediction] = []
        for name in sorted(self.channel.segments):
            data = io.BytesIO(self.channel.segments[name])
            for event in read_segment(data):
                payload = event.payload()
                assert isinstance(payload, Prediction)
                found.append(payload)
        return found


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
    assert rig.spool.used_bytes == 0


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


def test_over_the_cap_the_oldest_go_are_counted_and_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "spool", max_bytes=4000)
    rig.channel.fails = UnavailableError("offline")
    for _ in range(20):
        answer(rig.spool.intake, 10)
        rig.turn(after_s=61)
    assert rig.spool.used_bytes <= 4000
    dropped = rig.spool.dropped
    assert dropped > 0
    rig.channel.fails = None
    rig.turn(after_s=300)
    rig.turn(after_s=61)
    assert len(rig.predictions()) + rig.spool.dropped == 200
    told = [event.payload() for event in rig.channel.hot]
    assert {one.what for one in told if isinstance(one, HealthEvent)} == {"events-dropped"}
    assert rig.started().dropped == rig.spool.dropped >= dropped


def test_a_release_may_ask_for_a_smaller_spool_but_not_a_larger(rig: Rig) -> None:
    rig.follow(spool_max_bytes=1 << 40)
    assert rig.spool._files.max_bytes == rig.max_bytes
    rig.follow(spool_max_bytes=1000)
    assert rig.spool._files.max_bytes == 1000


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
    assert [event.payload().message for event in rig.channel.hot] == ["0", "1", "2"]  # type: ignore[union-attr]
    rig.started()
    rig.turn()
    assert len(rig.channel.hot) == 3


def test_a_torn_hot_event_is_dropped_and_the_queue_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "hot.ndjson"
    HotQueue(path).put(new_event(Alarm(rule="a", message="one")))
    path.write_bytes(path.read_bytes() + b'{"torn')
    queue = HotQueue(path)
    assert (len(queue.waiting()), queue.dropped) == (1, 1)
    queue.put(new_event(Alarm(rule="a", message="two")))
    assert len(HotQueue(path).waiting()) == 2


def test_too_many_hot_events_drop_the_oldest(tmp_path: Path) -> None:
    queue = HotQueue(tmp_path / "hot.ndjson", max_events=2)
    for number in range(5):
        queue.put(new_event(Alarm(rule="a", message=str(number))))
    assert queue.dropped == 3
    assert len(HotQueue(tmp_path / "hot.ndjson").waiting()) == 2


def test_the_thread_records_uploads_and_leaves_nothing_open(tmp_path: Path) -> None:
    channel = MemoryChannel()
    spool = Spool(tmp_path / "spool", channel, device="cam-07", max_bytes=1 << 20)
    spool.follow(Release(telemetry=TelemetryPolicy(segment_max_age_s=3600)))
    spool.start()
    spool.tell(HealthEvent(what="started", message="now"))
    eventually(lambda: channel.hot)
    answer(spool.intake, 5)
    assert spool.stop(20)
    assert len(channel.segments) == 1
    assert list((tmp_path / "spool" / "open").rglob("*.ndjson")) == []


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
    assert dropped == 0
    assert abs(len(taken) - share * count) < 1
