"""Whose folder it is: no dataset is made over another one, over other things, or by two at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from edgefleet.analysis.dataset import Dataset
from edgefleet.errors import AlreadyExistsError, ConflictError, NotFoundError
from edgefleet.protocol.digest import blob_path
from tests.analysis.field import NOON
from tests.protocol.folders import tree

if TYPE_CHECKING:
    from edgefleet.fleet import Fleet
    from tests.analysis.field import Field


def test_another_dataset_keeps_its_files_and_gets_none(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    field.segment("cam-1", [field.capture("cam-1", n, score=0.1 * n) for n in range(5)])
    fleet.dataset("digits", strategy="hard-examples", max=3, to=tmp_path / "set")
    before = tree(tmp_path / "set")
    assert len(before) == 6
    with pytest.raises(AlreadyExistsError, match="digits:1, 3 samples"):
        fleet.dataset("digits", since=field.capture("cam-1", 2).time, to=tmp_path / "set")
    assert tree(tmp_path / "set") == before


def stopped_at(monkeypatch: pytest.MonkeyPatch, fleet: Fleet, count: int) -> list[str]:
    """Ctrl-C is pressed when so many files were fetched; gives those that are asked for."""
    asked: list[str] = []
    telemetry = type(fleet.telemetry)
    whole = telemetry._open_file

    def open_file(self: object, device: str, path: str) -> object:
        if path.startswith("samples/"):
            if len(asked) == count:
                raise KeyboardInterrupt
            asked.append(path)
        return whole(self, device, path)  # type: ignore[arg-type]

    monkeypatch.setattr(telemetry, "_open_file", open_file)
    return asked


def test_a_call_that_is_stopped_leaves_nothing_in_another_dataset_s_folder(
    fleet: Fleet, field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field.segment("cam-1", [field.capture("cam-1", n) for n in range(2)])
    fleet.dataset("digits", to=tmp_path / "set")
    before = tree(tmp_path / "set")
    field.segment("cam-1", [field.capture("cam-1", n) for n in range(2, 6)])
    asked = stopped_at(monkeypatch, fleet, 2)
    with pytest.raises(KeyboardInterrupt):
        fleet.dataset("digits", to=tmp_path / "set")
    assert len(asked) == 2
    assert tree(tmp_path / "set") == before


def test_a_call_that_is_stopped_while_it_mends_a_dataset_leaves_what_it_mended(
    fleet: Fleet, field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field.segment("cam-1", [field.capture("cam-1", n) for n in range(4)])
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    for row in dataset:
        (dataset.path / blob_path(row.sample)).unlink()
    asked = stopped_at(monkeypatch, fleet, 2)
    with pytest.raises(KeyboardInterrupt):
        fleet.dataset("digits", to=tmp_path / "set")
    asked.clear()
    assert len(list((tmp_path / "set" / "blobs" / "sha256").iterdir())) == 2
    assert fleet.dataset("digits", to=tmp_path / "set").arrays().shape == (4, 8, 8)


def test_a_part_is_not_saved_over_another_dataset(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    field.segment("cam-1", [field.capture("cam-1", n) for n in range(4)])
    whole = fleet.dataset("digits", to=tmp_path / "set")
    first, rest = whole.part(whole.rows[:1]), whole.part(whole.rows[1:])
    first.save(tmp_path / "part")
    before = tree(tmp_path / "part")
    with pytest.raises(AlreadyExistsError, match="1 samples"):
        rest.save(tmp_path / "part")
    assert tree(tmp_path / "part") == before


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "notes.txt"])
def test_a_folder_of_other_things_is_not_touched(
    fleet: Fleet, field: Field, tmp_path: Path, name: str
) -> None:
    """A bundle has its files where a dataset has them, too."""
    field.segment("cam-1", [field.capture("cam-1", n) for n in range(2)])
    dataset = fleet.dataset("digits", to=tmp_path / "set")
    blobs = tmp_path / "other" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / ("a" * 64)).write_bytes(b"weights")
    (tmp_path / "other" / name).write_bytes(b"{}")
    before = tree(tmp_path / "other")
    with pytest.raises(AlreadyExistsError, match=f"holds {name!r}, which is of no dataset"):
        fleet.dataset("digits", to=tmp_path / "other")
    with pytest.raises(AlreadyExistsError, match="of no dataset"):
        dataset.save(tmp_path / "other")
    assert tree(tmp_path / "other") == before


def test_a_folder_whose_dataset_was_not_to_be_remembered_is_remembered_when_it_is(
    fleet: Fleet, field: Field, tmp_path: Path
) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])
    passing = fleet.dataset("digits", to=tmp_path / "set", numbered=False)
    assert passing.reference == passing.manifest.digest
    kept = fleet.dataset("digits", to=tmp_path / "set")
    assert (kept.reference, kept.manifest.digest) == ("digits:1", passing.manifest.digest)
    assert fleet.dataset("digits", to=tmp_path / "set", numbered=False).reference == "digits:1"


def test_a_file_is_no_folder_for_a_dataset(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])
    (tmp_path / "set").write_bytes(b"mine")
    with pytest.raises(AlreadyExistsError, match="is a file"):
        fleet.dataset("digits", to=tmp_path / "set")


def test_a_call_that_ended_before_its_folder_had_its_name_stops_no_other(
    fleet: Fleet, field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])

    def killed(_self: Path, _target: object) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            fleet.dataset("digits")
    assert Dataset.open("datasets/.digits.partial").reference == "digits:1"
    field.segment("cam-1", [field.capture("cam-1", 1)])
    assert fleet.dataset("digits").path == Path("datasets/digits-2")
    assert fleet.dataset("digits", until=field.capture("cam-1", 1).time).reference == "digits:1"


def test_two_at_once_are_told_apart(fleet: Fleet, field: Field, tmp_path: Path) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])
    Path("datasets").mkdir()
    with (
        FileLock("datasets/.digits.partial.lock"),
        pytest.raises(ConflictError, match="another process makes a dataset"),
    ):
        fleet.dataset("digits")
    assert fleet.dataset("digits", to=tmp_path / "set").reference == "digits:1"


def test_a_lock_that_can_not_be_removed_keeps_nobody_from_a_dataset(
    fleet: Fleet, field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, as long as it is held."""
    field.segment("cam-1", [field.capture("cam-1", 0)])
    really = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - as it is
        if path.suffix == ".lock":
            raise PermissionError(13, "another process has it open")
        really(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    for _ in range(2):
        assert fleet.dataset("digits").path == Path("datasets/digits-1")


def test_a_call_that_finds_nothing_leaves_nothing(fleet: Fleet, field: Field) -> None:
    field.segment("cam-1", [field.capture("cam-1", 0)])
    with pytest.raises(NotFoundError, match="no sample"):
        fleet.dataset("digits", until=NOON)
    assert not Path("datasets").exists()
