"""`edgefleet train` and `edgefleet runs`."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet.cli.options import json_scalars
from tests.cli.conftest import Run, RunJson

SCRIPT = """\
from edgefleet import training

found = training.params(rate=0.5)
for step in range(3):
    training.log_metric("loss", 1 / (step + 1), step=step)
print("the data:", sorted(path.name for path in training.data_dir().iterdir()))
(training.output_dir() / "params.txt").write_text(repr(found))
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images.bin").write_bytes(b"0")
    (tmp_path / "fit_it.py").write_text(SCRIPT)
    return "fit_it.py"


def test_a_script_gets_data_and_parameters_and_leaves_metrics_and_outputs(
    run_json: RunJson, script: str
) -> None:
    done = run_json("train", script, "--data", "data", "--param", "epochs=5", "--param", "by=adam")
    assert done["state"] == "succeeded"
    assert done["metrics"] == {"loss": pytest.approx(1 / 3)}
    [output] = [Path(path) for path in done["outputs"]]
    assert output.read_text() == "{'rate': 0.5, 'epochs': 5, 'by': 'adam'}"


def test_following_prints_what_the_script_prints(run: Run, script: str) -> None:
    text = run("train", script, "--data", "data", "--follow").stdout
    assert "the data: ['images.bin']\n" in text
    assert "fit-it" in text.splitlines()[-3]


def test_a_detached_run_is_found_again(run: Run, run_json: RunJson, script: str) -> None:
    begun = run_json("train", script, "--data", "data", "--detach", "--name", "later")
    assert begun["id"].startswith("later")
    done = run_json("runs", begun["id"], "--follow")
    assert done["state"] == "succeeded"
    assert [found["id"] for found in run_json("runs")["runs"]] == [begun["id"]]
    assert "the data:" in run("runs", begun["id"], "--log").stdout
    assert "no training run" in run("runs", "nothing", expect=3).stderr
    assert "name a run" in run("runs", "--cancel", expect=2).stderr


def test_a_run_is_cancelled(run_json: RunJson, tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text("import threading\nthreading.Event().wait()\n")
    begun = run_json("train", "endless.py", "--detach")
    assert run_json("runs", begun["id"], "--cancel")["state"] == "cancelled"


def test_a_script_that_crashes_ends_with_1_and_its_last_lines(run: Run, tmp_path: Path) -> None:
    (tmp_path / "crash.py").write_text("raise SystemExit('out of luck')\n")
    assert "out of luck" in run("train", "crash.py", expect=1).stderr


def test_what_cannot_be_run_is_refused_in_words_of_its_own(run: Run, tmp_path: Path) -> None:
    said = run("train", "nothing.py", expect=1).stderr
    assert said == (
        "error: no training script at nothing.py\n  cure: give the path of a Python file\n"
    )
    (tmp_path / "fit.py").write_text("")
    for option in ("--memory-gib", "--max-runtime-s"):
        said = run("train", "fit.py", option, "0", expect=2).stderr
        assert f"Invalid value for '{option}'" in said
    said = run("train", "fit.py", "--name", "My Run", expect=1).stderr
    assert said.startswith("error: not a run name: 'My Run'\n  cure: ")


def test_an_output_that_cannot_be_made_is_told_before_the_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text("")
    said = run("train", "fit.py", "--output", "fit.py/out", expect=1).stderr
    assert said.startswith(f"error: fit.py/out can't be made: {tmp_path / 'fit.py'} is no folder")


@pytest.mark.parametrize(
    "script, prefix",
    [("Fit (2).py", "fit-2-"), ("train_v1..2.py", "train-v1-2-"), ("訓練.py", "train-")],
)
def test_a_script_may_have_any_name(
    run_json: RunJson, tmp_path: Path, script: str, prefix: str
) -> None:
    (tmp_path / script).write_text("")
    assert run_json("train", script)["id"].startswith(prefix)


def test_parameters_are_json_scalars_or_texts() -> None:
    pairs = [("a", "5"), ("b", "0.5"), ("c", "true"), ("d", "adam"), ("e", "[1]"), ("f", "null")]
    found = {"a": 5, "b": 0.5, "c": True, "d": "adam", "e": "[1]", "f": None}
    assert json_scalars(pairs) == found
