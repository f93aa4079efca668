"""``edgefleet automate`` on the mock, as operators run it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from edgefleet.cli.app import cli

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_aws.settings import AwsSettings

LOGS = "from edgefleet import training\ntraining.log_metric('accuracy', {accuracy})\n"
TRAINS = """\
import os, pathlib
import onnx
from onnx import TensorProto, helper

x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
onnx.save(model, pathlib.Path(os.environ["EDGEFLEET_OUTPUT_DIR"], "model.onnx"))
"""


@pytest.fixture
def arguments(
    settings: AwsSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    told = settings.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in told.items())
    config = tmp_path / "edgefleet.toml"
    config.write_text(f'[profiles.p]\nprovider = "aws"\n[profiles.p.aws]\n{table}\n')
    monkeypatch.setenv("EDGEFLEET_CONFIG", str(config))
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(TRAINS)
    (code / "evaluate.py").write_text(LOGS.format(accuracy=0.97))
    scripts = str(code / "train.py"), "--evaluate", str(code / "evaluate.py")
    return "automate", *scripts, "--model", "digits", "--profile", "p"


def test_a_model_past_the_gate_is_registered(arguments: tuple[str, ...]) -> None:
    found = CliRunner().invoke(cli, [*arguments, "--gate", "accuracy>=0.9", "--json"])
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert (told["passed"], told["version"]) == (True, "digits:1")
    assert [step["name"] for step in told["steps"]] == ["train", "evaluate", "gate", "register"]


def test_a_model_below_the_gate_is_held_back(arguments: tuple[str, ...]) -> None:
    found = CliRunner().invoke(cli, [*arguments, "--gate", "accuracy >= 0.99"])
    assert found.exit_code == 0, found.output
    assert "the gate held the model back" in found.stdout


@pytest.mark.parametrize("gate", ["accuracy", "accuracy=1", "accuracy>=much", ">=1", "a>=nan"])
def test_what_is_no_gate_is_a_wrong_command_line(arguments: tuple[str, ...], gate: str) -> None:
    found = CliRunner().invoke(cli, [*arguments, "--gate", gate])
    assert found.exit_code == 2
    assert "METRIC>=VALUE" in found.output
