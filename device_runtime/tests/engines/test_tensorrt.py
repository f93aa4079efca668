"""The cache of TensorRT's engines, without TensorRT: what its folder depends on."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from device_runtime.tests.engines.test_strict import CUDA, FakeOnnxRuntime
from edgefleet_runtime.engines import onnxruntime, tensorrt
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.cache import EngineCache
from edgefleet_runtime.engines.onnxruntime import CPU, OnnxRuntimeEngine
from edgefleet_runtime.engines.tensorrt import (
    TENSORRT,
    Fingerprint,
    fingerprint,
    folder_options,
    parts_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

MACHINE = Fingerprint(
    onnxruntime="1.31.1", tensorrt="tensorrt-cu13 10.13", driver="580.65.06", gpus=("H200",)
)


def key(
    folder: Path,
    model: bytes = b"a",
    *,
    machine: Fingerprint = MACHINE,
    options: dict[str, str] | None = None,
) -> str:
    entry = folder / "m.onnx"
    entry.write_bytes(model)
    parts = parts_of(entry, machine, options)
    assert parts is not None
    return parts.key


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
def test_an_engine_is_never_shared_with_another_machine(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    assert key(tmp_path) != key(tmp_path, machine=replace(MACHINE, **change))


def test_an_engine_is_never_shared_with_another_model_or_other_options(tmp_path: Path) -> None:
    keys = {
        key(tmp_path),
        key(tmp_path, b"b"),
        key(tmp_path, options={"trt_fp16_enable": "1"}),
    }
    assert len(keys) == 3
    assert key(tmp_path, options={"x": "1", "y": "2"}) == key(
        tmp_path, options={"y": "2", "x": "1"}
    )


def test_weights_beside_the_model_count(tmp_path: Path) -> None:
    weights = tmp_path / "m.data"
    weights.write_bytes(b"1")
    before = key(tmp_path)
    assert key(tmp_path) == before
    weights.write_bytes(b"2")
    assert key(tmp_path) != before


def test_a_model_among_strangers_is_not_kept(tmp_path: Path) -> None:
    for number in range(tensorrt.MAX_FILES + 1):
        (tmp_path / f"{number}.onnx").touch()
    assert parts_of(tmp_path / "1.onnx", MACHINE) is None


def test_a_machine_is_told_by_its_driver_and_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Package:
        name, version = "tensorrt-cu13", "10.13"

    assert fingerprint("1.31.1", root=tmp_path) is None
    monkeypatch.setattr(metadata, "distributions", lambda: [Package])
    assert fingerprint("1.31.1", root=tmp_path) is None, "without a driver"
    driver = tmp_path / "proc/driver/nvidia"
    (driver / "gpus/0000:01:00.0").mkdir(parents=True)
    (driver / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
    )
    (driver / "gpus/0000:01:00.0/information").write_text("Model: \t\t H200\nIRQ: 1\n")
    found = fingerprint("1.31.1", root=tmp_path)
    assert found == MACHINE


class Jetson(FakeOnnxRuntime):
    """A build with TensorRT, which writes an engine where it is told to."""

    def get_available_providers(self) -> list[str]:
        return [TENSORRT, CUDA, CPU]

    def InferenceSession(  # noqa: N802 - onnxruntime's name
        self, path: str, settings: Any, *, providers: Sequence[Any], enable_fallback: int
    ) -> Any:
        session = super().InferenceSession(
            path, settings, providers=providers, enable_fallback=enable_fallback
        )
        session.run = lambda *_: []
        for provider in providers:
            if isinstance(provider, tuple) and "trt_engine_cache_path" in provider[1]:
                engine = Path(provider[1]["trt_engine_cache_path"], "m_sm90.engine")
                if not engine.exists():
                    engine.write_bytes(b"engine")
        return session


@pytest.fixture
def jetson(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Jetson:
    fake = Jetson(nodes={TENSORRT: 1})
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", fake)
    monkeypatch.setattr(onnxruntime, "fingerprint", lambda _: MACHINE)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "m.onnx").touch()
    return fake


def wanted(tmp_path: Path) -> tuple[Path, EngineOptions]:
    options = EngineOptions(providers=(TENSORRT, CUDA), engine_cache=tmp_path / "cache")
    return tmp_path / "model" / "m.onnx", options


def asked_for(jetson: Jetson) -> list[list[str]]:
    """The providers of each session that was opened, without their options."""
    return [[one if isinstance(one, str) else one[0] for one in each] for each in jetson.asked]


def test_an_engine_is_built_once_and_loaded_from_its_entry(jetson: Jetson, tmp_path: Path) -> None:
    for _ in range(2):
        OnnxRuntimeEngine().load(*wanted(tmp_path))
    (folder,) = EngineCache(tmp_path / "cache").entries()
    built, *loaded = [asked[0] for asked in jetson.asked]
    assert ".building-" in built[1]["trt_engine_cache_path"]
    assert loaded == [(TENSORRT, folder_options(tmp_path / "cache" / folder))] * 2


def test_an_engine_changed_since_it_was_built_is_built_anew(jetson: Jetson, tmp_path: Path) -> None:
    engine = OnnxRuntimeEngine()
    folder = engine.build(*wanted(tmp_path))
    assert folder is not None
    (folder / "m_sm90.engine").write_bytes(b"half")
    assert engine.built(*wanted(tmp_path)) is None
    engine.load(*wanted(tmp_path))
    assert (folder / "m_sm90.engine").read_bytes() == b"engine"


def test_while_an_engine_is_built_the_next_best_provider_serves(
    jetson: Jetson, tmp_path: Path
) -> None:
    engine, (entry, options) = OnnxRuntimeEngine(), wanted(tmp_path)
    engine.load(entry, engine.interim(options))
    assert asked_for(jetson) == [[CUDA, CPU]]
    assert engine.interim(replace(options, providers=())).providers == (CUDA, CPU)


def test_where_the_machine_cannot_be_told_nothing_is_kept(
    jetson: Jetson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "fingerprint", lambda _: None)
    OnnxRuntimeEngine().load(*wanted(tmp_path))
    assert asked_for(jetson) == [[TENSORRT, CUDA, CPU]]
    assert not (tmp_path / "cache").exists()
