"""The cache of TensorRT's engines, without TensorRT: what its folder depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from device_runtime.tests.engines.test_strict import CUDA, FakeOnnxRuntime
from edgefleet_runtime.engines import onnxruntime, tensorrt
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import CPU, OnnxRuntimeEngine
from edgefleet_runtime.engines.tensorrt import (
    TENSORRT,
    Fingerprint,
    cache_key,
    cache_options,
    fingerprint,
)

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = Fingerprint(
    onnxruntime="1.31.1", tensorrt="tensorrt-cu13 10.13", driver="580.65.06", gpus=("H200",)
)


@pytest.mark.parametrize(
    "change",
    [
        {"onnxruntime": "1.31.2"},
        {"tensorrt": "tensorrt-cu13 10.14"},
        {"driver": "580.65.07"},
        {"gpus": ("L4",)},
        {"gpus": ("H200", "H200")},
    ],
)
def test_an_engine_is_never_shared_with_another_machine(change: dict[str, Any]) -> None:
    assert cache_key("a", {}, MACHINE) != cache_key("a", {}, replace(MACHINE, **change))


def test_an_engine_is_never_shared_with_another_model_or_other_options() -> None:
    keys = {
        cache_key("a", {}, MACHINE),
        cache_key("b", {}, MACHINE),
        cache_key("a", {"trt_fp16_enable": "1"}, MACHINE),
    }
    assert len(keys) == 3
    assert cache_key("a", {"x": "1", "y": "2"}, MACHINE) == cache_key(
        "a", {"y": "2", "x": "1"}, MACHINE
    )


def test_weights_beside_the_model_count(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    entry, weights = tmp_path / "model" / "m.onnx", tmp_path / "model" / "m.data"
    entry.write_bytes(b"graph")
    weights.write_bytes(b"1")
    folders = [cache_options(tmp_path / "cache", entry, MACHINE)["trt_engine_cache_path"]]
    folders.append(cache_options(tmp_path / "cache", entry, MACHINE)["trt_engine_cache_path"])
    weights.write_bytes(b"2")
    folders.append(cache_options(tmp_path / "cache", entry, MACHINE)["trt_engine_cache_path"])
    assert folders[0] == folders[1] != folders[2]


def test_a_model_among_strangers_is_not_cached(tmp_path: Path) -> None:
    for number in range(tensorrt.MAX_FILES + 1):
        (tmp_path / f"{number}.onnx").touch()
    assert cache_options(tmp_path / "cache", tmp_path / "1.onnx", MACHINE) == {}


def test_a_machine_is_told_by_its_driver_and_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Package:
        name, version = "tensorrt-cu13", "10.13"

    assert fingerprint("1.31.1", root=tmp_path) is None
    monkeypatch.setattr(tensorrt, "distributions", lambda: [Package])
    assert fingerprint("1.31.1", root=tmp_path) is None, "without a driver"
    driver = tmp_path / "proc/driver/nvidia"
    (driver / "gpus/0000:01:00.0").mkdir(parents=True)
    (driver / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
    )
    (driver / "gpus/0000:01:00.0/information").write_text("Model: \t\t H200\nIRQ: 1\n")
    found = fingerprint("1.31.1", root=tmp_path)
    assert found == MACHINE


@pytest.mark.parametrize("known", [True, False])
def test_tensorrt_is_told_its_folder_where_the_machine_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    fake = FakeOnnxRuntime(nodes={CPU: 1})
    monkeypatch.setattr(fake, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", fake)
    monkeypatch.setattr(onnxruntime, "fingerprint", lambda _: MACHINE if known else None)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "m.onnx").touch()
    options = EngineOptions(providers=(TENSORRT, CUDA), engine_cache=tmp_path / "cache")
    OnnxRuntimeEngine().load(tmp_path / "model" / "m.onnx", options)
    first: Any = fake.asked[0][0]
    if known:
        assert first[0] == TENSORRT
        assert first[1]["trt_engine_cache_path"].startswith(str(tmp_path / "cache"))
    else:
        assert first == TENSORRT
