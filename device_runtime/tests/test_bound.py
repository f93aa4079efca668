"""Models of a runtime on the caller's own tensors."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_runtime.tests import onnx_models
from device_runtime.tests.serving import FakeModel, served
from edgefleet.errors import InferenceError, InvalidInputError, NotFoundError
from edgefleet_runtime import Runtime, bound
from edgefleet_runtime.bound import BoundModel
from edgefleet_runtime.engines.base import Bound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with Runtime({"plus": onnx_models.plus(tmp_path / "plus.onnx", 1)}) as runtime:
        yield runtime


def vector(*elements: float) -> Any:
    return np.array(elements, np.float32)


def test_outputs_are_written_where_the_caller_wants_them(runtime: Runtime) -> None:
    x, y = vector(1, 2), vector(0, 0)
    with runtime.bind("plus", {"x": x}, {"y": y}) as bound:
        assert bound.inputs["x"] is x
        assert bound.run() is bound.outputs
        assert y.tolist() == [2, 3]
        x += 10
        bound.run()
        assert y.tolist() == [12, 13]


def test_a_bound_model_outlives_its_runtime(tmp_path: Path) -> None:
    runtime = Runtime({"plus": onnx_models.plus(tmp_path / "plus.onnx", 1)})
    model = runtime.model("plus")
    bound = runtime.bind("plus", {"x": vector(1)})
    runtime.close()
    assert bound.run()["y"].tolist() == [2]
    bound.close()
    bound.close()
    with pytest.raises(InferenceError, match="closed"):
        bound.run()
    with pytest.raises(InferenceError, match="closed"):
        model.infer({"x": vector(1)})


def test_what_cannot_be_bound_leaves_no_lease(runtime: Runtime) -> None:
    model = runtime.model("plus")
    with pytest.raises(InvalidInputError, match="takes FP32"):
        runtime.bind("plus", {"x": np.zeros(2)})
    runtime.close()
    with pytest.raises(InferenceError, match="closed"):
        model.infer({"x": vector(1)})


def test_an_unknown_model_is_named(runtime: Runtime) -> None:
    with pytest.raises(NotFoundError, match="no model 'minus'"):
        runtime.bind("minus", {})


class Watched(Bound):
    """Remembers the threads that it ran on."""

    def __init__(self) -> None:
        self.inputs = self.outputs = {}
        self.ran_on: list[threading.Thread] = []

    def run(self) -> Any:
        self.ran_on.append(threading.current_thread())
        return self.outputs

    def close(self) -> None:
        pass


@pytest.mark.parametrize("inline_us,own_thread", [(0.0, False), (float("inf"), True)])
def test_async_runs_leave_the_loop_free_unless_they_are_brief(
    monkeypatch: pytest.MonkeyPatch, inline_us: float, *, own_thread: bool
) -> None:
    monkeypatch.setattr(bound, "INLINE_RUN_US", inline_us)
    watched, model = Watched(), served(FakeModel())
    model.acquire()

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool, BoundModel(model, watched, lambda: pool) as ready:
            assert await ready.run_async() is watched.outputs
            await ready.run_async()

    asyncio.run(main())
    first, second = watched.ran_on
    assert first is not threading.main_thread(), "nobody knows how long it takes"
    assert (second is threading.main_thread()) is own_thread
