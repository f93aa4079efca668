"""Trials: only models that keep rows apart and gain from it run requests together."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests import onnx_models
from device_runtime.tests.serving import FakeModel
from edgefleet.errors import InferenceError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.serve.queueing import BatchLimits
from edgefleet_runtime.serve.trial import can_batch, max_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

X = {"x": np.ones(1, np.float32)}


class Model(FakeModel):
    """Takes the time that ``cost_s`` gives for so many rows."""

    def __init__(self, cost_s: Callable[[int], float], result: Callable[[Any], Any]) -> None:
        super().__init__()
        self.cost_s = cost_s
        self.result = result
        self.now_s = 0.0

    def infer(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, Any]:
        self.now_s += self.cost_s(len(inputs["x"]))
        return {"y": self.result(inputs["x"])}

    def max_rows(
        self, limits: BatchLimits | None = None, *, inputs: Mapping[str, Any] = MappingProxyType(X)
    ) -> int:
        """What a trial finds, on a clock that the runs alone move."""
        return max_rows(self, inputs, limits=limits, clock=lambda: self.now_s)


def constant(_: int) -> float:
    return 1e-3


def double(x: Any) -> Any:
    return x * 2


def test_a_model_that_runs_many_rows_as_fast_as_one_runs_many() -> None:
    assert Model(constant, double).max_rows(BatchLimits(max_rows=16)) == 16


def test_a_model_that_takes_as_long_for_each_row_runs_one() -> None:
    assert Model(lambda rows: rows * 1e-3, double).max_rows() == 1


@pytest.mark.parametrize(
    "result",
    [lambda x: x - x.mean(), lambda x: x.sum(keepdims=True), lambda x: x[::-1] * 2, np.sum],
)
def test_a_model_that_mixes_rows_runs_one(result: Callable[[Any], Any]) -> None:
    assert Model(constant, result).max_rows() == 1


def test_batches_stay_within_latency_and_bytes() -> None:
    def slowly(rows: int) -> float:
        return 1e-3 * (1 + rows / 2)

    tight = BatchLimits(stretch=2.0, grace_us=0.0)
    assert 1 < Model(slowly, double).max_rows(tight) <= 4
    small = BatchLimits(max_bytes=8 * 5)  # 4 bytes in and 4 out a row
    assert Model(constant, double).max_rows(small) == 4


def test_a_latency_budget_takes_the_place_of_what_one_row_takes() -> None:
    def slowly(rows: int) -> float:
        return 1e-3 * (1 + rows / 2)

    assert Model(slowly, double).max_rows(BatchLimits(latency_us=1.0)) == 1
    generous = BatchLimits(latency_us=1e6, max_rows=16, stretch=1.0, grace_us=0.0)
    assert Model(slowly, double).max_rows(generous) == 16


def test_rows_of_text_are_told_apart_too() -> None:
    text = {"x": np.array([b"a"], object)}
    assert Model(constant, lambda x: x).max_rows(BatchLimits(max_rows=4), inputs=text) == 4
    assert Model(constant, lambda x: x[::-1]).max_rows(inputs=text) == 1


def test_a_model_that_fails_says_so() -> None:
    model = FakeModel()
    model.close()
    with pytest.raises(InferenceError):
        max_rows(model, X)


def test_only_open_first_dimensions_are_tried(tmp_path: Path) -> None:
    engine = OnnxRuntimeEngine()
    mlp = engine.load(onnx_models.mlp(tmp_path / "mlp.onnx"), EngineOptions())
    two = engine.load(onnx_models.scalar_and_two_outputs(tmp_path / "2.onnx"), EngineOptions())
    assert can_batch(mlp.interface)
    assert not can_batch(two.interface)
