"""What execution providers are opened with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from device_runtime.tests import onnx_models
from device_runtime.tests.engines.test_strict import CUDA, FakeOnnxRuntime
from edgefleet_runtime.engines import onnxruntime as engine
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.devices import providers_of
from edgefleet_runtime.engines.onnxruntime import CPU, OnnxRuntimeEngine
from edgefleet_runtime.engines.provider_options import gpu_of, options_for
from edgefleet_runtime.engines.tensorrt import TENSORRT

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize(
    "device,options,due",
    [
        ("cpu", EngineOptions(), {}),
        ("cuda", EngineOptions(), {"arena_extend_strategy": "kSameAsRequested"}),
        (
            "cuda",
            EngineOptions(memory_max_bytes=1 << 30),
            {"arena_extend_strategy": "kSameAsRequested", "gpu_mem_limit": "1073741824"},
        ),
        (
            "tensorrt",
            EngineOptions(memory_max_bytes=1 << 30),
            {"trt_max_workspace_size": "1073741824"},
        ),
        ("openvino", EngineOptions(engine_cache=Path("/c")), {"cache_dir": "/c/openvino"}),
        ("openvino", EngineOptions(), {}),
        ("coreml", EngineOptions(), {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}),
        ("qnn", EngineOptions(memory_max_bytes=1), {}),
    ],
)
def test_each_provider_gets_options_that_bound_its_memory_and_use_its_hardware(
    device: str, options: EngineOptions, due: Mapping[str, str]
) -> None:
    assert options_for(providers_of(device)[0], options) == due


def test_what_the_operator_says_goes_before_ours_for_the_first_provider_alone() -> None:
    options = EngineOptions(
        providers=(TENSORRT, CUDA), provider_options=(("trt_fp16_enable", "1"), ("path", "mine"))
    )
    assert options_for(TENSORRT, options, {"path": "ours"}) == {
        "trt_fp16_enable": "1",
        "path": "mine",
    }
    assert "trt_fp16_enable" not in options_for(CUDA, options)


@pytest.mark.parametrize(
    "providers,settings,gpu",
    [
        ((CPU, CUDA), {CUDA: {"device_id": "1"}}, None),
        ((CUDA, CPU), {CUDA: {"device_id": "1"}}, 1),
        ((TENSORRT, CUDA), {}, 0),
        ((), {}, None),
    ],
)
def test_a_session_takes_tensors_of_the_gpu_that_runs_it(
    providers: tuple[str, ...], settings: Any, gpu: int | None
) -> None:
    assert gpu_of(providers, settings) == gpu


def test_the_session_gets_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOnnxRuntime(nodes={CUDA: 3})
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", fake)
    (tmp_path / "m.onnx").touch()
    given = (("device_id", "1"),)
    options = EngineOptions(providers=(CUDA,), memory_max_bytes=5, provider_options=given)
    model = OnnxRuntimeEngine().load(tmp_path / "m.onnx", options)
    due = {"arena_extend_strategy": "kSameAsRequested", "gpu_mem_limit": "5", "device_id": "1"}
    assert fake.asked == [[(CUDA, due), CPU]]
    assert model.device == 0, "this stand-in reads no options back"


def test_waiting_threads_spin_briefly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    real, seen = onnxruntime.InferenceSession, []

    def session(path: str, settings: Any, **options: Any) -> Any:
        seen.append(settings.get_session_config_entry("session.intra_op.spin_duration_us"))
        return real(path, settings, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    OnnxRuntimeEngine().load(onnx_models.mlp(tmp_path / "m.onnx"), EngineOptions(threads=2))
    assert seen == [str(engine.SPIN_US)]
