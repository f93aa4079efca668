"""CUDA and TensorRT for real: run where a GPU and the GPU build of onnxruntime are.

`pip install 'edgefleet-runtime[gpu]'` in an environment of its own: never beside [cpu]. Elsewhere
each test is skipped with the reason.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_runtime.tests.onnx_models import mlp, scalar_and_two_outputs
from edgefleet_runtime.cli import main
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.builds import installed_builds
from edgefleet_runtime.engines.devices import providers_of
from edgefleet_runtime.engines.onnxruntime import CPU, OnnxRuntimeEngine

X = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


@pytest.fixture(params=["cuda", "tensorrt"])
def device(request: pytest.FixtureRequest) -> str:
    if not Path("/proc/driver/nvidia/version").exists():
        pytest.skip("no NVIDIA driver here")
    name: str = request.param
    if providers_of(name)[0] not in OnnxRuntimeEngine.available():
        pytest.skip(f"the onnxruntime here ({', '.join(installed_builds())}) has no {name}")
    return name


def test_under_strict_every_node_runs_on_the_gpu_and_answers_as_the_cpu_does(
    device: str, tmp_path: Path
) -> None:
    path = mlp(tmp_path / "m.onnx")
    engine = OnnxRuntimeEngine()
    model = engine.load(path, EngineOptions(providers=providers_of(device), strict=True))
    assert model.providers[0] == providers_of(device)[0]
    assert CPU not in model.nodes
    plain = engine.load(path, EngineOptions(providers=(CPU,)))
    np.testing.assert_allclose(model.infer(X)["y"], plain.infer(X)["y"], rtol=1e-3)


def test_outputs_come_back_in_the_order_asked_for(device: str, tmp_path: Path) -> None:
    path = scalar_and_two_outputs(tmp_path / "m.onnx")
    model = OnnxRuntimeEngine().load(path, EngineOptions(providers=providers_of(device)))
    answer = model.infer({"x": np.array(-2, np.float32)}, ["plus", "minus"])
    assert {name: float(value) for name, value in answer.items()} == {"plus": 2.0, "minus": 2.0}


def test_bench_measures_it(device: str, tmp_path: Path) -> None:
    path = mlp(tmp_path / "m.onnx")
    assert main(["bench", str(path), "--device", device, "--strict", "--seconds", "0.1"]) == 0


def test_an_engine_that_tensorrt_built_is_kept_and_found_whole(device: str, tmp_path: Path) -> None:
    if device != "tensorrt":
        pytest.skip("only TensorRT builds engines")
    (tmp_path / "model").mkdir()
    engine, path = OnnxRuntimeEngine(), mlp(tmp_path / "model" / "m.onnx")
    options = EngineOptions(providers=providers_of(device), engine_cache=tmp_path / "cache")
    if engine.machine() is None:
        pytest.skip("versions of TensorRT, driver or cards can't be told here")
    assert engine.built(path, options) is None
    first = engine.load(path, options).infer(X)["y"]
    folder = engine.built(path, options)
    assert folder is not None
    again = engine.load(path, options)
    assert again.providers[0] == providers_of(device)[0]
    np.testing.assert_array_equal(again.infer(X)["y"], first)
    assert engine.built(path, options) == folder
