"""What a run made the engine take goes back after a large one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# In a process of its own: what other tests hold and free would be measured with it.
CODE = """
import sys
import numpy as np
from onnx import TensorProto, helper
from pathlib import Path
from device_runtime.tests import onnx_models
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine

def resident_bytes():
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096

path = onnx_models.save(
    Path(sys.argv[1]),
    [
        helper.make_node("MatMul", ["x", "w"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["more"]),
        helper.make_node("ReduceSum", ["more"], ["y"], keepdims=1),
    ],
    [onnx_models.tensor("x", TensorProto.FLOAT, ["n", 64])],
    [onnx_models.tensor("y", TensorProto.FLOAT, ["one", "two"])],
    {"w": np.ones((64, 1024), np.float32)},
)
model = OnnxRuntimeEngine().load(path, EngineOptions(shrink_above_bytes=int(sys.argv[2])))
large, small = np.ones((40_000, 64), np.float32), np.ones((1, 64), np.float32)
model.infer({"x": small})
before = resident_bytes()
assert model.infer({"x": large})["y"].item() == 40_000 * 1024 * 64
print(resident_bytes() - before)
"""
LARGE = 40_000 * 1024 * 4  # bytes of one tensor within that run


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the memory")
@pytest.mark.parametrize("shrink_above_bytes,returned", [(1 << 20, True), (0, False)])
def test_memory_goes_back_after_a_run_with_large_inputs(
    tmp_path: Path, shrink_above_bytes: int, *, returned: bool
) -> None:
    arguments = [sys.executable, "-c", CODE, str(tmp_path / "m.onnx"), str(shrink_above_bytes)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    assert (int(done.stdout) < LARGE // 2) is returned, done.stdout
