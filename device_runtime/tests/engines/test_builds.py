from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from device_runtime.tests import onnx_models
from edgefleet.errors import ConfigurationError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.builds import check_one_build, installed_builds
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine


def test_builds_that_overwrite_each_other_are_refused_with_the_way_out() -> None:
    both = {"onnxruntime", "onnxruntime-gpu"}
    with pytest.raises(ConfigurationError, match="overwrite") as refused:
        check_one_build(both.__contains__)
    assert "pip uninstall onnxruntime onnxruntime-gpu" in str(refused.value)


@pytest.mark.parametrize("builds", [(), ("onnxruntime",), ("onnxruntime-gpu",)])
def test_one_build_or_one_of_ones_own_is_fine(builds: tuple[str, ...]) -> None:
    check_one_build(builds.__contains__)


def test_this_environment_has_the_cpu_build_alone() -> None:
    assert installed_builds() == ("onnxruntime",)


def test_all_builds_are_looked_for_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, every load of a model reads an environment's folder once for each build."""
    read: list[Path] = []
    entries = os.listdir

    def noting(folder: str) -> list[str]:
        read.append(Path(folder))
        return entries(folder)

    for name in ("onnxruntime_gpu-1.31.0", "onnxruntime_genai-0.9.0", "onnx-1.23.0"):
        (tmp_path / f"{name}.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(os, "listdir", noting)
    assert installed_builds() == ("onnxruntime-gpu",)
    assert read == [tmp_path]


def test_no_model_is_opened_with_builds_that_overwrote_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime_gpu-1.31.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="installed together"):
        OnnxRuntimeEngine().load(onnx_models.mlp(tmp_path / "m.onnx"), EngineOptions())
