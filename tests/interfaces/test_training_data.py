"""Training data on their way to a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.interfaces.training_data import find_data

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in (("a.csv", b"1,2"), ("b.csv", b"3,4"), ("sub/c.csv", b"5,6")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_only_files_that_are_not_there_whole_are_sent(folder: Path) -> None:
    sent: dict[str, Path] = {}
    there = {"data/a.csv": 3, "data/b.csv": 1}
    find_data(folder, takes="nothing else").send_missing("data/", there, sent.__setitem__)
    assert sent == {"data/b.csv": folder / "b.csv", "data/sub/c.csv": folder / "sub" / "c.csv"}


def test_a_file_that_can_not_be_sent_fails_the_whole(folder: Path) -> None:
    def send(name: str, _: Path) -> None:
        if name.endswith("b.csv"):
            raise ConnectionResetError(name)

    with pytest.raises(ConnectionResetError, match=r"b\.csv"):
        find_data(folder, takes="nothing else").send_missing("", {}, send)
