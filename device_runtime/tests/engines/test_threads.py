"""Which models get one thread: those that run so briefly that more would cost, not gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests import onnx_models
from device_runtime.tests.serving import FakeModel
from edgefleet.errors import InvalidInputError
from edgefleet.protocol.bundle import Interface, TensorSpec
from edgefleet_runtime.engines import threads
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine

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
        (0, EngineOptions(throughput="always"), [1, 0, 1]),
        (0, EngineOptions(throughput="always", threads=1), [1]),
        (0, EngineOptions(throughput="always", threads=2), [2, 1]),
        (1e6, EngineOptions(throughput="always"), [1]),
        (0, EngineOptions(throughput="measured", threads=2), [2]),
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
