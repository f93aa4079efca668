"""Datasets of what devices captured: the same for the same samples, and honest of what is amiss."""

from __future__ import annotations

import random
import warnings
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from edgefleet.analysis.dataset import Dataset
from edgefleet.errors import (
    AlreadyExistsError,
    DocumentError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
)
from edgefleet.protocol.bundle import Details, Interface
from edgefleet.protocol.digest import blob_path, digest_of
from edgefleet.protocol.layout import BundleLayout, BundleWriter
from tests.analysis.field import NOON, npy, picture

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.fleet import Fleet
    from tests.analysis.field import Field


def named_bundle(folder: Path, *classes: str) -> BundleLayout:
    file = folder / "model.onnx"
    file.write_bytes(b"weights")
    interface = Interface(inputs=(), outputs=())
    details = Details(variant="fp32", entry=file.name, interface=interface, labels=classes)
    with BundleWriter(folder / "bundle") as writer:
        writer.add_variant(
            details,
            {file.name: file},
            model_name="digits",
            model_format="onnx",
            precision="fp32",
            opset=17,
        )
        return writer.finish()


def ids(dataset: Dataset) -> list[str]:
    return [row.id for row in dataset]


# What is in it


def test_a_dataset_holds_what_was_captured_and_what_the_model_said(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    field.segment("cam-1", [field.capture("cam-1", n, top=n, score=0.5) for n in range(3)])
    field.segment("cam-2", [field.capture("cam-2", 7, top=9, score=0.25)])
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    assert ids(dataset) == ["cam-1-0", "cam-1-1", "cam-1-2", "cam-2-7"]
    last = dataset.rows[-1]
    assert (last.device, last.version, last.predicted, last.score) == ("cam-2", "1", "9", 0.25)
    assert (last.reason, last.time, last.sample) == ("unsure", last.time, last.inputs["x"])
    assert np.array_equal(dataset.array(last), picture(7))
    assert dataset.arrays("x").shape == (4, 8, 8)
    assert np.array_equal(dataset.arrays()[1], picture(1)[0])


def test_what_was_written_reads_back(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    field.segment("cam-1", [field.capture("cam-1", n, outputs=True) for n in range(3)])
    made = fleet.dataset("digits", to=tmp_path / "set")
    read = Dataset.open(tmp_path / "set")
    assert (read.rows, read.manifest, read.digest) == (made.rows, made.manifest, made.digest)
    assert made.digest == made.manifest.digest


def test_a_score_that_the_event_does_not_tell_is_read_from_the_captured_output(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0, top=4, score=0.75, outputs=True)])
    (row,) = fleet.dataset("digits", to=tmp_path / "set")
    assert (row.predicted, row.score) == ("4", 0.75)


def test_samples_with_the_same_inputs_are_one(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    field.segment("cam-2", [field.capture("cam-2", 5, seed=1), field.capture("cam-2", 6, seed=2)])
    field.segment("cam-1", [field.capture("cam-1", 9, seed=1)])
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    assert ids(dataset) == ["cam-2-5", "cam-2-6"]
    assert [row.captured for row in dataset] == [2, 1]
    assert dataset.manifest.found.repeated == 1


def test_other_models_and_times_stay_out(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    field.segment("cam-1", [field.capture("cam-1", n) for n in range(6)])
    second = (field.capture("cam-1", 1).time - NOON) * 1
    dataset = fleet.dataset(
        "digits", since=NOON + 2 * second, until=NOON + 4 * second, to=tmp_path / "set"
    )
    assert ids(dataset) == ["cam-1-2", "cam-1-3"]
    with pytest.raises(NotFoundError, match="no sample of 'letters'") as nothing:
        fleet.dataset("letters", to=tmp_path / "other")
    assert "segment_max_age_s" in str(nothing.value.cure)


def test_one_devices_samples_can_be_asked_for(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])
    field.segment("cam-2", [field.capture("cam-2", 1)])
    assert ids(fleet.dataset("digits", device="cam-2", to=tmp_path / "set")) == ["cam-2-1"]


def test_classes_go_by_the_names_that_the_bundle_gives_them(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    pushed = fleet.push(named_bundle(tmp_path, "cat", "dog"), "digits", progress=False)
    captured = [field.capture("cam-1", top, top=top, bundle=pushed.digest) for top in (0, 1, 7)]
    field.segment("cam-1", captured)
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    assert [row.predicted for row in dataset] == ["cat", "dog", "7"]
    assert dataset.classes == ("cat", "dog")


def test_a_version_tells_the_bundle_that_an_event_does_not(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    pushed = fleet.push(named_bundle(tmp_path, "cat", "dog"), "digits", progress=False)
    field.segment("cam-1", [field.capture("cam-1", 0, top=1, version="1", bundle="")])
    (row,) = fleet.dataset("digits", to=tmp_path / "set")
    assert (row.bundle, row.predicted) == (pushed.digest, "dog")


# Versions


def test_the_same_samples_make_the_same_version(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    events = [field.capture("cam-1", n) for n in range(8)]
    path = field.segment("cam-1", events)
    first = fleet.dataset("digits", to=tmp_path / "first")
    random.Random(4).shuffle(events)
    path.unlink()
    field.segment("cam-1", events[:3])
    field.segment("cam-1", events[2:])
    again = fleet.dataset("digits", to=tmp_path / "again")
    assert (again.digest, again.reference) == (first.digest, "digits:1")


def test_other_samples_make_the_next_version(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])
    assert fleet.dataset("digits", to=tmp_path / "first").manifest.number == 1
    field.segment("cam-1", [field.capture("cam-1", 1)])
    assert fleet.dataset("digits", to=tmp_path / "second").manifest.number == 2


def test_without_a_folder_a_version_has_one_of_its_own(fleet: Fleet, field: Field) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])
    first = fleet.dataset("digits")
    assert first.path.as_posix() == "datasets/digits-1"
    assert fleet.dataset("digits").rows == first.rows
    assert sorted(path.name for path in first.path.parent.iterdir()) == ["digits-1"]


def test_a_folder_that_holds_another_dataset_is_left_alone(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])
    before = fleet.dataset("digits", to=tmp_path / "set")
    field.segment("cam-1", [field.capture("cam-1", 1)])
    with pytest.raises(AlreadyExistsError, match="digits:1, 1 samples"):
        fleet.dataset("digits", to=tmp_path / "set")
    assert Dataset.open(tmp_path / "set").rows == before.rows
    assert before.arrays().shape == (1, 8, 8)


# What is amiss


def test_files_that_have_not_come_are_counted_and_told(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    late = field.capture("cam-1", 0, files=False)
    field.segment("cam-1", [late, field.capture("cam-1", 1)])
    with pytest.warns(RuntimeWarning, match="1 left out for their files; 1 files missing"):
        dataset = fleet.dataset("digits", to=tmp_path / "set")
    assert ids(dataset) == ["cam-1-1"]
    digest = digest_of(npy(picture(0)))
    assert dataset.provenance.missing == {digest: "cam-1"}
    field.file("cam-1", npy(picture(0)))
    assert ids(fleet.dataset("digits", to=tmp_path / "later")) == ["cam-1-0", "cam-1-1"]


def test_another_sample_stands_in_for_one_whose_file_is_missing(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    hardest = field.capture("cam-1", 0, score=0.1, files=False)
    rest = [field.capture("cam-1", n, score=0.1 * (n + 1)) for n in range(1, 5)]
    field.segment("cam-1", [hardest, *rest])
    with pytest.warns(RuntimeWarning, match="missing"):
        dataset = fleet.dataset("digits", strategy="hard-examples", max=2, to=tmp_path / "set")
    assert ids(dataset) == ["cam-1-1", "cam-1-2"]


def test_a_file_is_taken_from_whichever_device_has_it(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0, seed=5, files=False)])
    field.segment("cam-2", [field.capture("cam-2", 1, seed=5)])
    (row,) = fleet.dataset("digits", to=tmp_path / "set")
    assert row.device == "cam-1"


def test_events_that_make_no_sense_are_counted_and_told(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    whole = field.capture("cam-1", 0)
    broken = msgspec.structs.replace(field.capture("cam-1", 1), data=msgspec.Raw(b'{"model": 7}'))
    bare = field.capture("cam-1", 2)
    without = msgspec.json.decode(bytes(bare.data)) | {"inputs": {}}
    bare = msgspec.structs.replace(bare, data=msgspec.Raw(msgspec.json.encode(without)))
    field.segment("cam-1", [whole, broken, bare])
    with pytest.warns(RuntimeWarning, match="3 captured; 1 malformed; 1 without inputs"):
        dataset = fleet.dataset("digits", to=tmp_path / "set")
    assert ids(dataset) == ["cam-1-0"]
    assert (dataset.manifest.found.malformed, dataset.manifest.found.without_inputs) == (1, 1)


def test_damaged_files_are_counted_and_told(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    field.segment("cam-1", [field.capture("cam-1", n) for n in range(2)])
    field.file("cam-1", b"noise", digest=digest_of(npy(picture(0))))
    with pytest.warns(RuntimeWarning, match="1 files damaged"):
        dataset = fleet.dataset("digits", to=tmp_path / "set")
    assert (ids(dataset), dataset.manifest.found.damaged) == (["cam-1-1"], 1)


def test_what_could_not_be_read_is_in_the_provenance(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    good = field.segment("cam-1", [field.capture("cam-1", 0)])
    bad = field.segment("cam-2", [field.capture("cam-2", n) for n in range(1, 60)])
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.warns(RuntimeWarning, match="1 segments unreadable"):
        dataset = fleet.dataset("digits", to=tmp_path / "set")
    held = dataset.provenance
    assert held.segments == (good.relative_to(field.home).as_posix(),)
    assert list(held.unreadable) == [bad.relative_to(field.home).as_posix()]


def test_a_dataset_without_gaps_warns_of_nothing(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fleet.dataset("digits", to=tmp_path / "set")


def test_an_interrupted_call_goes_on_from_what_it_fetched(
    fleet: Fleet, field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field.segment("cam-1", [field.capture("cam-1", n) for n in range(6)])
    asked: list[str] = []
    telemetry = type(fleet.telemetry)
    whole = telemetry._open_file

    def failing(self: object, device: str, path: str) -> object:
        if path.startswith("samples/"):
            if len(asked) == 3:
                raise KeyboardInterrupt
            asked.append(path)
        return whole(self, device, path)  # type: ignore[arg-type]

    monkeypatch.setattr(telemetry, "_open_file", failing)
    with pytest.raises(KeyboardInterrupt):
        fleet.dataset("digits", to=tmp_path / "set")
    assert not (tmp_path / "set" / "dataset.json").exists()
    first, asked[:] = list(asked), []
    assert len(fleet.dataset("digits", to=tmp_path / "set")) == 6
    assert len(asked) == 3
    assert not set(asked) & set(first)


def test_a_file_that_rots_is_noticed_and_fetched_again(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    blob = tmp_path / "set" / blob_path(dataset.rows[0].sample)
    blob.write_bytes(b"rot")
    with pytest.raises(IntegrityError, match="other content"):
        dataset.arrays()
    assert fleet.dataset("digits", to=tmp_path / "set").arrays().shape == (1, 8, 8)


def test_a_full_disk_is_told_and_what_was_fetched_stays(
    fleet: Fleet, field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from edgefleet.analysis import sample_files
    from edgefleet.protocol import files

    field.segment("cam-1", [field.capture("cam-1", n) for n in range(3)])
    written: list[Path] = []
    whole = files.write_whole

    def filling(path: Path, data: bytes) -> None:
        if len(written) == 2:
            with files.translate_full(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, data)
        written.append(path)

    monkeypatch.setattr(sample_files, "write_whole", filling)
    with pytest.raises(StorageFullError):
        fleet.dataset("digits", to=tmp_path / "set")
    assert all(path.is_file() for path in written)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert len(fleet.dataset("digits", to=tmp_path / "set")) == 3


def test_files_of_a_dataset_beside_it_are_linked(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])
    first = fleet.dataset("digits", to=tmp_path / "sets" / "first")
    field.segment("cam-1", [field.capture("cam-1", 1)])
    second = fleet.dataset("digits", to=tmp_path / "sets" / "second")
    shared = blob_path(first.rows[0].sample)
    assert (second.path / shared).samefile(first.path / shared)


@pytest.mark.parametrize("file", ["dataset.json", "samples.parquet"])
@pytest.mark.parametrize("content", [b"", b"{}", b"PAR1" + bytes(40) + b"PAR1"])
def test_a_folder_that_is_damaged_is_refused(
    fleet: Fleet, field: Field, tmp_path: Path, file: str, content: bytes
) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])
    fleet.dataset("digits", to=tmp_path / "set")
    (tmp_path / "set" / file).write_bytes(content)
    with pytest.raises((DocumentError, IntegrityError)):
        Dataset.open(tmp_path / "set")


def test_a_folder_without_a_dataset_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no dataset at"):
        Dataset.open(tmp_path)


def test_what_makes_no_dataset_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no strategy 'best'"):
        fleet.dataset("digits", strategy="best", to=tmp_path / "set")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="max is at least 1"):
        fleet.dataset("digits", max=0, to=tmp_path / "set")
    with pytest.raises(NotFoundError, match="no labels"):
        fleet.dataset("digits", labels=tmp_path, to=tmp_path / "set")


def test_an_input_that_is_not_there_is_told(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])
    with pytest.raises(InvalidInputError, match="no input 'y'"):
        fleet.dataset("digits", to=tmp_path / "set").arrays("y")


def test_inputs_of_several_shapes_are_not_stacked(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0), field.capture("cam-1", 1, side=16)])
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    with pytest.raises(InvalidInputError, match="of several kinds"):
        dataset.arrays()


def test_samples_of_a_window_that_moved_are_drifted(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    windows = [
        field.window("cam-1", 0, 10, "stable"),
        field.window("cam-1", 10, 20, "moved"),
        field.window("cam-2", 20, 30, "moved"),
    ]
    field.segment("cam-1", [field.capture("cam-1", n) for n in (5, 15, 20, 25)] + windows[:2])
    field.segment("cam-2", [field.capture("cam-2", 27), windows[2]])
    dataset = fleet.dataset("digits", strategy="drifted", to=tmp_path / "set")
    assert ids(dataset) == ["cam-1-15", "cam-2-27"]


# Parts


def test_a_split_leaves_each_sample_on_its_side_in_every_dataset(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    field.segment("cam-1", [field.capture("cam-1", n) for n in range(40)])
    train, test = fleet.dataset("digits", to=tmp_path / "first").split(test=0.3, seed=7)
    field.segment("cam-1", [field.capture("cam-1", n) for n in range(40, 60)])
    train_2, test_2 = fleet.dataset("digits", to=tmp_path / "second").split(test=0.3, seed=7)
    assert len(train) + len(test) == 40
    assert 0 < len(test) < 20
    assert set(ids(test)) < set(ids(test_2))
    assert not set(ids(test)) & set(ids(train_2))
    other = fleet.dataset("digits", to=tmp_path / "second").split(test=0.3, seed=8)[1]
    assert ids(other) != ids(test_2)


def test_a_part_saved_is_a_dataset_of_its_own(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    field.segment("cam-1", [field.capture("cam-1", n) for n in range(10)])
    _, test = fleet.dataset("digits", to=tmp_path / "set").split(test=0.5)
    saved = test.save(tmp_path / "frozen")
    assert (saved.rows, saved.digest) == (test.rows, test.digest)
    assert saved.manifest.number is None
    assert np.array_equal(saved.arrays(), test.arrays())
    assert test.save(tmp_path / "frozen").manifest == saved.manifest


def test_a_dataset_becomes_a_data_frame(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    field.segment("cam-1", [field.capture("cam-1", n, top=n) for n in range(3)])
    frame = fleet.dataset("digits", to=tmp_path / "set").to_pandas()
    assert list(frame["predicted"]) == ["0", "1", "2"]
    assert set(frame["device"]) == {"cam-1"}


def test_a_dataset_tells_what_it_is(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    field.segment("cam-1", [field.capture("cam-1", n, top=n) for n in range(3)])
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    assert repr(dataset) == f"<dataset digits:1: 3 samples, 0 labelled, at {tmp_path / 'set'}>"
    assert "<td" in dataset._repr_html_()
    facts = dataset.facts()
    assert (facts["number"], facts["counts"]) == (1, {"0": 1, "1": 1, "2": 1})
