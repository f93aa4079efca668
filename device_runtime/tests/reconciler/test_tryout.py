"""One variant measured in a process of its own: how it is timed, and how it may end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from device_runtime.tests.node.device import times
from device_runtime.tests.support import X, details
from edgefleet.protocol.documents import encode
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.reconciler.duel import MIN_PAIRS
from edgefleet_runtime.reconciler.tryout import Request, Tryout, how_it_ended
from edgefleet_runtime.reconciler.tryout_process import WARM_UP_RUNS, timed
from edgefleet_runtime.report.host import peak_rss_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.protocol.orders import TrialFigures


def request_for(folder: Path, *, due: float = 2, vectors: int = 1) -> Request:
    (folder / "m.onnx").write_bytes(times(2))
    about = details(due, entry="m.onnx", variant="fp32", vectors=vectors)
    (folder / "details.json").write_bytes(encode(about))
    return Request(
        variant="fp32",
        format="onnx",
        entry=str(folder / "m.onnx"),
        details=str(folder / "details.json"),
        calls=20,
    )


def endless_request_for(folder: Path) -> Request:
    """A request that a process waits in for ever: nobody writes the details."""
    request = request_for(folder)
    (folder / "details.json").unlink()
    os.mkfifo(folder / "details.json")
    return request


def figures_of(tryout: Tryout) -> TrialFigures:
    found: TrialFigures = eventually(tryout.figures)
    return found


def test_a_process_tells_its_figures_and_that_it_is_done(tmp_path: Path) -> None:
    done: list[bool] = []
    tryout = Tryout(request_for(tmp_path), done=lambda: done.append(True))
    found = figures_of(tryout)
    assert (found.outcome, found.calls, found.reason) == ("measured", 20, "")
    assert found.self_test is not None
    eventually(lambda: done)


def test_a_bundle_without_vectors_is_timed_untested(tmp_path: Path) -> None:
    found = figures_of(Tryout(request_for(tmp_path, vectors=0)))
    assert (found.outcome, found.self_test) == ("measured", None)


def test_a_file_that_is_no_model_fails_with_what_the_engine_says(tmp_path: Path) -> None:
    request = request_for(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"no model")
    found = figures_of(Tryout(request))
    assert found.outcome == "failed"
    assert "m.onnx" in found.reason


def test_a_process_that_is_stopped_gives_no_figures(tmp_path: Path) -> None:
    tryout = Tryout(endless_request_for(tmp_path))
    assert tryout.figures() is None
    tryout.stop()
    assert "was killed" in figures_of(tryout).reason


def test_a_process_ends_with_the_runtime(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgefleet_runtime.reconciler.tryout_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            # It closes standard input, as the runtime's end would.
            process.communicate(msgspec.json.encode(endless_request_for(tmp_path)) + b"\n", 90)
        finally:
            process.kill()
    assert process.returncode == 1


@pytest.mark.parametrize(
    "code, said",
    [
        (-signal.SIGKILL, "memory runs out"),
        (-signal.SIGSEGV, "brought its process down: Segmentation fault"),
        (3, "ended with code 3"),
    ],
)
def test_a_process_without_figures_says_how_it_ended(code: int, said: str) -> None:
    assert said in how_it_ended(code)


class Steady:
    """A model that takes a tenth of a second a call, and a clock that shows it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0
        self.rested: list[float] = []

    def __call__(self) -> float:
        return self.now

    def infer(self, inputs: Any) -> dict[str, Any]:
        self.calls += 1
        self.now += 0.1
        return {"y": inputs["x"]}

    def times(self, **limits: Any) -> list[float]:
        model: Any = self
        options = {"calls": 100, "seconds": 1.0, "share": 0.1, **limits}
        return timed(model, [{"x": X}], clock=self, pause=self.rested.append, **options)


def test_after_its_seconds_of_running_a_variant_is_done() -> None:
    assert len(Steady().times()) == 10


def test_few_calls_are_timed_however_long_they_take() -> None:
    model = Steady()
    assert len(model.times(seconds=0.01)) == MIN_PAIRS
    assert model.calls == MIN_PAIRS + WARM_UP_RUNS


def test_it_rests_nine_tenths_of_the_time() -> None:
    model = Steady()
    np.testing.assert_allclose(model.times(calls=7), 1e5)
    np.testing.assert_allclose(model.rested, [0.9] * 7)


def test_the_peak_of_memory_is_told_where_the_system_knows_it(tmp_path: Path) -> None:
    assert peak_rss_bytes(tmp_path) is None
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("VmPeak:\t 900 kB\nVmHWM:\t  12 kB\n")
    assert peak_rss_bytes(tmp_path) == 12 << 10
