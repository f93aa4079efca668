from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from device_runtime.tests import onnx_models
from edgefleet.errors import ConfigurationError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.builds import check_one_build, installed_builds
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine

if TYPE_CHECKING:
    from pathlib import Path


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


def test_no_model_is_opened_with_builds_that_overwrote_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"onnxruntime", "onnxruntime-gpu"}
    monkeypatch.setattr("edgefleet_runtime.engines.builds._is_installed", both.__contains__)
    with pytest.raises(ConfigurationError, match="installed together"):
        OnnxRuntimeEngine().load(onnx_models.mlp(tmp_path / "m.onnx"), EngineOptions())
