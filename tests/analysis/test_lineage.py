"""From an answer back to the data, and from a sample on to the devices."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

import edgefleet
from edgefleet.analysis.run_records import read_run
from edgefleet.errors import InvalidInputError, NotFoundError
from edgefleet.protocol.digest import digest_of, hex_of
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import new_event
from edgefleet.testing.kit import samples
from tests.analysis.field import Field

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet.analysis.dataset import Dataset
    from edgefleet.fleet import Fleet
    from edgefleet.interfaces.training_run import TrainingRun
    from edgefleet.interfaces.values import ModelVersion
    from edgefleet.protocol.event import Event

SCRIPT = """
import os, pathlib
folder = pathlib.Path(os.environ["EDGEFLEET_DATA_DIR"])
assert (folder / "samples.parquet").is_file()
(pathlib.Path(os.environ["EDGEFLEET_OUTPUT_DIR"]) / "model.onnx").write_bytes(b"weights")
"""
PROFILE = """
[profiles.default]
provider = "local"

[profiles.default.local]
supervise = false
"""


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A fleet whose devices are enrolled and not run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    (tmp_path / "edgefleet.toml").write_text(PROFILE, encoding="utf-8")
    with edgefleet.connect("default") as opened:
        yield opened


@pytest.fixture
def dataset(fleet: Fleet, field: Field, tmp_path: Path) -> Dataset:
    field.segment("cam-1", [field.capture("cam-1", n) for n in range(8)])
    return fleet.dataset("digits", to=tmp_path / "set")


@pytest.fixture
def run(fleet: Fleet, dataset: Dataset, tmp_path: Path) -> TrainingRun:
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    return fleet.train(tmp_path / "train.py", data=dataset, params={"epochs": 2})


@pytest.fixture
def version(fleet: Fleet, run: TrainingRun, tmp_path: Path) -> ModelVersion:
    return fleet.push(samples.bundle(tmp_path), "digits", run=run, progress=False)


def answer(field: Field, version: ModelVersion, *, device: str = "cam-2") -> Event:
    """A prediction of that version, in a segment; later than all that was done before."""
    plain = samples.prediction(0).payload()
    data = msgspec.structs.replace(plain, bundle=version.digest, model_version=version.version)
    event = new_event(data, time=datetime.now(UTC) + timedelta(minutes=1), identity="answer-1")
    field.segment(device, [event])
    return event


# What is recorded on the way


def test_a_run_remembers_which_dataset_went_in(
    fleet: Fleet, run: TrainingRun, dataset: Dataset
) -> None:
    run.wait(progress=False)
    record = read_run(fleet.state, run.id)
    assert record is not None
    assert (record.dataset, record.reference) == (dataset.manifest.digest, "digits:1")
    assert (record.params, record.labels) == ({"epochs": 2}, None)


def test_a_version_says_which_run_and_dataset_it_came_from(
    version: ModelVersion, run: TrainingRun, dataset: Dataset
) -> None:
    assert version.lineage == {
        "run": run.id,
        "dataset": dataset.manifest.digest,
        "dataset_version": "digits:1",
    }


def test_the_same_bytes_of_another_run_keep_their_lineage(
    fleet: Fleet, version: ModelVersion, tmp_path: Path
) -> None:
    again = fleet.push(samples.bundle(tmp_path / "b"), "digits", run="other-run", progress=False)
    assert again.lineage == version.lineage


def test_a_part_that_was_saved_is_remembered_when_it_is_trained_on(
    fleet: Fleet, dataset: Dataset, tmp_path: Path
) -> None:
    part, _ = dataset.split(test=0.5)
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    with pytest.raises(InvalidInputError, match="part of the dataset"):
        fleet.train(tmp_path / "train.py", data=part)
    run = fleet.train(tmp_path / "train.py", data=part.save(tmp_path / "part").path)
    record = read_run(fleet.state, run.id)
    assert record is not None
    assert (record.dataset, record.reference) == (part.digest, "digits:2")
    uses = fleet.lineage.of_sample(part.rows[0].sample)
    assert [one.reference for one in uses.datasets] == ["digits:1", "digits:2"]


def test_a_folder_that_is_no_dataset_of_ours_is_trained_on_all_the_same(
    fleet: Fleet, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text('{"title": "elsewhere"}', encoding="utf-8")
    (tmp_path / "train.py").write_text("", encoding="utf-8")
    run = fleet.train(tmp_path / "train.py", data=tmp_path / "data")
    assert read_run(fleet.state, run.id) is None


def test_a_sample_says_which_release_gave_its_device_the_model(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    pushed = fleet.push(samples.bundle(tmp_path), "digits", progress=False)
    fleet.enroll("cam-7", group="line-3")
    first = fleet.deploy(pushed, to="line-3").release
    later = (datetime.now(UTC) - datetime(2026, 11, 21, 12, tzinfo=UTC)).total_seconds() + 60
    field.segment("cam-7", [field.capture("cam-7", round(later), bundle=pushed.digest)])
    (row,) = fleet.dataset("digits", device="cam-7", to=tmp_path / "set")
    assert row.release == first


# Back


def test_an_answer_leads_back_to_the_samples(
    fleet: Fleet, field: Field, version: ModelVersion, run: TrainingRun, dataset: Dataset
) -> None:
    fleet.enroll("cam-2", group="line-3")
    deployed = fleet.deploy(version, to="line-3")
    event = answer(field, version)
    found = fleet.lineage.of_prediction(event.id, device="cam-2")
    assert (found.device, found.group, found.release) == ("cam-2", "local/line-3", deployed.release)
    assert found.model.reference == "digits:1"
    assert found.model.run is not None
    assert found.model.run.run == run.id
    assert found.model.run.dataset is not None
    assert found.model.run.dataset.digest == dataset.manifest.digest
    assert [one.sample for one in found.samples] == [row.sample for row in dataset][:5]
    assert found.gaps == ()


def test_the_tree_names_every_link(
    fleet: Fleet, field: Field, version: ModelVersion, run: TrainingRun
) -> None:
    event = next(iter(fleet.events(kind="sample")))
    told = str(fleet.lineage.of_prediction(event))
    assert "not recorded" in told
    answer(field, version)
    lines = str(fleet.lineage.of_prediction("answer-1")).splitlines()
    assert lines[0].startswith("prediction answer-1: cam-2")
    text = "\n".join(lines)
    for part in ("model digits:1", f"training run {run.id}", "dataset digits:1", "… and 3 more"):
        assert part in text
    assert lines[2].startswith("└─ model")
    assert lines[3].startswith("   └─ training run")


def test_what_is_not_recorded_is_said(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    pushed = fleet.push(samples.bundle(tmp_path), "digits", progress=False)
    answer(field, pushed)
    found = fleet.lineage.of_prediction("answer-1")
    assert found.model.run is None
    assert any("which run trained digits:1" in gap for gap in found.gaps)
    assert any("which release" in gap for gap in found.gaps)


@pytest.mark.parametrize("content", [b"rot", None])
def test_a_table_that_is_damaged_or_gone_hides_no_other(
    fleet: Fleet, field: Field, dataset: Dataset, tmp_path: Path, content: bytes | None
) -> None:
    field.segment("cam-1", [field.capture("cam-1", 8)])
    second = fleet.dataset("digits", to=tmp_path / "second")
    table = next((tmp_path / ".edgefleet").rglob(hex_of(dataset.manifest.table)))
    table.unlink()
    if content is not None:
        table.write_bytes(content)
    found = fleet.lineage.of_sample(dataset.rows[0].sample)
    assert [one.digest for one in found.datasets] == [second.digest]
    assert any(dataset.manifest.digest in gap for gap in found.gaps)


def test_an_answer_of_a_bundle_unknown_is_told(fleet: Fleet, field: Field) -> None:
    field.segment("cam-1", [samples.prediction(0)])
    found = fleet.lineage.of_prediction(samples_id(fleet))
    assert found.model.reference == ""
    assert any("isn't in the registry" in gap for gap in found.gaps)


def test_an_answer_that_names_no_possible_model_is_told(fleet: Fleet, field: Field) -> None:
    event = samples.prediction(0)
    data = msgspec.json.decode(bytes(event.data)) | {"model": "../digits", "bundle": ""}
    forged = msgspec.structs.replace(event, data=msgspec.Raw(msgspec.json.encode(data)))
    field.segment("cam-1", [forged])
    found = fleet.lineage.of_prediction(forged.id)
    assert any("../digits:" in gap for gap in found.gaps)


def samples_id(fleet: Fleet) -> str:
    return next(iter(fleet.events(kind="prediction"))).id


def test_what_leads_nowhere_is_refused(fleet: Fleet) -> None:
    with pytest.raises(NotFoundError, match="no prediction or sample 'x'"):
        fleet.lineage.of_prediction("x")
    with pytest.raises(InvalidInputError, match="of kind alarm"):
        fleet.lineage.of_prediction(samples.alarm(1))
    with pytest.raises(InvalidInputError, match="not a digest"):
        fleet.lineage.of_sample("x")


# On


def test_a_sample_leads_on_to_the_devices_that_were_served(
    fleet: Fleet, field: Field, version: ModelVersion, run: TrainingRun, dataset: Dataset
) -> None:
    for name in ("cam-2", "cam-3"):
        fleet.enroll(name, group="line-3")
    fleet.enroll("cam-4", group="line-4")
    deployed = fleet.deploy(version, to="line-3")
    found = fleet.lineage.of_sample(dataset.rows[2].sample)
    assert [one.reference for one in found.datasets] == ["digits:1"]
    assert [one.run for one in found.runs] == [run.id]
    assert [one.reference for one in found.models] == ["digits:1"]
    assert [(one.release, one.group) for one in found.releases] == [
        (deployed.release, "local/line-3")
    ]
    assert [(one.device, one.how) for one in found.devices] == [
        ("cam-2", "was in its group"),
        ("cam-3", "was in its group"),
    ]
    text = str(found)
    for part in ("captured by cam-1", "model digits:1", "local/line-3 was given", "2 devices"):
        assert part in text


def test_a_device_that_reports_the_model_was_served_by_it(
    fleet: Fleet, field: Field, version: ModelVersion, dataset: Dataset
) -> None:
    fleet.enroll("cam-2", group="line-3")
    fleet.deploy(version, to="line-3")
    release = edgefleet.Release(
        models=(edgefleet.ReleaseModel(name="digits", version="1", bundle=version.digest),)
    )
    report = field.home / "devices" / "cam-2" / "report.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_bytes(encode(samples.report(samples.pointer(1), release)))
    (served,) = fleet.lineage.of_sample(dataset.rows[0].sample).devices
    assert (served.device, served.how) == ("cam-2", "reports it")


def test_events_tell_of_devices_that_have_left(
    fleet: Fleet, field: Field, version: ModelVersion, dataset: Dataset
) -> None:
    answer(field, version, device="gone")
    sample = dataset.rows[0].sample
    assert fleet.lineage.of_sample(sample).devices == ()
    (served,) = fleet.lineage.of_sample(sample, events=True).devices
    assert (served.device, served.group, served.how) == ("gone", "", "told of its answers")


def test_a_sample_in_no_dataset_leads_nowhere(fleet: Fleet) -> None:
    found = fleet.lineage.of_sample(digest_of(b"nowhere"))
    assert found.datasets == ()
    assert "not recorded: any dataset with that sample" in str(found)


def test_lineage_shows_itself_as_json_and_as_html(
    fleet: Fleet, version: ModelVersion, dataset: Dataset
) -> None:
    found = fleet.lineage.of_sample(dataset.rows[0].sample)
    facts = json.loads(json.dumps(found.facts()))
    assert facts["models"][0]["reference"] == version.reference
    page = found._repr_html_()
    assert page.count("<li>") == page.count("</li>") > 3


def test_a_profile_without_deployers_makes_datasets_too(
    field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("registry", "trainer", "telemetry", "state")
    roles = "\n".join(f'{name} = "local"' for name in names)
    (tmp_path / "edgefleet.toml").write_text(f"[profiles.reader]\n{roles}\n", encoding="utf-8")
    with edgefleet.connect("reader") as reader:
        pushed = reader.push(samples.bundle(tmp_path), "digits", progress=False)
        field.segment("cam-1", [field.capture("cam-1", 0, bundle=pushed.digest)])
        (row,) = reader.dataset("digits", to=tmp_path / "set")
        assert row.release == ""
        assert reader.lineage.of_prediction(row.id).group == ""
