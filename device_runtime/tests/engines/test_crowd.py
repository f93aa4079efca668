"""Runs that meet others take the second session where it serves more, and only then."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests import onnx_models
from device_runtime.tests.serving import Gate
from edgefleet.errors import InferenceError
from edgefleet_runtime.engines import footprint, threads
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.crowd import EPOCH, EPOCHS, LINGERS, MEETINGS, WARM, Crowd
from edgefleet_runtime.engines.footprint import has_room
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ALONE, HELD = {"x": "a run"}, {"x": "a run that is held"}
WAIT_S = 60.0
WHOLE_TRIAL = 2 * EPOCHS * (WARM + EPOCH)


class Bench:
    """Two sessions that tell who ran, and a clock that each run moves by what it takes."""

    def __init__(self, first_s: float = 1.0, second_s: float = 1.0) -> None:
        self.ran: list[str] = []
        self.now = 0.0
        self.opened = threading.Event()
        self.gate = Gate()
        self.first = self._session("first", first_s)
        self.second = self._session("second", second_s)

    def open_second(self) -> Any:
        self.opened.set()
        return self.second

    def crowd(self, open_second: Callable[[], Any] | None = None, **options: Any) -> Crowd:
        return Crowd(self.first, open_second or self.open_second, clock=self.clock, **options)

    def clock(self) -> float:
        return self.now

    @contextmanager
    def company(self, crowd: Crowd) -> Iterator[None]:
        """While a run is held, so that all others meet it."""
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(crowd.run, [], HELD, None)
            try:
                self.gate.wait_for_run()
                yield
            finally:
                self.gate.open.set()
                held.result()

    def _session(self, name: str, takes_s: float) -> Any:
        def run(_: object, feed: object, __: object) -> list[str]:
            if feed is HELD:
                self.gate()
                return []
            self.ran.append(name)
            self.now += takes_s
            return [name]

        return run


def runs(crowd: Crowd, count: int) -> None:
    for _ in range(count):
        crowd.run([], ALONE, None)


def opened(crowd: Crowd, bench: Bench) -> None:
    """Meet until the second session is there and takes part."""
    runs(crowd, MEETINGS + 1)
    assert bench.opened.wait(WAIT_S)
    bench.ran.clear()
    while "second" not in bench.ran:
        runs(crowd, 1)


def test_runs_that_meet_nobody_open_no_second_session() -> None:
    bench = Bench()
    runs(bench.crowd(), 10 * MEETINGS)
    assert set(bench.ran) == {"first"}
    assert not bench.opened.is_set()


@pytest.mark.parametrize("second_s,kept", [(0.5, "second"), (1.0, "first"), (2.0, "first")])
def test_the_second_session_stays_only_if_it_is_quicker(second_s: float, kept: str) -> None:
    bench = Bench(second_s=second_s)
    crowd = bench.crowd()
    with bench.company(crowd):
        opened(crowd, bench)
        runs(crowd, WHOLE_TRIAL)
        bench.ran.clear()
        runs(crowd, 3)
        assert bench.ran == [kept] * 3
    runs(crowd, LINGERS)
    bench.ran.clear()
    runs(crowd, 3)
    assert bench.ran == ["first"] * 3


def test_a_pause_among_the_runs_that_are_timed_does_not_count() -> None:
    bench = Bench(second_s=0.5)
    crowd = bench.crowd()
    with bench.company(crowd):
        opened(crowd, bench)
        runs(crowd, WARM)
    bench.now += 1e6
    runs(crowd, 1)
    bench.gate = Gate()
    with bench.company(crowd):
        runs(crowd, WHOLE_TRIAL)
        bench.ran.clear()
        runs(crowd, 1)
    assert bench.ran == ["second"]


@pytest.mark.parametrize("broken", [True, False])
def test_without_a_second_session_everything_goes_on(*, broken: bool) -> None:
    bench = Bench()

    def refuse() -> None:
        bench.opened.set()
        if broken:
            raise MemoryError("no memory")

    crowd = bench.crowd(refuse)
    with bench.company(crowd):
        runs(crowd, MEETINGS + 1)
        assert bench.opened.wait(WAIT_S)
        runs(crowd, WHOLE_TRIAL)
    assert set(bench.ran) == {"first"}


def test_unmeasured_the_second_session_takes_all_that_meet() -> None:
    bench = Bench(second_s=2.0)
    crowd = bench.crowd(measured=False)
    with bench.company(crowd):
        runs(crowd, 2)
    runs(crowd, LINGERS)
    assert bench.ran == ["second"] * (1 + LINGERS) + ["first"]


@pytest.mark.parametrize("measured", [True, False])
def test_what_is_closed_keeps_no_session(*, measured: bool) -> None:
    bench = Bench()
    crowd = bench.crowd(measured=measured)
    sessions = [weakref.ref(bench.first), weakref.ref(bench.second)]
    crowd.close()
    bench.first = bench.second = None
    gc.collect()
    assert [session() for session in sessions] == [None, None]
    with pytest.raises(InferenceError, match="closed"):
        crowd.run([], ALONE, None)


def test_a_session_that_opens_after_the_end_is_let_go() -> None:
    bench = Bench()
    going_on, go_on = threading.Event(), threading.Event()

    def slowly() -> Any:
        going_on.set()
        assert go_on.wait(WAIT_S)
        return bench.second

    before = set(threading.enumerate())
    crowd = bench.crowd(slowly)
    with bench.company(crowd):
        runs(crowd, MEETINGS + 1)
        assert going_on.wait(WAIT_S)
        (opener,) = (t for t in set(threading.enumerate()) - before if t.name == "second-session")
    crowd.close()
    go_on.set()
    opener.join(WAIT_S)
    session = weakref.ref(bench.second)
    bench.second = None
    gc.collect()
    assert session() is None


def test_a_failed_run_is_told_and_counts_as_ended() -> None:
    def fail(*_: object) -> None:
        raise ValueError("a run")

    bench = Bench()
    crowd = Crowd(fail, bench.open_second, measured=False)
    for _ in range(2):
        with pytest.raises(ValueError, match="a run"):
            crowd.run([], ALONE, None)
    assert not bench.ran, "nobody was met"


def test_a_model_that_many_ask_gives_the_same_answers_from_both_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "TINY_RUN_US", 0)
    path = onnx_models.mlp(tmp_path / "mlp.onnx")
    model = OnnxRuntimeEngine().load(path, EngineOptions(threads=2))
    x = np.arange(4, dtype=np.float32).reshape(1, 4)
    due = model.infer({"x": x})["y"].tobytes()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: model.infer({"x": x})["y"].tobytes(), range(2000)))
    assert set(answers) == {due}
    model.close()
    with pytest.raises(InferenceError, match="closed"):
        model.infer({"x": x})


@pytest.mark.parametrize("free_kb,room", [(1 << 20, True), (100, False), (None, False)])
def test_there_is_room_where_twice_the_estimate_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_kb: int | None, *, room: bool
) -> None:
    told = tmp_path / "meminfo"
    if free_kb is not None:
        told.write_text(f"MemTotal: 99 kB\nMemAvailable: {free_kb} kB\n")
    monkeypatch.setattr(footprint, "_MEMORY", told)
    entry = tmp_path / "model.onnx"
    entry.write_bytes(b"0" * 10_000)
    (tmp_path / "model.onnx.data").write_bytes(b"0" * 10_000)
    (tmp_path / "other.onnx").write_bytes(b"0" * (1 << 20))
    assert has_room(entry) is room
