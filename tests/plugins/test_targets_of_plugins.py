"""A target that a plugin of the profile adds counts where a built-in one does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgefleet.cli.app import cli
from edgefleet.plugins import discovery
from edgefleet.protocol.layout import BundleLayout

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.conftest import Install

HAILO = """
    from edgefleet.plugins.hooks import hookimpl
    from edgefleet.protocol.target import HardwareTarget

    @hookimpl
    def edgefleet_hardware_targets():
        return [
            HardwareTarget(
                name="hailo-8", about="", arch="any", precisions=("fp32",), opset_ceiling=13
            ),
            HardwareTarget(
                name="abacus", about="", arch="any", precisions=(), status="impossible", why="beads"
            ),
        ]
"""


@pytest.fixture(autouse=True)
def _profile(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("hailo", HAILO, group=discovery.POLICIES)
    monkeypatch.chdir(tmp_path)
    profile = '[profiles.default]\nprovider = "local"\npolicies = ["hailo"]\n'
    (tmp_path / "edgefleet.toml").write_text(profile)


def save_model(path: Path, *, opset: int) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.ones(3, np.float32), "w")],
    )
    imports = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, arguments)
    return result.exit_code, result.output


def test_it_is_listed_and_shown() -> None:
    assert "hailo-8" in run("targets")[1]
    assert "13 or lower" in run("targets", "hailo-8")[1]


def test_optimize_makes_a_bundle_for_it(tmp_path: Path) -> None:
    save_model(tmp_path / "m.onnx", opset=13)
    code, said = run("optimize", "m.onnx", "--target", "hailo-8", "-o", "bundle")
    assert (code, "hailo-8" in said) == (0, True)
    assert BundleLayout(tmp_path / "bundle").variants[0].opset == 13


def test_optimize_keeps_its_ceiling(tmp_path: Path) -> None:
    save_model(tmp_path / "m.onnx", opset=17)
    code, said = run("optimize", "m.onnx", "--target", "hailo-8", "-o", "bundle")
    assert (code, "opset 17 is newer than the 13" in said) == (1, True)


def test_one_that_nothing_can_serve_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "m.onnx", opset=13)
    code, said = run("optimize", "m.onnx", "--target", "abacus", "-o", "bundle")
    assert (code, "nothing can serve target abacus: beads" in said) == (1, True)


def test_a_broken_plugin_does_not_keep_built_in_targets_from_being_optimized_for(
    install: Install, tmp_path: Path
) -> None:
    install("broken", "import a_library_that_is_not_installed\n", group=discovery.POLICIES)
    toml = tmp_path / "edgefleet.toml"
    toml.write_text(toml.read_text().replace('["hailo"]', '["broken", "hailo"]'))
    save_model(tmp_path / "m.onnx", opset=13)
    assert run("optimize", "m.onnx", "--target", "any", "-o", "a")[0] == 0
    assert run("optimize", "m.onnx", "--target", "hailo-8", "-o", "b")[0] == 0
