"""What the tests on a GPU share; where there is none, each skips and says why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_runtime.tests import onnx_models
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.builds import installed_builds
from edgefleet_runtime.engines.cuda import LoadedCuda, find_cuda
from edgefleet_runtime.engines.devices import providers_of
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine

if TYPE_CHECKING:
    from edgefleet_runtime.engines.base import LoadedModel


def _opened(path: Path, device: str) -> LoadedModel:
    """A model that runs on this device alone; a skip where there is none."""
    if not Path("/proc/driver/nvidia/version").exists():
        pytest.skip("no NVIDIA driver here")
    provider = providers_of(device)[0]
    if provider not in OnnxRuntimeEngine.available():
        pytest.skip(f"the onnxruntime here ({', '.join(installed_builds())}) has no {provider}")
    return OnnxRuntimeEngine().load(
        path, EngineOptions(providers=providers_of(device), strict=True)
    )


@pytest.fixture
def on_cuda(tmp_path: Path) -> LoadedModel:
    """``x`` FP32[n, 4] to ``y`` FP32[n, 2] on the first GPU."""
    return _opened(onnx_models.mlp(tmp_path / "cuda.onnx"), "cuda")


@pytest.fixture
def on_tensorrt(tmp_path: Path) -> LoadedModel:
    """The same by TensorRT."""
    (tmp_path / "tensorrt").mkdir()
    return _opened(onnx_models.mlp(tmp_path / "tensorrt" / "m.onnx"), "tensorrt")


@pytest.fixture
def cuda() -> LoadedCuda:
    """CUDA's runtime."""
    found = find_cuda()
    if found is None:
        pytest.skip("there is no NVIDIA driver, no libcudart or no GPU on this machine")
    return found
