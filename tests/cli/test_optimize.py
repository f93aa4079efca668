"""`edgefleet optimize`: data and functions from files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgefleet.errors import InvalidInputError
from edgefleet.optimization.functions import load_function
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


def test_a_place_that_cannot_be_written_is_told_before_any_work(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_text("no model: nobody looks at it")
    common = ("optimize", "broken.onnx", "--target", "x86-cpu", "-o")
    file = run(*common, "broken.onnx/bundle", expect=1).stderr
    assert f"{tmp_path}/broken.onnx is no folder\n  cure: name a place in a folder" in file
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # a superuser writes anywhere
    refused = run(*common, "new/bundle", expect=4).stderr
    assert f"new/bundle can't be made: {tmp_path} can't be written\n  cure: name a" in refused


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


CLASSES = """\
import numpy as np
from edgefleet import classification

inputs = np.random.default_rng(1).standard_normal((30, 4)).astype(np.float32)
accuracy = classification(inputs, np.arange(30) % 3)
"""


@pytest.fixture
def judged(onnx_file: Callable[..., Path], tmp_path: Path) -> tuple[str, ...]:
    """A command line with all data that it takes."""
    (tmp_path / "judge_classes.py").write_text(CLASSES)
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((20, 4)))
    return (
        *("optimize", str(onnx_file()), "--target", "raspberry-pi-5", "--calibration"),
        *("images.npy", "--evaluate", "judge_classes.py:accuracy"),
    )


def test_candidates_nodes_and_floors_are_asked_for(
    run_json: RunJson, judged: tuple[str, ...]
) -> None:
    made = run_json(
        *(*judged, "--candidate", "fp16", "--candidate", "int8-sig*", "--exclude", "op:MatMul"),
        *("--max-accuracy-drop", "1", "--min-class-accuracy", "0=0.1", "-o", "bundle"),
    )
    rows = {row["variant"]: row for row in made["report"]["rows"]}
    assert {"fp32", "fp16", "int8-signed", "int8-signed-mixed"} <= rows.keys()
    assert rows["fp32"]["worst_class"] in {"0", "1", "2"}
    assert rows["int8-signed"]["outcome"] == "not made", "its only node was to stay in floats"
    assert made["variants"][0]["format"] == "onnx"


def test_thorough_tries_more(run_json: RunJson, onnx_file: Callable[..., Path]) -> None:
    ask = ("optimize", str(onnx_file()), "--target", "raspberry-pi-5")
    due, more = (
        {row["variant"] for row in made["report"]["rows"]}
        for made in (run_json(*ask, "-o", "one"), run_json(*ask, "--thorough", "-o", "two"))
    )
    assert due < more >= {"fp32-graph", "int8-dynamic"}


def test_results_are_kept_where_it_is_said_or_not_at_all(
    run_json: RunJson, judged: tuple[str, ...], tmp_path: Path
) -> None:
    run_json(*judged, "--no-cache", "-o", "one")
    assert not (tmp_path / "nobody").exists()
    one = run_json(*judged, "--cache", "kept", "-o", "two")
    assert not (tmp_path / "nobody").exists()
    assert list((tmp_path / "kept").glob("v1/scores-*"))
    assert run_json(*judged, "-o", "three")["digest"] == one["digest"]
    assert list((tmp_path / "nobody").glob("edgefleet/optimize/v1/scores-*"))


def test_wrong_options_are_said(run: Run, judged: tuple[str, ...]) -> None:
    ask = (*judged, "-o", "bundle")
    assert "no candidate is called 'int7'" in run(*ask, "--candidate", "int7", expect=3).stderr
    assert "exclude each other" in run(*ask, "--cache", "a", "--no-cache", expect=2).stderr
    floor = "--min-class-accuracy"
    assert "is no number" in run(*ask, floor, "cat=much", expect=1).stderr
    assert "more than once" in run(*ask, floor, "0.5", floor, "cat=0.5", expect=1).stderr


ESTIMATOR = """\
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

def fitted():
    return DecisionTreeClassifier(max_depth=3, random_state=0).fit(*load_iris(return_X_y=True))
"""


def test_a_function_gives_an_estimator(run: Run, run_json: RunJson, tmp_path: Path) -> None:
    (tmp_path / "flowers.py").write_text(ESTIMATOR)
    np.save(tmp_path / "typical.npy", np.random.default_rng(0).random((30, 4)) * 5)
    ask = ("--target", "any", "--calibration", "typical.npy", "-o", "bundle")
    made = run_json("optimize", "flowers.py:fitted", *ask)
    assert [variant["name"] for variant in made["variants"]] == ["fp32"]
    assert "has no function" in run("optimize", "flowers.py:nothing", *ask, expect=1).stderr
