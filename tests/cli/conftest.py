"""The command line run in this process, each test in a folder of its own, on the local provider."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from edgefleet.cli.app import cli

Run = Callable[..., Result]
RunJson = Callable[..., Any]


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("EDGEFLEET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EDGEFLEET_ACTOR", "tester")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nobody"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run() -> Run:
    """Run a command line; the test asserts its exit code unless it expects 0."""

    def act(*arguments: str, expect: int = 0) -> Result:
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == expect, f"{arguments}\n{result.output}"
        return result

    return act


@pytest.fixture
def run_json(run: Run) -> RunJson:
    """Run a command line with ``--json`` and decode its standard output: there is nothing else."""

    def act(*arguments: str, expect: int = 0) -> Any:
        return json.loads(run(*arguments, "--json", expect=expect).stdout)

    return act


@pytest.fixture
def onnx_file(tmp_path: Path) -> Callable[..., Path]:
    """A model with one input and one output; another seed is another model."""

    def make(name: str = "model.onnx", *, seed: int = 0) -> Path:
        weights = np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32)
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "tiny",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
            [numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return make
