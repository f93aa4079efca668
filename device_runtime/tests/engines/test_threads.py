"""Which models get one thread: those that run so briefly that more would cost, not gain."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests import onnx_models
from device_runtime.tests.serving import FakeModel, Gate
from edgefleet.errors import InferenceError, InvalidInputError
from edgefleet.protocol.bundle import Interface, TensorSpec
from edgefleet_runtime.engines import threads
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxModel, OnnxRuntimeEngine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of threads that sessions are opened with."""
    import onnxruntime

    real, seen = onnxruntime.InferenceSession, []

    def session(path: str, settings: Any, **options: Any) -> Any:
        seen.append(settings.intra_op_num_threads)
        return real(path, settings, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return seen


@pytest.mark.parametrize(
    "tiny_us,threads_wanted,opened", [(1e6, 0, [1]), (0, 0, [1, 0]), (1e6, 3, [3])]
)
def test_what_runs_briefly_gets_one_thread_unless_told_otherwise(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[int],
    *,
    tiny_us: float,
    threads_wanted: int,
    opened: list[int],
) -> None:
    monkeypatch.setattr(threads, "TINY_RUN_US", tiny_us)
    path = onnx_models.mlp(tmp_path / "mlp.onnx")
    model = OnnxRuntimeEngine().load(path, EngineOptions(threads=threads_wanted))
    assert asked == opened
    assert model.infer({"x": np.zeros((1, 4), np.float32)})["y"].shape == (1, 2)


def test_a_large_file_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    monkeypatch.setattr(threads, "MAX_TINY_BYTES", 10)
    OnnxRuntimeEngine().load(onnx_models.mlp(tmp_path / "mlp.onnx"), EngineOptions())
    assert asked == [0]


def test_a_model_that_zeros_do_not_fit_is_not_tiny() -> None:
    def refuse() -> None:
        raise InvalidInputError("zeros")

    assert not threads.is_tiny(FakeModel(during=refuse))


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec(name="x", datatype="BYTES", shape=(1,)),
        TensorSpec(name="x", datatype="FP32", shape=(1, 3, 4096, 4096)),
    ],
)
def test_text_and_large_inputs_are_not_tried(spec: TensorSpec) -> None:
    model = FakeModel(during=lambda: pytest.fail("it ran"))
    model.interface = Interface(inputs=(spec,), outputs=())
    assert not threads.is_tiny(model)


@pytest.mark.parametrize(
    "tiny_us,options,opened",
    [
        (0, EngineOptions(throughput=True), [1, 0, 1]),
        (0, EngineOptions(throughput=True, threads=1), [1]),
        (0, EngineOptions(throughput=True, threads=2), [2, 1]),
        (1e6, EngineOptions(throughput=True), [1]),
    ],
)
def test_for_throughput_a_second_session_runs_on_one_thread(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[int],
    *,
    tiny_us: float,
    options: EngineOptions,
    opened: list[int],
) -> None:
    monkeypatch.setattr(threads, "TINY_RUN_US", tiny_us)
    model = OnnxRuntimeEngine().load(onnx_models.mlp(tmp_path / "mlp.onnx"), options)
    assert asked == opened
    assert model.infer({"x": np.zeros((1, 4), np.float32)})["y"].shape == (1, 2)


class Session:
    """Stands in for a session: ``x`` FP32[1] to ``y``; tells who ran, and may hold a run."""

    def __init__(self, name: str, ran: list[str], hold: Gate | None = None) -> None:
        self.name, self.ran, self.hold = name, ran, hold

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="x", type="tensor(float)", shape=[1])]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="y", type="tensor(float)", shape=[1])]

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def run(self, names: list[str], feed: dict[str, Any], _: object) -> list[Any]:
        self.ran.append(self.name)
        if self.hold is not None:
            self.hold()
        return [feed["x"] for _ in names]


def test_only_a_run_beside_another_takes_the_second_session() -> None:
    ran: list[str] = []
    gate, x = Gate(), {"x": np.ones(1, np.float32)}
    model = OnnxModel(Session("all threads", ran, gate), "onnxruntime")
    model.accompany(Session("one thread", ran))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(model.infer, x)
        gate.wait_for_run()
        model.infer(x)
        model.infer(x)
        gate.open.set()
        first.result()
    model.infer(x)
    assert ran == ["all threads", "one thread", "one thread", "all threads"]
    model.close()
    with pytest.raises(InferenceError, match="closed"):
        model.infer(x)
