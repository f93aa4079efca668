"""Captures that an operator orders: the next requests of a model become samples."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from device_runtime.tests.reconciler.rig import Rig, serving
from edgefleet.errors import LimitExceededError, NotFoundError, StorageFullError
from edgefleet.protocol.orders import CaptureAnswer, CaptureOrder
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.serve.capture import Capture, npy
from edgefleet_runtime.spool.on_demand import MAX_OPEN, OnDemand

ORDER = "order-1234"
TIMEOUT_S = 90.0
BOTH = TelemetryPolicy(prediction_fraction=0.0, inputs=("*/*",))


class ListRecorder:
    """Keeps captures in a list; with ``full`` there is no room."""

    def __init__(self) -> None:
        self.captures: list[Capture] = []
        self.full = False
        self.wait: Callable[[], object] = lambda: None

    def record(self, capture: Capture, done: Callable[[bool], None], /) -> None:
        self.wait()
        if self.full:
            raise StorageFullError("no room")
        self.captures.append(capture)
        done(True)


class Bench:
    """A device that serves ``digits``, and its captures on demand."""

    def __init__(self, root: Path, *, max_bytes: int = 1 << 20) -> None:
        self.rig = Rig(root)
        self.recorder = ListRecorder()
        self.on_demand = OnDemand(
            self.rig.table,
            self.recorder,
            lambda: self.rig.driver.telemetry,
            max_bytes=max_bytes,
            clock=self.rig.clock,
        )
        self.rig.on_serve.append(self.on_demand.attend)

    def deploy(self, factor: float, version: str, policy: TelemetryPolicy = BOTH) -> None:
        model = {"digits": self.rig.repository.fake(factor)}
        self.rig.deploy(self.rig.repository.release(model, version=version, telemetry=policy))

    def capture(self, count: int = 1, *, order: str = ORDER, seconds: float = 60) -> CaptureAnswer:
        return self.on_demand.take(
            CaptureOrder(
                id=order, model="digits", count=count, seconds=seconds, by="ada", reason="odd"
            )
        )

    def captured(self, count: int, order: str = ORDER) -> CaptureAnswer:
        """Wait until so many samples are kept or lost."""

        def done() -> CaptureAnswer | None:
            answer = self.capture(order=order)
            return answer if answer.captured + answer.dropped >= count else None

        found: CaptureAnswer = eventually(done)
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    bench.deploy(2, "1")
    yield bench
    assert bench.on_demand.close(TIMEOUT_S)


def test_the_next_requests_are_kept_whatever_share_is_recorded(bench: Bench) -> None:
    bench.rig.factor()
    answer = bench.capture(2)
    assert (answer.id, answer.captured, answer.open, answer.inputs) == (ORDER, 0, True, True)
    for _ in range(3):
        bench.rig.factor()
    answer = bench.captured(2)
    assert (answer.captured, answer.open) == (2, False)
    assert answer.ids == (f"{ORDER}.0", f"{ORDER}.1")
    assert [kept.id for kept in bench.recorder.captures] == list(answer.ids)


def test_a_sample_holds_what_was_asked_and_answered(bench: Bench) -> None:
    bench.capture()
    x = np.array([[1, 2, 3, 4]], np.float32)
    bench.rig.infer(x=x)
    bench.captured(1)
    (kept,) = bench.recorder.captures
    assert np.array_equal(np.load(io.BytesIO(kept.inputs["x"])), x)
    assert np.array_equal(np.load(io.BytesIO(kept.outputs["y"])), 2 * x)
    assert (kept.model, kept.version, kept.reason) == ("digits", "1", "ordered by ada: odd")


def test_inputs_are_kept_only_where_the_policy_allows_them(bench: Bench) -> None:
    bench.deploy(3, "2", TelemetryPolicy())
    assert not bench.capture().inputs
    bench.rig.factor()
    bench.captured(1)
    (kept,) = bench.recorder.captures
    assert (kept.inputs, list(kept.outputs)) == ({}, ["y"])


def test_the_policy_of_the_release_that_serves_counts(bench: Bench) -> None:
    bench.capture(2)
    bench.rig.factor()
    bench.deploy(3, "2", TelemetryPolicy())
    bench.rig.factor()
    bench.captured(2)
    assert [(kept.version, list(kept.inputs)) for kept in bench.recorder.captures] == [
        ("1", ["x"]),
        ("2", []),
    ]


def test_the_same_order_again_captures_no_more(bench: Bench) -> None:
    bench.capture()
    bench.rig.factor()
    bench.captured(1)
    assert bench.capture().captured == 1
    bench.rig.factor()
    assert bench.capture().ids == (f"{ORDER}.0",)


def test_a_request_that_fails_is_no_sample(bench: Bench) -> None:
    bench.capture()
    with pytest.raises(TypeError):
        bench.rig.infer(x=np.array([["no", "number"]], object))
    assert (bench.capture().open, bench.recorder.captures) == (True, [])


def test_an_order_ends_when_its_time_is_up(bench: Bench) -> None:
    bench.capture(5, seconds=10)
    bench.rig.factor()
    bench.rig.clock.now += 11
    bench.rig.factor()
    answer = bench.captured(1)
    assert (answer.captured, answer.open) == (1, False)


def test_a_model_that_nobody_captures_is_not_watched(bench: Bench) -> None:
    (served,) = bench.rig.table
    before = served.watchers
    bench.capture()
    assert len(served.watchers) == len(before) + 1
    bench.rig.factor()
    assert served.watchers == before


def test_a_model_that_is_not_served_is_refused(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="faces"):
        bench.on_demand.take(CaptureOrder(id=ORDER, model="faces"))


def test_an_order_without_an_id_is_given_one(bench: Bench) -> None:
    answer = bench.on_demand.take(CaptureOrder(model="digits"))
    assert answer.id
    assert bench.on_demand.take(CaptureOrder(id=answer.id, model="digits")) == answer


def test_more_open_orders_than_there_may_be_are_refused(bench: Bench) -> None:
    for number in range(MAX_OPEN):
        bench.capture(order=f"order-{number:04}")
    with pytest.raises(LimitExceededError, match="are open"):
        bench.capture(order="one-more-order")


def test_a_request_without_room_is_counted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_bytes=8)
    bench.deploy(2, "1")
    bench.capture()
    bench.rig.factor()
    answer = bench.captured(1)
    assert (answer.captured, answer.dropped, answer.open) == (0, 1, False)
    assert bench.on_demand.close(TIMEOUT_S)


def test_a_full_spool_is_counted(bench: Bench) -> None:
    bench.recorder.full = True
    bench.capture()
    bench.rig.factor()
    assert bench.captured(1).dropped == 1


def test_what_was_taken_is_kept_before_the_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    serving(bench.rig)
    bench.capture()
    bench.rig.factor()
    assert bench.on_demand.close(TIMEOUT_S)
    assert len(bench.recorder.captures) == 1
    with pytest.raises(LimitExceededError):
        bench.capture(order="another-order")


def test_a_disk_that_hangs_does_not_hold_up_the_end(bench: Bench) -> None:
    hold = threading.Event()
    bench.recorder.wait = lambda: hold.wait(TIMEOUT_S)
    bench.capture()
    bench.rig.factor()
    assert not bench.on_demand.close(0.01)
    hold.set()


def test_strings_are_kept_as_numpys(bench: Bench) -> None:
    text = np.array([b"one", b"three"], object)
    assert np.load(io.BytesIO(npy(text))).tolist() == [b"one", b"three"]


def test_inputs_are_redacted_as_the_policy_says_before_anything_is_kept(bench: Bench) -> None:
    policy = TelemetryPolicy(inputs=("*/*",), redact={"digits/x": ("noise",)})
    bench.deploy(3, "2", policy)
    x = np.array([[1, 2, 3, 4]], np.float32)
    bench.capture()
    bench.rig.infer(x=x)
    bench.captured(1)
    (kept,) = bench.recorder.captures
    assert kept.redacted == {"x": ("noise",)}
    assert x.tobytes() not in kept.inputs["x"]
    assert (kept.bundle, kept.answers[0].top) == (bench.rig.model("2").bundle, (3,))


def test_inputs_that_cannot_be_redacted_are_not_kept(bench: Bench) -> None:
    policy = TelemetryPolicy(inputs=("*/*",), redact={"*/*": ("plant.unknown",)})
    bench.deploy(3, "2", policy)
    bench.capture()
    bench.rig.factor()
    bench.captured(1)
    (kept,) = bench.recorder.captures
    assert (kept.inputs, list(kept.outputs)) == ({}, ["y"])
