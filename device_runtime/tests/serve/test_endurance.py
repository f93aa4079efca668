"""What a thousand swaps leave behind: nothing."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest

from device_runtime.tests.onnx_models import plus
from device_runtime.tests.serving import FakeModel, served, serving, table_of
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.engines.base import EngineOptions, LoadedModel
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.serve.table import ModelTable

SWAPS = 1000
WARM_UP = 200  # swaps; caches fill and the heap takes its shape
MAX_GROWTH_BYTES = 64 * 1024  # of Python's memory; a model kept a swap would be 400 times that
MAX_GROWTH = 0.02  # of the process's memory
ROLLUP = Path("/proc/self/smaps_rollup")


def anonymous_bytes() -> int:
    """Memory of this process alone; pages of libraries depend on who else runs."""
    for line in ROLLUP.read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def replace(table: ModelTable, model: LoadedModel) -> None:
    for gone in table.swap({"m": served(model)}):
        gone.retire()


def test_a_thousand_swaps_under_requests_keep_no_model_and_no_memory() -> None:
    alive: weakref.WeakSet[LoadedModel] = weakref.WeakSet()

    def fresh(number: int) -> FakeModel:
        model = FakeModel(number)
        alive.add(model)
        return model

    table = table_of(served(fresh(0)))
    with serving(table) as server:
        tracemalloc.start()
        try:
            taken = 0
            for number in range(1, SWAPS + 1):
                replace(table, fresh(number))
                assert server.infer(1).json["outputs"][0]["data"] == [number + 1]
                if number == WARM_UP:
                    gc.collect()
                    taken, _ = tracemalloc.get_traced_memory()
            gc.collect()
            now, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # A thread may still be trying out whether the model before the last gained from batches.
        eventually(lambda: len(alive) == 1, meanwhile=gc.collect)
    assert now - taken < MAX_GROWTH_BYTES


@pytest.mark.skipif(not ROLLUP.exists(), reason="only Linux tells a process's own memory there")
def test_a_thousand_sessions_swapped_in_and_out_keep_the_processs_memory(tmp_path: Path) -> None:
    paths = [plus(tmp_path / f"{addend}.onnx", addend) for addend in range(2)]
    table = ModelTable()
    x = np.zeros(3, np.float32)
    steady = 0
    for number in range(SWAPS):
        model = OnnxRuntimeEngine().load(paths[number % 2], EngineOptions(threads=1))
        replace(table, model)
        with table.lease("m") as current:
            assert current.infer({"x": x})[0]["y"][0] == number % 2
        if number == WARM_UP:
            steady = anonymous_bytes()
    assert anonymous_bytes() < steady * (1 + MAX_GROWTH)
