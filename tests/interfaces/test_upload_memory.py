"""Addresses of uploads under way, in files that are their owner's."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet.interfaces.upload_memory import upload_memory


def test_an_address_is_there_until_it_is_forgotten(tmp_path: Path) -> None:
    with upload_memory(tmp_path, "blob") as memory:
        assert memory.address() is None
        memory.keep("https://first")
        memory.keep("https://second")
    with upload_memory(tmp_path, "blob") as again:
        assert again.address() == "https://second"
        again.forget()
        again.forget()
        assert again.address() is None


def test_who_comes_second_keeps_nothing_and_finds_nothing(tmp_path: Path) -> None:
    with upload_memory(tmp_path, "blob") as first:
        first.keep("https://first")
        with upload_memory(tmp_path, "blob") as second:
            assert second.address() is None
            second.keep("https://second")
            second.forget()
        assert first.address() == "https://first"


def test_nobody_else_may_read_an_address(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    with upload_memory(folder, "blob") as memory:
        memory.keep("https://secret")
    assert folder.stat().st_mode & 0o077 == 0
    assert [one.name for one in folder.iterdir() if one.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("broken", [b"", b"[]", b"{}", b'{"address": 3}', b"\xff"])
def test_a_broken_file_is_as_good_as_none(tmp_path: Path, broken: bytes) -> None:
    (tmp_path / "blob.json").write_bytes(broken)
    with upload_memory(tmp_path, "blob") as memory:
        assert memory.address() is None
        memory.keep("https://new")
        assert memory.address() == "https://new"
