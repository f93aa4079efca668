"""Labels go out to people and come back to their samples."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from edgefleet.analysis.dataset import Dataset
from edgefleet.errors import DocumentError, InvalidInputError
from edgefleet.protocol.digest import digest_of, hex_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgefleet.fleet import Fleet
    from tests.analysis.field import Field

AT = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


@pytest.fixture
def dataset(fleet: Fleet, field: Field, tmp_path: Path) -> Dataset:
    field.segment("cam-1", [field.capture("cam-1", n, top=n, score=0.5) for n in range(4)])
    return fleet.dataset("digits", to=tmp_path / "set")


def annotated(
    dataset: Dataset, chosen: Sequence[tuple[int, str, int, str]]
) -> list[dict[str, Any]]:
    """Label Studio's JSON export: (row, choice, minute, annotator) of each annotation."""
    tasks: dict[int, dict[str, Any]] = {}
    for number, (index, choice, minute, who) in enumerate(chosen):
        row = dataset.rows[index]
        task = tasks.setdefault(
            index,
            {
                "id": index + 1,
                "data": {"image": f"/x/{hex_of(row.sample)}.png", "sample": row.sample},
                "annotations": [],
                "predictions": [],
            },
        )
        task["annotations"].append(
            {
                "id": number,
                "completed_by": {"id": 1, "email": who},
                "was_cancelled": False,
                "updated_at": (AT + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z"),
                "result": [
                    {
                        "from_name": "class",
                        "to_name": "image",
                        "type": "choices",
                        "value": {"choices": [choice]},
                    }
                ],
            }
        )
    return list(tasks.values())


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def labels(dataset: Dataset) -> list[str]:
    return [row.label for row in Dataset.open(dataset.path)]


# Out


def test_tasks_show_the_picture_and_what_the_model_said(dataset: Dataset, tmp_path: Path) -> None:
    path = dataset.export_label_studio(tmp_path / "tasks")
    tasks = json.loads(path.read_text(encoding="utf-8"))
    assert [task["data"]["sample"] for task in tasks] == [row.sample for row in dataset]
    first = tasks[0]
    name = f"{hex_of(dataset.rows[0].sample)}.png"
    assert first["data"]["image"] == f"/data/local-files/?d=tasks/images/{name}"
    (prediction,) = first["predictions"]
    assert prediction["score"] == 0.5
    assert prediction["result"][0]["value"] == {"choices": ["0"]}
    with Image.open(tmp_path / "tasks" / "images" / name) as image:
        assert image.size == (8, 8)


def test_the_interface_offers_every_class_and_fits_the_tasks(
    dataset: Dataset, tmp_path: Path
) -> None:
    path = dataset.export_label_studio(tmp_path / "tasks")
    view = ET.parse(tmp_path / "tasks" / "config.xml").getroot()
    control, image = view.find("Choices"), view.find("Image")
    assert control is not None
    assert image is not None
    assert [one.attrib["value"] for one in control] == ["0", "1", "2", "3"]
    task = json.loads(path.read_text(encoding="utf-8"))[0]
    result = task["predictions"][0]["result"][0]
    assert (control.attrib["name"], control.attrib["toName"]) == (
        result["from_name"], result["to_name"],
    )  # fmt: skip
    assert image.attrib["name"] == result["to_name"]
    assert image.attrib["value"].removeprefix("$") in task["data"]


def test_pictures_may_lie_at_an_address(dataset: Dataset, tmp_path: Path) -> None:
    path = dataset.export_label_studio(tmp_path / "t", address="https://example.com/p/")
    shown = json.loads(path.read_text(encoding="utf-8"))[0]["data"]["image"]
    assert shown == f"https://example.com/p/{hex_of(dataset.rows[0].sample)}.png"


def test_what_is_no_image_is_shown_as_numbers(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    vector = np.array([[1.5, 2.5]], dtype=np.float32)
    field.segment("cam-1", [field.captured("cam-1", 0, vector)])
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    (task,) = json.loads(dataset.export_label_studio(tmp_path / "t").read_text(encoding="utf-8"))
    assert task["data"]["text"] == "float32[1, 2]: [1.5, 2.5]"
    assert task["predictions"][0]["result"][0]["to_name"] == "text"


# Back


def test_a_task_that_nobody_annotated_is_counted(dataset: Dataset, tmp_path: Path) -> None:
    tasks = annotated(dataset, [(0, "7", 0, "ann"), (1, "1", 0, "ann")])
    tasks[1]["annotations"] = []
    brought = dataset.import_labels(write(tmp_path / "export.json", tasks))
    assert (brought.read, brought.skipped) == (1, 1)


def test_a_moment_beyond_the_calendar_is_none(dataset: Dataset, tmp_path: Path) -> None:
    tasks = annotated(dataset, [(0, "7", 0, "ann")])
    tasks[0]["annotations"][0]["updated_at"] = "0001-01-01T00:00:00+10:00"
    assert dataset.import_labels(write(tmp_path / "export.json", tasks)).read == 1
    assert labels(dataset)[0] == "7"


def test_what_people_chose_comes_back(dataset: Dataset, tmp_path: Path) -> None:
    export = write(
        tmp_path / "export.json",
        annotated(dataset, [(0, "7", 0, "ann@example.com"), (2, "2", 1, "bob@example.com")]),
    )
    brought = dataset.import_labels(export)
    assert (brought.read, brought.added, brought.skipped, brought.conflicts) == (2, 2, 0, {})
    assert labels(dataset) == ["7", "", "2", ""]
    assert [row.label for row in Dataset.open(dataset.path).labelled()] == ["7", "2"]


def test_the_same_export_again_changes_nothing(dataset: Dataset, tmp_path: Path) -> None:
    export = write(tmp_path / "export.json", annotated(dataset, [(0, "7", 0, "ann")]))
    dataset.import_labels(export)
    before = (dataset.path / "labels" / "digits.parquet").stat().st_mtime_ns
    assert dataset.import_labels(export).added == 0
    assert (dataset.path / "labels" / "digits.parquet").stat().st_mtime_ns == before


def test_of_different_labels_the_latest_holds_and_all_are_told(
    dataset: Dataset, tmp_path: Path
) -> None:
    chosen = [(0, "7", 5, "ann"), (0, "1", 1, "bob"), (0, "1", 2, "cid")]
    brought = dataset.import_labels(write(tmp_path / "e.json", annotated(dataset, chosen)))
    assert brought.conflicts == {dataset.rows[0].sample: ("1", "7")}
    assert "1 samples in dispute" in str(brought)
    assert labels(dataset)[0] == "7"


def test_of_different_labels_what_most_say_may_hold(dataset: Dataset, tmp_path: Path) -> None:
    chosen = [(0, "7", 5, "ann"), (0, "1", 1, "bob"), (0, "1", 2, "cid"), (0, "7", 0, "bob")]
    export = write(tmp_path / "e.json", annotated(dataset, chosen))
    dataset.import_labels(export, prefer="most")
    assert labels(dataset)[0] == "1"


def test_a_person_who_changes_their_mind_has_one_vote(dataset: Dataset, tmp_path: Path) -> None:
    chosen = [(0, "1", 1, "bob"), (0, "1", 2, "bob"), (0, "7", 3, "bob"), (0, "7", 0, "ann")]
    export = write(tmp_path / "e.json", annotated(dataset, chosen))
    dataset.import_labels(export, prefer="most")
    assert labels(dataset)[0] == "7"


def test_json_min_and_csv_say_the_same_as_json(dataset: Dataset, tmp_path: Path) -> None:
    rows = [
        {
            "id": index + 1,
            "image": f"/data/upload/1/0a1b2c3d-{hex_of(dataset.rows[index].sample)}.png",
            "class": choice,
            "annotator": "ann@example.com",
            "annotation_id": index,
            "created_at": "2026-11-22T09:00:00.5Z",
            "updated_at": "2026-11-22T09:00:00.5Z",
            "lead_time": 2.5,
        }
        for index, choice in ((0, "7"), (3, "3"))
    ]
    assert dataset.import_labels(write(tmp_path / "min.json", rows)).added == 2
    assert labels(dataset) == ["7", "", "", "3"]
    for name, delimiter in (("result.csv", ","), ("result.tsv", "\t")):
        with (tmp_path / name).open("w", encoding="utf8", newline="") as stream:
            writer = csv.DictWriter(
                stream, sorted(rows[0]), quoting=csv.QUOTE_NONNUMERIC, delimiter=delimiter
            )
            writer.writeheader()
            writer.writerows(rows)
        again = dataset.import_labels(tmp_path / name)
        assert (again.read, again.added) == (2, 0)


def test_tasks_without_one_clear_choice_are_counted(dataset: Dataset, tmp_path: Path) -> None:
    tasks = annotated(dataset, [(n, "1", 0, "ann") for n in range(4)])
    tasks[0]["annotations"][0]["was_cancelled"] = True
    tasks[1]["annotations"][0]["result"] = []
    tasks[2]["annotations"][0]["result"][0]["value"]["choices"] = ["1", "2"]
    tasks[3]["data"] = {"image": "elsewhere.png"}
    brought = dataset.import_labels(write(tmp_path / "e.json", tasks))
    assert (brought.read, brought.skipped) == (0, 4)


def test_labels_of_samples_elsewhere_are_kept_and_counted(dataset: Dataset, tmp_path: Path) -> None:
    tasks = annotated(dataset, [(0, "1", 0, "ann")])
    tasks[0]["data"]["sample"] = digest_of(b"elsewhere")
    brought = dataset.import_labels(write(tmp_path / "e.json", tasks))
    assert (brought.read, brought.elsewhere, brought.added) == (1, 1, 1)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"[{", "no JSON"),
        (b'{"tasks": []}', "no list of tasks"),
        (b"[1]", "no list of tasks"),
        (b"\xff\xfe", "no text"),
        (b"image,tag\nx,y\n", "no column 'class'"),
        (b'image,class\n"x,y\n', "no CSV"),
        (b"", "no column 'class'"),
    ],
)
def test_what_is_no_export_is_refused(
    dataset: Dataset, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "export").write_bytes(content)
    with pytest.raises(DocumentError, match=said):
        dataset.import_labels(tmp_path / "export")
    with pytest.raises(InvalidInputError, match="no export"):
        dataset.import_labels(tmp_path / "nowhere")


def test_labels_outlive_the_dataset_they_were_given_for(
    fleet: Fleet, field: Field, dataset: Dataset, tmp_path: Path
) -> None:
    chosen = [(0, "7", 0, "ann"), (1, "8", 0, "ann")]
    dataset.import_labels(write(tmp_path / "e.json", annotated(dataset, chosen)))
    field.segment("cam-1", [field.capture("cam-1", 9)])
    later = fleet.dataset("digits", labels=dataset.path, to=tmp_path / "later")
    assert [row.label for row in later] == ["7", "8", "", "", ""]
    assert (later.manifest.labelled, later.reference) == (2, "digits:2")
    assert Dataset.open(later.path).rows == later.rows


def test_labels_make_another_version(fleet: Fleet, dataset: Dataset, tmp_path: Path) -> None:
    dataset.import_labels(write(tmp_path / "e.json", annotated(dataset, [(0, "7", 0, "ann")])))
    labelled = fleet.dataset("digits", labels=dataset.path, to=tmp_path / "later")
    assert labelled.digest == Dataset.open(dataset.path).digest != dataset.manifest.digest


def test_labels_since_a_moment_are_counted(dataset: Dataset, tmp_path: Path) -> None:
    chosen = [(0, "7", 1, "ann"), (1, "8", 3, "ann"), (2, "8", 5, "ann")]
    dataset.import_labels(write(tmp_path / "e.json", annotated(dataset, chosen)))
    assert dataset.new_labels_since(AT) == 3
    assert dataset.new_labels_since(AT + timedelta(minutes=3)) == 1


def test_a_damaged_file_of_labels_is_told(dataset: Dataset, tmp_path: Path) -> None:
    dataset.import_labels(write(tmp_path / "e.json", annotated(dataset, [(0, "7", 1, "ann")])))
    (dataset.path / "labels" / "digits.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DocumentError, match="no table of labels"):
        Dataset.open(dataset.path)
