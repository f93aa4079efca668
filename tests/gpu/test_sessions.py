"""What a session on a GPU was opened with, what it refuses, and what it finds again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper

from device_runtime.tests import onnx_models
from edgefleet.errors import UnsupportedError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.devices import providers_of
from edgefleet_runtime.engines.onnxruntime import CPU, OnnxRuntimeEngine
from edgefleet_runtime.engines.tensorrt import fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_runtime.engines.base import LoadedModel

CUDA = "CUDAExecutionProvider"
X = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)


def test_cuda_is_read_back_from_the_session(on_cuda: LoadedModel) -> None:
    assert on_cuda.providers[0] == CUDA
    assert on_cuda.device == 0
    assert on_cuda.nodes.get(CUDA, 0) > 0
    assert CPU not in on_cuda.nodes


@pytest.mark.usefixtures("on_cuda")
def test_strict_refuses_a_model_of_which_a_node_runs_on_the_cpu(tmp_path: Path) -> None:
    text = onnx_models.save(
        tmp_path / "text.onnx",
        [helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="UPPER")],
        [onnx_models.tensor("x", 8, ["n"])],
        [onnx_models.tensor("y", 8, ["n"])],
    )
    with pytest.raises(UnsupportedError, match="StringNormalizer"):
        OnnxRuntimeEngine().load(text, EngineOptions(providers=(CUDA,), strict=True))


@pytest.mark.usefixtures("on_cuda")
def test_the_memory_limit_is_the_sessions(tmp_path: Path) -> None:
    import onnxruntime

    from edgefleet_runtime.engines.provider_options import options_for

    options = EngineOptions(providers=(CUDA,), memory_max_bytes=256 << 20)
    path = onnx_models.mlp(tmp_path / "m.onnx")
    asked = [(CUDA, options_for(CUDA, options))]
    session = onnxruntime.InferenceSession(str(path), providers=asked)
    told = session.get_provider_options()[CUDA]
    assert told["gpu_mem_limit"] == str(256 << 20)
    assert told["arena_extend_strategy"] == "kSameAsRequested"


@pytest.mark.usefixtures("on_tensorrt")
def test_an_engine_is_built_once_and_found_again(tmp_path: Path) -> None:
    import onnxruntime

    if fingerprint(onnxruntime.__version__) is None:
        pytest.skip("the versions of TensorRT, driver or GPU can't be told on this machine")
    (tmp_path / "model").mkdir()
    path = onnx_models.mlp(tmp_path / "model" / "m.onnx")
    cache = tmp_path / "cache"
    options = EngineOptions(providers=providers_of("tensorrt"), strict=True, engine_cache=cache)

    def built() -> dict[str, int]:
        OnnxRuntimeEngine().load(path, options).infer({"x": X})
        engines = [file for file in cache.rglob("*") if file.suffix == ".engine"]
        return {str(file): file.stat().st_mtime_ns for file in engines}

    first = built()
    assert first
    assert built() == first
