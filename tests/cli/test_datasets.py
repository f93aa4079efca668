"""`edgefleet dataset` and `edgefleet lineage`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edgefleet.analysis.dataset import Dataset
from tests.analysis.field import Field

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run, RunJson


@pytest.fixture(autouse=True)
def field(tmp_path: Path) -> Field:
    field = Field(tmp_path / ".edgefleet" / "fleet")
    captured = [field.capture("cam-1", n, top=n % 2, score=0.2 + n / 10) for n in range(6)]
    field.segment("cam-1", captured)
    return field


def test_a_dataset_is_made_and_shown(run: Run, run_json: RunJson) -> None:
    made = run_json("dataset", "make", "digits", "--to", "set")
    assert (made["number"], made["held"], made["counts"]) == (1, 6, {"0": 3, "1": 3})
    assert run_json("dataset", "show", "set") == made
    text = run("dataset", "show", "set").stdout
    assert text.startswith("digits:1  sha256:")


@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_what_is_missing_is_told_beside_the_facts(
    run: Run, run_json: RunJson, field: Field
) -> None:
    field.segment("cam-1", [field.capture("cam-1", 9, files=False)])
    result = run("dataset", "make", "digits", "--to", "set", "--json")
    assert json.loads(result.stdout)["found"]["missing"] == 1
    assert result.stderr.startswith("warning: dataset of digits: 7 captured")
    assert "1 files missing" in result.stderr
    assert "missing  1" in run("dataset", "show", "set").stdout


def test_options_choose(run_json: RunJson) -> None:
    made = run_json(
        "dataset", "make", "digits", "--strategy", "hard-examples", "--max", "2", "--balance",
        "--device", "cam-1", "--since", "2026-11-21", "--to", "set",
    )  # fmt: skip
    assert made["counts"] == {"0": 1, "1": 1}
    assert made["choice"]["max"] == 2


def test_a_dataset_is_exported(run_json: RunJson, tmp_path: Path) -> None:
    run_json("dataset", "make", "digits", "--to", "set")
    told = run_json("dataset", "export", "set", "pictures", "--as", "images")
    assert told == {"to": "pictures", "as": "images", "samples": 6}
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 6
    run_json("dataset", "export", "set", "all.parquet", "--as", "parquet")
    run_json("dataset", "export", "set", "tasks", "--as", "label-studio")
    assert (tmp_path / "all.parquet").is_file()
    assert len(json.loads((tmp_path / "tasks" / "tasks.json").read_text(encoding="utf-8"))) == 6


def test_a_shape_is_numbers(run: Run, run_json: RunJson) -> None:
    run_json("dataset", "make", "digits", "--to", "set")
    run("dataset", "export", "set", "p", "--as", "images", "--shape", "4,16")
    run("dataset", "export", "set", "p", "--as", "images", "--shape", "wide", expect=2)


def test_labels_are_taken_over(run: Run, run_json: RunJson, tmp_path: Path) -> None:
    run_json("dataset", "make", "digits", "--to", "set")
    first, second, *_ = Dataset.open(tmp_path / "set").rows
    rows = [
        {"sample": first.sample, "class": "1", "annotator": "ann"},
        {"sample": second.sample, "class": "0", "annotator": "ann"},
        {"sample": second.sample, "class": "1", "annotator": "bob"},
    ]
    (tmp_path / "min.json").write_text(json.dumps(rows), encoding="utf-8")
    told = run_json("dataset", "label", "set", "min.json")
    assert (told["read"], told["added"]) == (3, 3)
    assert list(told["conflicts"]) == [second.sample]
    assert second.sample in run("dataset", "label", "set", "min.json").stderr
    made = run_json("dataset", "make", "digits", "--labels", "set", "--to", "labelled")
    assert (made["number"], made["labelled"]) == (2, 2)
    known = run_json("dataset", "make", "digits", "--labels", "set", "--labelled", "--to", "known")
    assert (known["held"], known["found"]["unchosen"]) == (2, 4)


def test_lineage_goes_both_ways(run: Run, run_json: RunJson, tmp_path: Path) -> None:
    run_json("dataset", "make", "digits", "--to", "set")
    sample = Dataset.open(tmp_path / "set").rows[0].sample
    onward = run_json("lineage", sample)
    assert [one["reference"] for one in onward["datasets"]] == ["digits:1"]
    digest = onward["datasets"][0]["digest"][7:19]
    line = run("lineage", sample).stdout.splitlines()[1]
    assert line == f"└─ dataset digits:1 ({digest}), 6 samples"
    back = run_json("lineage", "cam-1-0", "--device", "cam-1")
    assert (back["kind"], back["device"]) == ("sample", "cam-1")
    run("lineage", "nothing", expect=3)
    run("lineage", sample, "--device", "cam-1", expect=2)
    run("lineage", "cam-1-0", "--events", expect=2)


def test_a_push_names_the_run_it_came_out_of(
    run_json: RunJson, onnx_file: object, tmp_path: Path
) -> None:
    file = onnx_file()  # type: ignore[operator]
    pushed = run_json("model", "push", "tiny", str(file), "--run", "train-7")
    assert pushed["lineage"]["run"] == "train-7"
