"""Trials: only models that keep rows apart and gain from it run requests together."""

from __future__ import annotations

import time
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

    def infer(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, Any]:
        until = time.perf_counter() + self.cost_s(len(inputs["x"]))
        while time.perf_counter() < until:
            pass
        return {"y": self.result(inputs["x"])}


def constant(_: int) -> float:
    return 1e-3


def double(x: Any) -> Any:
    return x * 2


def test_a_model_that_runs_many_rows_as_fast_as_one_runs_many() -> None:
    assert max_rows(Model(constant, double), X, limits=BatchLimits(max_rows=16)) == 16


def test_a_model_that_takes_as_long_for_each_row_runs_one() -> None:
    assert max_rows(Model(lambda rows: rows * 1e-3, double), X) == 1


@pytest.mark.parametrize(
    "result",
    [lambda x: x - x.mean(), lambda x: x.sum(keepdims=True), lambda x: x[::-1] * 2, np.sum],
)
def test_a_model_that_mixes_rows_runs_one(result: Callable[[Any], Any]) -> None:
    assert max_rows(Model(constant, result), X) == 1


def test_batches_stay_within_latency_and_bytes() -> None:
    def slowly(rows: int) -> float:
        return 1e-3 * (1 + rows / 2)

    tight = BatchLimits(stretch=2.0, grace_us=0.0)
    assert 1 < max_rows(Model(slowly, double), X, limits=tight) <= 4
    small = BatchLimits(max_bytes=8 * 5)  # 4 bytes in and 4 out a row
    assert max_rows(Model(constant, double), X, limits=small) == 4


def test_a_latency_budget_takes_the_place_of_what_one_row_takes() -> None:
    def slowly(rows: int) -> float:
        return 1e-3 * (1 + rows / 2)

    assert max_rows(Model(slowly, double), X, limits=BatchLimits(latency_us=1.0)) == 1
    generous = BatchLimits(latency_us=1e6, max_rows=16, stretch=1.0, grace_us=0.0)
    assert max_rows(Model(slowly, double), X, limits=generous) == 16


def test_rows_of_text_are_told_apart_too() -> None:
    text = {"x": np.array([b"a"], object)}
    assert max_rows(Model(constant, lambda x: x), text, limits=BatchLimits(max_rows=4)) == 4
    assert max_rows(Model(constant, lambda x: x[::-1]), text) == 1


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
