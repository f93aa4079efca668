"""`edgefleet optimize`: data and functions from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgefleet.cli.optimize import load_function
from edgefleet.errors import InvalidInputError
from edgefleet.protocol.layout import BundleLayout
from tests.cli.conftest import Run, RunJson

JUDGE = """\
import numpy as np

def accuracy(predict):
    assert predict(np.ones((2, 4), np.float32)).shape == (2, 3)
    return 0.75
"""


def test_a_bundle_is_made_judged_and_written(
    run: Run, run_json: RunJson, onnx_file: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "judge.py").write_text(JUDGE)
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((20, 4)))
    made = run_json(
        *("optimize", str(onnx_file()), "--target", "x86-cpu", "--target", "raspberry-pi-4"),
        *("--calibration", "images.npy", "--evaluate", "judge.py:accuracy", "-o", "bundle"),
    )
    assert BundleLayout(tmp_path / "bundle").digest == made["digest"]
    assert "fp32" in {variant["name"] for variant in made["variants"]}
    assert made["report"]["rows"][0]["accuracy"] == 0.75
    again = run("optimize", str(onnx_file()), "--target", "x86-cpu", "-o", "bundle", expect=1)
    assert "bundle exists already" in again.stderr


def test_arrays_by_name_come_from_an_npz(
    run_json: RunJson, onnx_file: Callable[..., Path], tmp_path: Path
) -> None:
    np.savez(tmp_path / "images.npz", x=np.ones((20, 4), np.float32))
    target = ("--target", "raspberry-pi-4", "--calibration", "images.npz")
    made = run_json("optimize", str(onnx_file()), *target, "-o", "bundle")
    assert made["report"]["calibration_samples"] == 20


def test_unreadable_data_and_targets_are_said(
    run: Run, onnx_file: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "images.npy").write_text("no array")
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object))
    model = str(onnx_file())
    common = ("optimize", model, "--target", "x86-cpu", "-o", "bundle", "--calibration")
    for name in ("images.npy", "objects.npy"):
        assert "holds no plain arrays" in run(*common, name, expect=1).stderr
    assert "no calibration data at" in run(*common, "nothing.npy", expect=1).stderr
    unknown = run("optimize", model, "--target", "abacus", "-o", "bundle", expect=3).stderr
    assert "no hardware target 'abacus'" in unknown


@pytest.mark.parametrize(
    "reference, said",
    [
        ("accuracy", "names no function"),
        ("judge:", "names no function"),
        ("nowhere.py:accuracy", "no file"),
        ("nowhere_module:accuracy", "no module"),
        ("json:nothing", "has no function"),
        ("json:__doc__", "has no function"),
    ],
)
def test_a_function_that_is_not_there_is_said(reference: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        load_function(reference)


def test_a_function_is_found_by_module_or_path(tmp_path: Path) -> None:
    (tmp_path / "judge_one.py").write_text("def accuracy(predict): return 1.0\n")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "judge_two.py").write_text("def accuracy(predict): return 2.0\n")
    assert load_function("judge_one:accuracy")(None) == 1.0
    assert load_function(f"{folder}/judge_two.py:accuracy")(None) == 2.0
